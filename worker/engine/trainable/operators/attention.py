"""Attention as one node, and rotary position embeddings."""

import math

import torch
from torch.nn import functional

from worker.engine.trainable.arrays import torch_type
from worker.engine.trainable.registry import Call, operator

RAW, CAPPED, BIASED, PROBABILITIES = range(4)


@operator("Attention")
def attention(
    call: Call,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None = None,
    past_key: torch.Tensor | None = None,
    past_value: torch.Tensor | None = None,
    lengths: torch.Tensor | None = None,
) -> tuple[torch.Tensor, ...]:
    """(N, heads, length, size) each, or (N, length, heads * size); fewer heads of keys serve several of queries.

    Returns the output, keys and values with those of the past, and the scores at the stage that the node names.
    """
    flat = query.dim() == 3
    if flat:
        query = by_heads(query, call.get("q_num_heads", 1))
        key, value = (by_heads(one, call.get("kv_num_heads", 1)) for one in (key, value))
    offset: torch.Tensor | int = 0
    if past_key is not None and past_value is not None:
        offset = past_key.shape[2]
        key, value = torch.cat([past_key, key], dim=2), torch.cat([past_value, value], dim=2)
    present = key, value
    if lengths is not None and past_key is None:
        offset = (lengths.reshape(-1, 1, 1, 1) - query.shape[2]).to(query.device)
    repeats = query.shape[1] // key.shape[1]
    if repeats > 1:
        key, value = (one.repeat_interleave(repeats, dim=1) for one in (key, value))
    bias = _bias(call, query, key, mask, offset)
    if lengths is not None:
        valid = torch.arange(key.shape[2], device=query.device) < lengths.reshape(-1, 1, 1, 1).to(query.device)
        bias = bias + _open(valid, query)
    made, scores = _attended(call, query, key, value, bias)
    made = made.transpose(1, 2).flatten(2) if flat else made
    return made, *present, scores


def by_heads(x: torch.Tensor, heads: int) -> torch.Tensor:
    """(N, length, heads * size) -> (N, heads, length, size)."""
    return x.reshape(*x.shape[:2], heads, -1).transpose(1, 2)


def _open(allowed: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """0 where attention may go, minus infinity elsewhere."""
    zero = torch.zeros((), dtype=like.dtype, device=like.device)
    return torch.where(allowed.to(like.device), zero, float("-inf"))


def _bias(
    call: Call, query: torch.Tensor, key: torch.Tensor, mask: torch.Tensor | None, offset: torch.Tensor | int
) -> torch.Tensor:
    """What is added to the scores, of a shape that broadcasts to (N, heads, queries, keys)."""
    queries, keys = query.shape[2], key.shape[2]
    bias = query.new_zeros(queries, keys)
    if mask is not None:
        mask = _open(mask, query) if mask.dtype == torch.bool else mask
        missing = keys - mask.shape[-1]
        bias = bias + (functional.pad(mask, [0, missing], value=float("-inf")) if missing > 0 else mask)
    ahead = torch.arange(keys, device=query.device) - torch.arange(queries, device=query.device).unsqueeze(1) - offset
    left, right = call.get("left_window_size", -1), call.get("right_window_size", -1)
    if call.get("is_causal", 0):
        bias = bias + _open(ahead <= 0, query)
    if left >= 0:
        bias = bias + _open(ahead >= -left, query)
    return bias + _open(ahead <= right, query) if right >= 0 else bias


def _attended(
    call: Call, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, bias: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """The output and the scores asked for. A query that may attend nothing gives zeros."""
    root = math.sqrt(call.get("scale", None) or 1 / math.sqrt(query.shape[3]))
    cap, stage = call.get("softcap", 0.0), call.get("qk_matmul_output_mode", RAW)
    scores = (query * root) @ (key * root).transpose(2, 3)
    shown = scores
    if cap:
        scores = cap * torch.tanh(scores / cap)
        shown = scores if stage != RAW else shown
    scores = scores + bias
    shown = scores if stage == BIASED else shown
    precision = call.get("softmax_precision", None)
    shut = torch.isneginf(bias.amax(dim=-1, keepdim=True))
    wide = scores.masked_fill(shut, 0.0).to(torch_type(precision) if precision else scores.dtype)
    weights = torch.softmax(wide, dim=-1).masked_fill(shut, 0.0).to(query.dtype)
    return weights @ value, weights if stage == PROBABILITIES else shown


@operator("RotaryEmbedding")
def rotary_embedding(
    call: Call, x: torch.Tensor, cosine: torch.Tensor, sine: torch.Tensor, places: torch.Tensor | None = None
) -> torch.Tensor:
    """(N, heads, length, size) or (N, length, heads * size), turned by the angles of each place."""
    flat = x.dim() == 3
    turned = x.reshape(*x.shape[:2], call.get("num_heads", 0) or 1, -1) if flat else x.transpose(1, 2)
    if places is not None:
        cosine, sine = cosine[places.to(torch.int64)], sine[places.to(torch.int64)]
    made = rotated(turned, cosine, sine, call.get("rotary_embedding_dim", 0), bool(call.get("interleaved", 0)))
    return made.reshape(x.shape) if flat else made.transpose(1, 2)


def rotated(x: torch.Tensor, cosine: torch.Tensor, sine: torch.Tensor, width: int, interleaved: bool) -> torch.Tensor:
    """`x` (N, length, heads, size), angles (N, length, width / 2); the first `width` elements turn, 0 being all."""
    width = width or x.shape[3]
    part, rest = x[..., :width], x[..., width:]
    first, second = (part[..., 0::2], part[..., 1::2]) if interleaved else part.chunk(2, dim=-1)
    cosine, sine = cosine.unsqueeze(2), sine.unsqueeze(2)
    real, imaginary = cosine * first - sine * second, sine * first + cosine * second
    turned = torch.stack([real, imaginary], dim=-1).flatten(-2) if interleaved else torch.cat([real, imaginary], dim=-1)
    return torch.cat([turned, rest], dim=-1)
