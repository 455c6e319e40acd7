"""What ONNX Runtime's optimizers make of ordinary operators, in its own domain.

https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md
"""

import math
from collections.abc import Callable

import torch
from torch.nn import functional

from worker.engine.trainable.arrays import NotTrainable
from worker.engine.trainable.operators import convolution, products
from worker.engine.trainable.operators.attention import by_heads, rotated
from worker.engine.trainable.registry import Call, operator

ACTIVATIONS: dict[str, Callable[[torch.Tensor, list[float]], torch.Tensor]] = {
    "Relu": lambda x, _: torch.relu(x),
    "Tanh": lambda x, _: torch.tanh(x),
    "Sigmoid": lambda x, _: torch.sigmoid(x),
    "LeakyRelu": lambda x, numbers: functional.leaky_relu(x, numbers[0] if numbers else 0.01),
    "Clip": lambda x, numbers: torch.clamp(x, numbers[0], numbers[1]),
    "HardSigmoid": lambda x, numbers: torch.clamp(numbers[0] * x + numbers[1], 0, 1),
}
LEAST_FLOAT = -10000.0


@operator("com.microsoft.Gelu")
def gelu(_call: Call, x: torch.Tensor) -> torch.Tensor:
    return functional.gelu(x)


@operator("com.microsoft.BiasGelu")
def bias_gelu(_call: Call, x: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    return functional.gelu(x + bias)


@operator("com.microsoft.FastGelu")
def fast_gelu(_call: Call, x: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    return functional.gelu(x if bias is None else x + bias, approximate="tanh")


@operator("com.microsoft.QuickGelu")
def quick_gelu(call: Call, x: torch.Tensor) -> torch.Tensor:
    return x * torch.sigmoid(call.get("alpha", 1.702) * x)


@operator("com.microsoft.FusedConv")
def fused_conv(
    call: Call,
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    added: torch.Tensor | None = None,
) -> torch.Tensor:
    made = convolution.conv(call, x, weight, bias)
    made = made if added is None else made + added
    name = call.get("activation", "")
    return ACTIVATIONS[name](made, list(call.get("activation_params", []))) if name else made


@operator("com.microsoft.FusedGemm")
def fused_gemm(call: Call, a: torch.Tensor, b: torch.Tensor, c: torch.Tensor | None = None) -> torch.Tensor:
    made = products.gemm(call, a, b, c)
    name = call.get("activation", "")
    given = [call.get(f"activation_{kind}", None) for kind in ("alpha", "beta", "gamma")]
    return ACTIVATIONS[name](made, [one for one in given if one is not None]) if name else made


@operator("com.microsoft.FusedMatMul", "com.microsoft.TransposeMatMul")
def fused_matmul(call: Call, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """`alpha` A B; either transposed in its last two axes, or its first axis moved behind the other batch axes."""
    a = a.movedim(0, -2) if call.get("transBatchA", 0) else a
    b = b.movedim(0, -2) if call.get("transBatchB", 0) else b
    a = a.transpose(-1, -2) if call.get("transA", 0) and a.dim() > 1 else a
    b = b.transpose(-1, -2) if call.get("transB", 0) and b.dim() > 1 else b
    return torch.matmul(a, b) * call.get("alpha", 1.0)


@operator("SimplifiedLayerNormalization")
def simplified_layer_normalization(call: Call, x: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Over the last axis, without mean and bias."""
    return x * torch.rsqrt(x.pow(2).mean(dim=-1, keepdim=True) + call.get("epsilon", 1e-5)) * scale


@operator("com.microsoft.SkipLayerNormalization")
def skip_layer_normalization(
    call: Call,
    x: torch.Tensor,
    skip: torch.Tensor,
    scale: torch.Tensor,
    shift: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
) -> tuple[torch.Tensor | None, ...]:
    """The normalized sum, two statistics that inference leaves out, and the sum."""
    total = x + skip if bias is None else x + skip + bias
    made = functional.layer_norm(total, scale.shape, scale, shift, call.get("epsilon", 1e-12))
    return made, None, None, total


@operator("com.microsoft.SkipSimplifiedLayerNormalization")
def skip_simplified_layer_normalization(
    call: Call, x: torch.Tensor, skip: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor | None = None
) -> tuple[torch.Tensor | None, ...]:
    total = x + skip if bias is None else x + skip + bias
    return simplified_layer_normalization(call, total, scale), None, None, total


@operator("com.microsoft.EmbedLayerNormalization")
def embed_layer_normalization(
    call: Call,
    tokens: torch.Tensor,
    segments: torch.Tensor | None,
    words: torch.Tensor,
    places: torch.Tensor,
    kinds: torch.Tensor | None,
    scale: torch.Tensor,
    shift: torch.Tensor,
    mask: torch.Tensor | None = None,
    position_ids: torch.Tensor | None = None,
) -> tuple[torch.Tensor, ...]:
    """(N, length, width), the number of tokens that each mask keeps, and the sum that was normalized."""
    length = tokens.shape[1]
    total = words[tokens.to(torch.int64)]
    total = total + (places[:length] if position_ids is None else places[position_ids.to(torch.int64)])
    if segments is not None and kinds is not None:
        total = total + kinds[segments.to(torch.int64)]
    kept = tokens.new_zeros(tokens.shape[0]) if mask is None else mask.sum(dim=1)
    made = functional.layer_norm(total, scale.shape, scale, shift, call.get("epsilon", 1e-12))
    return made, kept.to(torch.int32), total


@operator("com.microsoft.Attention")
def attention(
    call: Call,
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    mask: torch.Tensor | None = None,
    past: torch.Tensor | None = None,
    added: torch.Tensor | None = None,
) -> torch.Tensor:
    """`x` (N, length, inputs), `weight` (inputs, query + key + value): three projections in one."""
    if past is not None:
        raise NotTrainable("com.microsoft.Attention with a past cannot be trained.")
    projected = x @ weight if bias is None else x @ weight + bias
    sizes = call.integers("qkv_hidden_sizes") or [projected.shape[-1] // 3] * 3
    query, key, value = (by_heads(one, call.get("num_heads", 1)) for one in projected.split(sizes, dim=-1))
    return _attended(call, query, key, value, mask, added)


@operator("com.microsoft.MultiHeadAttention")
def multi_head_attention(
    call: Call,
    query: torch.Tensor,
    key: torch.Tensor | None = None,
    value: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    mask: torch.Tensor | None = None,
    added: torch.Tensor | None = None,
    *past: torch.Tensor | None,
) -> torch.Tensor:
    """(N, length, width) each; keys and values may have their heads apart already."""
    if key is None or value is None or query.dim() != 3 or any(one is not None for one in past):
        raise NotTrainable("com.microsoft.MultiHeadAttention with packed inputs or a past cannot be trained.")
    heads = call.get("num_heads", 1)
    if bias is not None:
        width = query.shape[-1]
        query = query + bias[:width]
        if key.dim() == 3:
            key, value = key + bias[width : 2 * width], value + bias[2 * width :]
    apart = [one if one.dim() == 4 else by_heads(one, heads) for one in (query, key, value)]
    return _attended(call, apart[0], apart[1], apart[2], mask, added)


def _attended(
    call: Call,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    added: torch.Tensor | None,
) -> torch.Tensor:
    """(N, heads, length, size) each -> (N, length, heads * size)."""
    scores = query @ key.transpose(2, 3) * (call.get("scale", 0.0) or 1 / math.sqrt(query.shape[-1]))
    scores = scores if added is None else scores + added
    if mask is not None:
        scores = scores + (~_kept(mask, scores)) * call.get("mask_filter_value", LEAST_FLOAT)
    if call.get("unidirectional", 0):
        earlier = torch.ones(scores.shape[2:], dtype=torch.bool, device=scores.device).tril()
        scores = scores.masked_fill(~earlier, torch.finfo(scores.dtype).min)
    return (torch.softmax(scores, dim=-1) @ value).transpose(1, 2).flatten(2)


def _kept(mask: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
    """Which keys count: from lengths (N), a mask of keys (N, keys), or one of pairs (N, queries, keys)."""
    if mask.dim() == 1:
        if len(mask) != scores.shape[0]:
            raise NotTrainable("com.microsoft attention with ranges of keys cannot be trained.")
        mask = torch.arange(scores.shape[-1], device=mask.device) < mask.unsqueeze(1)
    mask = mask.to(torch.bool)
    return mask[:, None, None, :] if mask.dim() == 2 else mask[:, None] if mask.dim() == 3 else mask


@operator("com.microsoft.RotaryEmbedding")
def rotary_embedding(
    call: Call, x: torch.Tensor, places: torch.Tensor, cosine: torch.Tensor, sine: torch.Tensor
) -> torch.Tensor:
    """As the standard operator; `places` (N, length), or (1) where the first token stands."""
    flat = x.dim() == 3
    heads = call.get("num_heads", 0) or (x.shape[-1] // (2 * cosine.shape[1]) if flat else x.shape[1])
    turned = x.reshape(*x.shape[:2], heads, -1) if flat else x.transpose(1, 2)
    if places.numel() == 1:
        places = (places.reshape(1, 1) + torch.arange(turned.shape[1], device=x.device)).expand(x.shape[0], -1)
    width = call.get("rotary_embedding_dim", 0)
    made = rotated(turned, cosine[places], sine[places], width, bool(call.get("interleaved", 0)))
    return made.reshape(x.shape) if flat else made.transpose(1, 2)
