"""Several files against one original, by the real probes."""

import errno
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from app.recipes.request import Metric
from tests.conftest import ROUND_SECONDS, TIMING_ROUNDS
from tests.worker import networks
from worker.engine.feeds import match_arrays
from worker.engine.graph import inputs_of
from worker.engine.model_file import ModelFile
from worker.runner.events import Events
from worker.runner.job_data import JobData
from worker.runner.measuring import Laboratory, Subject
from worker.runner.pacing import Pacing
from worker.runner.side_by_side import Standing, measure_beside

AGREEMENT = Metric(name="agreement", output="logits")
SAMPLES = 40
# Much more than the probes of three small files take.
BUDGET_SECONDS = 60.0


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> ModelFile:
    return ModelFile(networks.save(networks.convnet(), tmp_path_factory.mktemp("original")))


def _laboratory(original: ModelFile, folder: Path) -> Laboratory:
    images = np.random.default_rng(0).standard_normal((SAMPLES, 3, 16, 16)).astype(np.float32)
    inputs = inputs_of(original.structure())
    feeds = match_arrays(inputs, {"image": images}, "my data")
    one = match_arrays(inputs, {"image": images[:1]}, "my data")
    data = JobData(feeds, feeds, one, batch=1, labels={}, words={})
    return Laboratory(folder, data, 1, "cpu", 0, Pacing(Events(), BUDGET_SECONDS), TIMING_ROUNDS, ROUND_SECONDS)


@pytest.fixture
def laboratory(original: ModelFile, tmp_path: Path) -> Laboratory:
    return _laboratory(original, tmp_path / "measuring")


@pytest.fixture(scope="module")
def subject(original: ModelFile, tmp_path_factory: pytest.TempPathFactory) -> Subject:
    return _laboratory(original, tmp_path_factory.mktemp("measuring")).examine(original)


def _broken(folder: Path) -> ModelFile:
    """A graph that the runtime refuses to load."""
    model = networks.convnet()
    model.graph.node[0].op_type = "NoSuchOperator"
    return ModelFile(networks.save(model, folder))


def _quality(standing: Standing, name: str) -> float | None:
    assert standing.compared is not None
    return next(one.value for one in standing.compared.candidate if one.name == name)


def test_every_file_is_timed_and_compared_with_the_same_original(
    laboratory: Laboratory, subject: Subject, tmp_path: Path
) -> None:
    shaken = ModelFile(networks.save(networks.shaken(networks.convnet(), 0.5), tmp_path / "shaken"))
    found = measure_beside(laboratory, subject, {"copy": subject.model, "shaken": shaken}, AGREEMENT)
    assert list(found) == ["copy", "shaken"]
    for standing in found.values():
        assert standing.unmeasured == []
        assert standing.times is not None
        assert standing.times.ratio.low is not None
        assert standing.times.ratio.low <= standing.times.ratio.value <= (standing.times.ratio.high or 0)
    copy, other = (standing.times for standing in found.values())
    assert copy is not None
    assert other is not None
    # One run: what they are compared with is the same.
    assert copy.original.round_medians_ms == other.original.round_medians_ms
    assert found["copy"].size_bytes == subject.size_bytes
    assert (_quality(found["copy"], "agreement"), _quality(found["copy"], "sqnr_db")) == (1.0, None)
    sqnr = _quality(found["shaken"], "sqnr_db")
    assert sqnr is not None
    # Weights that are off by half of their spread leave about 6 dB of each layer's output.
    assert sqnr < 15
    assert found["shaken"].compared is not None
    assert found["shaken"].compared.sample_count == SAMPLES


def test_a_file_that_the_runtime_refuses_costs_the_others_nothing(
    laboratory: Laboratory, subject: Subject, tmp_path: Path
) -> None:
    files = {"broken": _broken(tmp_path / "broken"), "copy": subject.model}
    found = measure_beside(laboratory, subject, files, AGREEMENT)
    broken, copy = found["broken"], found["copy"]
    assert (broken.times, broken.compared) == (None, None)
    assert [reason.partition(":")[0] for reason in broken.unmeasured] == [
        "Latency was not measured",
        "Quality was not measured",
    ]
    assert all("NoSuchOperator" in reason for reason in broken.unmeasured)
    assert broken.size_bytes > 0
    assert copy.unmeasured == []
    assert copy.times is not None
    assert _quality(copy, "agreement") == 1.0


def test_what_there_is_no_time_for_is_said_and_not_begun(
    laboratory: Laboratory, subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr("worker.runner.measuring.run_probe")
    (standing,) = measure_beside(laboratory, subject, {"copy": subject.model}, AGREEMENT, seconds=0.0).values()
    assert (standing.times, standing.compared) == (None, None)
    assert standing.size_bytes == subject.size_bytes
    assert len(standing.unmeasured) == 2
    assert all("no time was left" in reason and "Raise budget_seconds" in reason for reason in standing.unmeasured)


def test_where_time_suffices_for_some_the_first_are_measured(laboratory: Laboratory, subject: Subject) -> None:
    """Calls of 0.2 s, said to take that: the turns of five files would be over after the deadline."""
    laboratory.round_seconds, laboratory.timing_rounds = 0.25, 1
    slow = subject.footprint.model_copy(update={"load_ms": 0.0, "call_ms": 200.0})
    files = dict.fromkeys("abcde", subject.model)
    # Two rounds of 8 calls are 3.2 s a file: half of 20 s suffices for the original and one more, and a comparison of
    # 8 calls and a start is 2.3 s.
    found = measure_beside(laboratory, replace(subject, footprint=slow), files, AGREEMENT, seconds=20.0)
    assert [name for name, standing in found.items() if standing.times is not None] == ["a"]
    assert all("no time was left" in " ".join(found[name].unmeasured) for name in "bcde")


def test_turns_are_expected_to_take_as_long_as_their_rounds(laboratory: Laboratory) -> None:
    laboratory.timing_rounds, laboratory.round_seconds = 9, 0.25
    assert laboratory.turns_seconds(2) == pytest.approx(9 * 2 * 0.33)  # measured: 0.08 s a turn beside the calls
    laboratory.round_seconds = 2.0
    assert laboratory.turns_seconds(2) == pytest.approx(9 * 2 * 2.08)


def test_data_in_memory_is_written_once_for_all_probes(laboratory: Laboratory, subject: Subject) -> None:
    measure_beside(laboratory, subject, {"a": subject.model, "b": subject.model}, AGREEMENT)
    assert len(list((laboratory.folder / "arrays").iterdir())) == 2  # the call that is timed, and the evaluation data


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "no room left"),
        (OSError(errno.EFBIG, "File too large"), "write a file of more"),
        (MemoryError(), "not enough memory"),
        (ValueError("of ours"), "ended in ValueError"),
    ],
    ids=["disk-full", "file-too-large", "memory", "a-bug"],
)
def test_what_keeps_a_probe_from_running_is_recorded(
    error: Exception, words: str, laboratory: Laboratory, subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr("worker.runner.measuring.run_probe", fail)
    (standing,) = measure_beside(laboratory, subject, {"copy": subject.model}, AGREEMENT).values()
    assert (standing.times, standing.compared) == (None, None)
    assert [words in reason for reason in standing.unmeasured] == [True, True]
