"""How large a tensor is, told by what is fed."""

import numpy as np
from onnx import TensorProto

from tests.worker import networks
from worker.engine.calibration.sizes import Sizes


def test_it_follows_from_the_dimensions_that_inputs_name() -> None:
    model = networks.prepared(
        """network (float[N,4,T] x, float[K] z) => (float[N,T,4] y, float[M] kept, float[2,3] fixed) {
            y = Transpose<perm = [0, 2, 1]>(x)
            zero = Constant<value = float {0}>()
            positive = Greater(z, zero)
            kept = Compress(z, positive)
            fixed = Identity(w)
        }""",
        w=np.ones((2, 3), np.float32),
    )
    sizes = Sizes(model, dict.fromkeys(["x", "y", "kept", "fixed"], TensorProto.FLOAT))
    assert [name in sizes for name in ("x", "y", "kept", "fixed", "z")] == [True, True, False, True, False]
    feed = {"x": np.zeros((3, 4, 5), np.float32), "z": np.zeros(7, np.float32)}
    assert sizes.of(feed) == {"x": 60, "y": 60, "fixed": 6}
