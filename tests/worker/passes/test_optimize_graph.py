"""What `optimize_graph` fuses answers as its parts did."""

from pathlib import Path

import numpy as np

from tests.worker import networks
from tests.worker.networks import normal
from tests.worker.passes.quantizing import apply_pass
from worker.engine.preparation import operator_counts
from worker.engine.sessions import open_session, run_session

WIDTH, HEADS = 8, 2
# As exporters of BERT write it.
MASKED_ATTENTION = """network (float[N,S,8] x, int64[N,S] attention_mask) => (float[N,S,8] y) {
    by_head = Unsqueeze(attention_mask, second)
    by_query = Unsqueeze(by_head, third)
    seen = Cast<to = 1>(by_query)
    hidden = Sub(one, seen)
    bias = Mul(hidden, lowest)
    r = LayerNormalization(x, scale, shift)
    q_product = MatMul(r, q_weight)
    q_sum = Add(q_bias, q_product)
    q_heads = Reshape(q_sum, apart)
    q = Transpose<perm = [0, 2, 1, 3]>(q_heads)
    k_product = MatMul(r, k_weight)
    k_sum = Add(k_bias, k_product)
    k_heads = Reshape(k_sum, apart)
    k = Transpose<perm = [0, 2, 3, 1]>(k_heads)
    v_product = MatMul(r, v_weight)
    v_sum = Add(v_bias, v_product)
    v_heads = Reshape(v_sum, apart)
    v = Transpose<perm = [0, 2, 1, 3]>(v_heads)
    product = MatMul(q, k)
    scores = Div(product, root)
    masked = Add(scores, bias)
    shares = Softmax(masked)
    mixed = MatMul(shares, v)
    by_place = Transpose<perm = [0, 2, 1, 3]>(mixed)
    together = Reshape(by_place, whole)
    out_product = MatMul(together, out_weight)
    out = Add(out_bias, out_product)
    sum = Add(out, r)
    y = LayerNormalization(sum, scale, shift)
}"""
# The first hides nothing: the call that rewrites are proved on.
MASKS = [[1, 1, 1, 1], [0, 0, 1, 1], [1, 0, 1, 1], [1, 1, 0, 0], [0, 0, 0, 0]]


def test_fused_attention_hides_what_a_mask_hides(tmp_path: Path) -> None:
    """Padding on the left and holes as well as padding on the right."""
    parts = ("q", "k", "v", "out")
    model = networks.holding(
        MASKED_ATTENTION,
        second=np.array([1]),
        third=np.array([2]),
        one=np.float32(1),
        lowest=np.finfo(np.float32).min,
        root=np.float32(np.sqrt(WIDTH / HEADS)),
        apart=np.array([0, 0, HEADS, WIDTH // HEADS]),
        whole=np.array([0, 0, WIDTH]),
        scale=np.ones(WIDTH, np.float32),
        shift=np.zeros(WIDTH, np.float32),
        **{f"{part}_weight": normal(WIDTH, WIDTH, seed=seed) for seed, part in enumerate(parts)},
        **{f"{part}_bias": normal(WIDTH, seed=9 + seed) for seed, part in enumerate(parts)},
    )
    arrays = {"x": normal(len(MASKS), 4, WIDTH), "attention_mask": np.array(MASKS)}
    result = apply_pass("optimize_graph", model, tmp_path, arrays)
    assert operator_counts(result.model.structure())["Attention"] == 1
    files = (tmp_path / "model" / "model.onnx", result.model.path)
    exact, made = (run_session(open_session(path, 1), arrays)[0] for path in files)
    np.testing.assert_allclose(made, exact, rtol=1e-4, atol=1e-5)
