"""Where nothing runs in int8 the graph made ready is delivered for its speed alone, or not at all."""

from collections.abc import Callable

import numpy as np
import pytest

from tests.worker import networks
from tests.worker.engine.conftest import SamplesContext
from worker.engine import timing
from worker.engine.int8 import unquantized
from worker.engine.int8.unquantized import without_int8
from worker.engine.model_file import ModelFile
from worker.engine.preparation import prepared


@pytest.mark.parametrize(
    ("rounds", "settled"),
    [([1.1] * 5, "prepared"), ([1.1, 0.9, 1.1, 0.9, 1.1], "original"), ([1.1], "original"), ([1.5], "prepared")],
    ids=["faster", "rounds-disagree", "one-round-and-hardly", "one-round-and-clearly"],
)
def test_the_graph_made_ready_is_kept_where_it_is_faster_beyond_noise(
    rounds: list[float],
    settled: str,
    monkeypatch: pytest.MonkeyPatch,
    saved: Callable[..., ModelFile],
    context: SamplesContext,
) -> None:
    """Measurements are given here, so that the machine has no say in the test."""
    monkeypatch.setattr(unquantized, "times_as_fast", lambda *_: [[1.0] * len(rounds), rounds])
    monkeypatch.setattr(timing, "LEAST_MILLISECONDS", 0.0)
    model = networks.convnet()
    given = context(model, image=np.zeros((1, 3, 16, 16), np.float32))
    source = saved(model)
    left = without_int8(prepared(source, given), source, "measured", given)
    assert (left.settled, left.modified) == (settled, settled == "prepared")
