"""What no live worker could carry out is refused at submission, before it waits for one without a reason."""

from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import httpx
import pytest

from app.database import Database
from app.errors import NoTrainingWorker
from app.jobs.capacity import check_capacity
from app.recipes.request import OptimizeRequest
from tests.app.health.factories import add_worker
from tests.app.jobs.factories import add_model

Headers = dict[str, str]


@dataclass
class Case:
    id: str
    target: dict[str, Any]
    workers: list[dict[str, Any]] = field(default_factory=list)
    refusal: tuple[int, str] | None = None
    names: tuple[str, ...] = ()
    recipe: list[dict[str, Any]] = field(default_factory=lambda: [{"pass": "optimize_graph"}])


TWO_CORES = {"name": "small", "queues": ["cpu"], "threads": 2}
MANY_CORES = {"name": "large", "queues": ["cpu"], "threads": 64}
INSPECTOR = {"name": "inspector", "queues": ["inspect"], "threads": 256}
SILENT = MANY_CORES | {"silent_seconds": 61.0}
GPU = {"name": "gpu", "queues": ["gpu"], "threads": 8}
TRAINER = {"name": "trainer", "queues": ["cpu", "cpu-training"], "threads": 4}
SILENT_TRAINER = TRAINER | {"silent_seconds": 61.0}
GPU_TRAINER = {"name": "gpu trainer", "queues": ["gpu", "gpu-training"], "threads": 8}
# Gradients of the model's own answers: the one recipe that needs torch and no data.
TRAINS: list[dict[str, Any]] = [{"pass": "prune_structured", "ratio": 0.5, "importance": "fisher"}]
OLD = {"name": "of the release before", "queues": ["cpu"]}

CASES = [
    Case("as-many-as-there-are", {"threads": 2}, [TWO_CORES]),
    Case("one-too-many", {"threads": 3}, [TWO_CORES], (422, "too_many_threads"), ("is 3", "model 2", "2 or fewer")),
    Case("another-worker-has-them", {"threads": 64}, [TWO_CORES, MANY_CORES]),
    Case("more-than-any", {"threads": 200}, [TWO_CORES, MANY_CORES], (422, "too_many_threads"), ("is 200", "model 64")),
    Case("who-has-them-inspects", {"threads": 3}, [TWO_CORES, INSPECTOR], (422, "too_many_threads")),
    Case("who-has-them-is-silent", {"threads": 3}, [TWO_CORES, SILENT], (422, "too_many_threads")),
    Case("a-worker-does-not-say", {"threads": 200}, [TWO_CORES, OLD]),
    Case("none-is-heard-of", {"threads": 200}),
    Case("a-gpu-that-is-there", {"device": "cuda"}, [TWO_CORES, GPU]),
    Case("no-gpu", {"device": "cuda"}, [TWO_CORES], (409, "no_gpu_worker"), ("cuda", "`gpu`", "cpu")),
    Case("no-worker-at-all", {"device": "cuda"}, [], (409, "no_gpu_worker")),
    Case("a-gpu-that-is-silent", {"device": "cuda"}, [GPU | {"silent_seconds": 61.0}], (409, "no_gpu_worker")),
    Case("the-gpus-cores-count", {"device": "cuda", "threads": 9}, [MANY_CORES, GPU], (422, "too_many_threads")),
    Case("a-trainer-that-is-there", {}, [TWO_CORES, TRAINER], recipe=TRAINS),
    Case("no-trainer", {}, [TWO_CORES], (409, "no_training_worker"), ("`cpu-training`", "torch", "`cpu`"), TRAINS),
    Case("no-worker-that-could-train", {}, [], (409, "no_training_worker"), recipe=TRAINS),
    Case(
        "a-trainer-that-is-silent",
        {},
        [TWO_CORES, SILENT_TRAINER],
        (409, "no_training_worker"),
        recipe=TRAINS,
    ),
    Case(
        "the-trainers-cores-count",
        {"threads": 5},
        [MANY_CORES, TRAINER],
        (422, "too_many_threads"),
        ("model 4",),
        TRAINS,
    ),
    Case("a-gpu-that-trains", {"device": "cuda"}, [GPU_TRAINER], recipe=TRAINS),
    Case("a-gpu-that-does-not", {"device": "cuda"}, [GPU, TRAINER], (409, "no_training_worker"), ("`gpu`",), TRAINS),
    Case("no-gpu-comes-first", {"device": "cuda"}, [TRAINER], (409, "no_gpu_worker"), recipe=TRAINS),
    Case("what-does-not-train-needs-no-trainer", {}, [TWO_CORES], recipe=[{"pass": "prune_structured", "ratio": 0.5}]),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
async def test_what_live_workers_can_do_decides(
    case: Case, client: httpx.AsyncClient, writer: Headers, database: Database, workspace_id: UUID
) -> None:
    for worker in case.workers:
        add_worker(database, **worker)
    body = {"model_id": str(add_model(database, workspace_id)), "recipe": case.recipe}
    answer = await client.post("/v1/jobs", json=body | {"target": case.target}, headers=writer)
    problem = answer.json()
    if case.refusal is None:
        assert answer.status_code == 202, answer.text
    else:
        assert (answer.status_code, problem["code"]) == case.refusal
        assert [name for name in case.names if name not in problem["detail"] + problem["remedy"]] == []


def test_a_search_that_may_train_is_told_how_to_do_without() -> None:
    search = {"model_id": str(UUID(int=1)), "recipe": "auto", "search": {"training": True}}
    with pytest.raises(NoTrainingWorker, match="A search that may train") as caught:
        check_capacity(OptimizeRequest.model_validate(search), [])
    assert "set `search.training` to false" in str(caught.value.remedy)
