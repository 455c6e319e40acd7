"""Keys of pieces of a search: nothing that was made of something else is ever taken for this."""

import importlib
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from app.jobs.states import JobKind
from app.recipes.quantization import QuantizeStatic
from app.recipes.request import Metric, OptimizeRequest
from tests.conftest import ROUND_SECONDS, TIMING_ROUNDS
from worker.engine.model_file import ModelFile
from worker.engine.versions import SOURCES, source_digest
from worker.runner.contract import InputFile, RunnerJob
from worker.runner.events import Events
from worker.runner.opening import OpenJob
from worker.runner.pacing import Pacing
from worker.runner.search import identity
from worker.runner.search.identity import Identity, identity_of

STATIC = QuantizeStatic.model_validate({"pass": "quantize_static"})
TOP1 = Metric(name="top1", output="y", labels="label")
GIVEN = "ab" * 32


def file(sha256: str) -> InputFile:
    return InputFile(path="inputs/x", media_type="application/octet-stream", sha256=sha256, size_bytes=1, name="x")


def opened(**job: Any) -> OpenJob:
    request = {
        "model_id": "0190a5a0-0000-7000-8000-000000000000",
        "recipe": "auto",
        "target": {"device": "cpu", "threads": 2},
    }
    fields: dict[str, Any] = {
        "kind": JobKind.OPTIMIZE,
        "model": file("m"),
        "others": {"teacher": file("t")},
        "datasets": {"calibration": file("c"), "evaluation": file("e")},
        "request": OptimizeRequest.model_validate(request | job.pop("request", {})),
        "threads": 2,
        "timing_rounds": TIMING_ROUNDS,
        "round_seconds": ROUND_SECONDS,
        "budget_seconds": 60.0,
        "memory_bytes": 1 << 30,
    }
    made = RunnerJob(**(fields | job))
    assert made.request is not None
    return OpenJob(made, made.request, ModelFile(Path("m")), Path(), Path(), Pacing(Events(), 60.0))


@dataclass
class Case:
    id: str
    job: dict[str, Any]


ANOTHER = [
    Case("model", {"model": file("m2")}),
    Case("dataset", {"datasets": {"calibration": file("c"), "evaluation": file("e2")}}),
    Case("role", {"datasets": {"calibration": file("e"), "evaluation": file("c")}}),
    Case("no-data", {"datasets": {}}),
    Case("other-model", {"others": {"teacher": file("t2")}}),
    Case("seed", {"request": {"seed": 1}}),
    # Samples are set aside to learn from: what calibrates and what judges are others.
    Case("training", {"request": {"search": {"training": True}}}),
    Case("threads", {"request": {"target": {"device": "cpu", "threads": 1}}}),
    Case("device", {"request": {"target": {"device": "cuda", "threads": 2}}}),
    Case("batch", {"request": {"target": {"device": "cpu", "threads": 2, "batch": 4}}}),
    Case("timing-rounds", {"timing_rounds": 99}),
    Case("round-seconds", {"round_seconds": 2.0}),
    Case("shapes", {"request": {"target": {"device": "cpu", "threads": 2, "shapes": {"x": [1, 8]}}}}),
]
THE_SAME = [
    Case("budget", {"budget_seconds": 600.0}),
    Case("objective", {"request": {"objective": "size"}}),
    Case("breadth", {"request": {"search": {"max_trials": 99}}}),
    Case("memory", {"memory_bytes": 2 << 30}),
]


def both(found: Identity) -> tuple[str, str]:
    return found.of_step(GIVEN, STATIC), found.of_trial(GIVEN, TOP1, with_memory=False)


@pytest.mark.parametrize("case", ANOTHER, ids=lambda case: case.id)
def test_what_a_job_is_given_is_in_both_keys(case: Case) -> None:
    before, now = both(identity_of(opened(), 0.01)), both(identity_of(opened(**case.job), 0.01))
    assert before[0] != now[0]
    assert before[1] != now[1]


@pytest.mark.parametrize("case", THE_SAME, ids=lambda case: case.id)
def test_what_changes_no_file_is_not(case: Case) -> None:
    assert both(identity_of(opened(), 0.01)) == both(identity_of(opened(**case.job), 0.01))


def test_what_passes_are_told_of_the_contract_is() -> None:
    found = {both(identity_of(opened(), max_drop)) for max_drop in (None, 0.01, 0.02)}
    assert len(found) == 3


SURROUNDINGS: list[tuple[str, Callable[..., Any]]] = [
    ("processor_name", lambda _device: "another processor"),
    ("instruction_sets", lambda: ["another"]),
    ("libraries", lambda: ["onnxruntime 99.0"]),
    ("source_digest", lambda: "another"),
]


@pytest.mark.parametrize(("name", "stand_in"), SURROUNDINGS, ids=[name for name, _ in SURROUNDINGS])
def test_so_is_where_it_ran(monkeypatch: pytest.MonkeyPatch, name: str, stand_in: Callable[..., Any]) -> None:
    before = both(identity_of(opened(), 0.01))
    monkeypatch.setattr(identity, name, stand_in)
    now = both(identity_of(opened(), 0.01))
    assert before[0] != now[0]
    assert before[1] != now[1]


def test_every_argument_of_a_pass_counts_and_defaults_are_filled_in() -> None:
    found = identity_of(opened(), 0.01)
    spelt_out = QuantizeStatic.model_validate(STATIC.model_dump(by_alias=True))
    assert found.of_step(GIVEN, spelt_out) == found.of_step(GIVEN, STATIC)
    other = QuantizeStatic.model_validate({"pass": "quantize_static", "calibration_method": "minmax"})
    assert found.of_step(GIVEN, other) != found.of_step(GIVEN, STATIC)
    assert found.of_step("cd" * 32, STATIC) != found.of_step(GIVEN, STATIC)


def test_what_is_measured_counts() -> None:
    found = identity_of(opened(), 0.01)
    keys = {
        found.of_trial(GIVEN, TOP1, with_memory=False),
        found.of_trial(GIVEN, TOP1, with_memory=True),
        found.of_trial(GIVEN, TOP1.model_copy(update={"labels": "other"}), with_memory=False),
        found.of_trial(GIVEN, Metric(name="cosine"), with_memory=False),
        found.of_trial("cd" * 32, TOP1, with_memory=False),
    }
    assert len(keys) == 5


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda root: (root / "part" / "one.py").write_text("value = 2\n"), id="edited"),
        pytest.param(lambda root: (root / "part" / "two.py").write_text(""), id="added"),
        pytest.param(lambda root: (root / "part" / "one.py").rename(root / "part" / "other.py"), id="renamed"),
    ],
)
def test_a_change_to_the_source_is_another_pass(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, change: Callable[[Path], object]
) -> None:
    root = tmp_path / "stand_in_passes"
    (root / "part").mkdir(parents=True)
    (root / "__init__.py").write_text("")
    (root / "part" / "one.py").write_text("value = 1\n")
    monkeypatch.delitem(sys.modules, root.name, raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    found = []
    for step in (lambda _root: None, change):
        step(root)
        source_digest.cache_clear()
        found.append(source_digest((root.name,)))
    source_digest.cache_clear()
    assert found[0] != found[1]


def test_facts_do_not_depend_on_their_order() -> None:
    found = identity_of(opened(), 0.01)
    turned = replace(found, facts=dict(reversed(list(found.facts.items()))))
    assert both(found) == both(turned)


def test_what_matches_data_to_a_model_has_a_say() -> None:
    """Its source lies beside the API, which asks the same."""
    loaded = Path(str(sys.modules["app.datasets.matching"].__file__))
    roots = [Path(root) for package in SOURCES for root in importlib.import_module(package).__path__]
    assert any(loaded.is_relative_to(root) for root in roots)
