"""Blocks go in the order in which outputs miss them, over what they save where that is asked for."""

from collections.abc import Callable

import numpy as np
import pytest

from tests.worker.engine.conftest import SamplesContext
from tests.worker.networks import normal, prepared
from worker.engine import fidelity
from worker.engine.model_file import ModelFile
from worker.engine.pass_contract import PassContext
from worker.engine.structure.block_choice import Chooser, Switches, macs_saved
from worker.engine.structure.removal import Subject

SAMPLES = 32
# What one adds the next takes away again, bit for bit but for rounding: alone each is missed, together they are not.
UNDONE = (
    "network (float[N,8] x) => (float[N,4] y) { a = MatMul(x, w) s = Add(x, a) r = Slice(s, i, j, one) b = MatMul(r, v)"
    " t = Add(s, b) c = MatMul(t, u) z = Add(c, t) y = MatMul(z, h) }"
)
HALF = np.float32(0.5)


def _chooser(context: PassContext, model: ModelFile, *, saving: bool) -> Chooser:
    subject = Subject.of(model, context, ())
    assert len(subject.offered) == 3
    switches = Switches(model, subject.offered, context, SAMPLES, context.scratch / "switches")
    return Chooser(subject.blocks, subject.offered, switches, context, macs_saved(subject.blocks) if saving else None)


@pytest.fixture
def undone(saved: Callable[..., ModelFile]) -> ModelFile:
    """W writes from the first half of its input into the second, and V takes the same from there."""
    w = np.zeros((8, 8), np.float32)
    w[:4, 4:] = normal(4, 4)
    constants = {"w": w, "v": -w, "u": normal(8, 8, seed=1) * HALF, "h": normal(8, 4, seed=2)}
    numbers = {"i": np.array([0]), "j": np.array([8]), "one": np.array([1])}
    return saved(prepared(UNDONE, **constants, **numbers))


def test_two_that_undo_each_other_go_at_once(undone: ModelFile, context: SamplesContext) -> None:
    given = context(undone.load(), x=normal(SAMPLES, 8, seed=5))
    first = next(_chooser(given, undone, saving=True).steps())
    assert len(first) == 2
    assert all(step.error is not None and step.error < 1e-9 for step in first)


def test_by_what_outputs_miss_alone_one_goes_at_a_time_and_is_scored_anew(
    undone: ModelFile, context: SamplesContext
) -> None:
    given = context(undone.load(), x=normal(SAMPLES, 8, seed=5))
    steps = list(_chooser(given, undone, saving=False).steps())
    assert [len(step) for step in steps] == [1, 1, 1]
    errors = [step[0].error or 0.0 for step in steps]
    # The third goes first; then one of the two, and as the other follows, what that one cost comes back.
    assert errors[1] > errors[0]
    assert errors[2] == pytest.approx(errors[0], rel=1e-3)


def test_blocks_are_scored_on_as_many_samples_as_can_be_held(
    undone: ModelFile, context: SamplesContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = context(undone.load(), x=normal(SAMPLES, 8, seed=5))
    subject = Subject.of(undone, given, ())

    def scored(samples: int, folder: str) -> float:
        switches = Switches(undone, subject.offered, given, samples, given.scratch / folder)
        return switches.error(subject.offered[:1])

    eight = scored(8, "eight")
    # Four float32 a sample.
    monkeypatch.setattr(fidelity, "MOST_HELD_BYTES", 8 * 16)
    assert scored(SAMPLES, "all") == eight


def test_numbers_of_which_there_are_more_or_fewer_are_others(
    saved: Callable[..., ModelFile], context: SamplesContext
) -> None:
    """As those of boxes that were found."""
    text = (
        "network (float[N,8] x) => (int64[2,K] places) { a = MatMul(x, w) s = Add(x, a) y = MatMul(s, h)"
        " over = Greater(y, least) places = NonZero(over) }"
    )
    model = saved(prepared(text, w=normal(8, 8), h=normal(8, 4, seed=2), least=np.float32(0)))
    given = context(model.load(), x=normal(SAMPLES, 8, seed=5))
    subject = Subject.of(model, given, ())
    switches = Switches(model, subject.offered, given, SAMPLES, given.scratch / "switches")
    assert 0 < switches.error(subject.offered) <= 1
