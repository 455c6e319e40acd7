"""The catalogue of passes, and whether anybody can run them."""

from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from jsonschema import Draft202012Validator
from pydantic import TypeAdapter

from app.database import Database
from app.recipes.catalogue import CATALOGUE, Recipe
from app.recipes.graph import OptimizeGraph
from app.recipes.pruning import PruneUnstructured
from app.recipes.quantization import QuantizeWeights
from app.recipes.training import Distill, FineTune
from tests.app.health.factories import add_worker

Headers = dict[str, str]


# What has no default because nobody can know it.
REQUIRED: dict[str, dict[str, Any]] = {"prune_unstructured": {"sparsity": 0.5}, "prune_structured": {"ratio": 0.5}}


async def passes(client: httpx.AsyncClient, headers: Headers) -> dict[str, dict[str, Any]]:
    answer = await client.get("/v1/passes", headers=headers)
    assert answer.status_code == 200
    return {entry["name"]: entry for entry in answer.json()["items"]}


async def test_every_pass_is_listed_with_what_it_needs(client: httpx.AsyncClient, reader: Headers) -> None:
    found = await passes(client, reader)
    assert list(found) == list(CATALOGUE)
    assert all(entry["summary"] for entry in found.values())
    assert found["quantize_static"]["needs"] == {
        "calibration_data": True,
        "training_data": False,
        "labels": False,
        "trainable_model": False,
        "float32_weights": True,
        "torch": False,
        "with_arguments": {},
    }
    assert found["fine_tune"]["needs"] == {
        "calibration_data": False,
        "training_data": True,
        "labels": True,
        "trainable_model": True,
        "float32_weights": True,
        "torch": True,
        "with_arguments": {},
    }


async def test_what_an_argument_needs_is_said_beside_what_the_pass_does(
    client: httpx.AsyncClient, reader: Headers
) -> None:
    needs = (await passes(client, reader))["prune_unstructured"]["needs"]
    assert (needs["training_data"], needs["trainable_model"]) == (False, False)
    assert needs["with_arguments"] == {"training": ["trainable_model", "training_data"]}


async def test_a_pass_that_nothing_may_follow_says_so(client: httpx.AsyncClient, reader: Headers) -> None:
    found = await passes(client, reader)
    assert [name for name, entry in found.items() if entry["comes_last"]] == ["compile"]
    assert found["compile"]["devices"] == ["cpu"]


async def test_bits_that_a_kernel_does_not_read_are_refused() -> None:
    with pytest.raises(ValueError, match="4 or 8 bits"):
        QuantizeWeights.model_validate({"pass": "quantize_weights", "bits": 16, "kernels": "matmul_nbits"})


async def test_a_lesson_without_anything_to_learn_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing would be learned"):
        Distill.model_validate({"pass": "distill", "alpha": 0, "gamma": 0})
    assert Distill.model_validate({"pass": "distill", "alpha": 0, "beta": 1}).gamma is None


async def test_defaults_that_depend_on_others_are_filled_in() -> None:
    sgd = FineTune.model_validate({"pass": "fine_tune", "optimizer": "sgd"}).filled_in()
    assert (sgd["learning_rate"], sgd["weight_decay"], sgd["pass"]) == (0.01, 0.0001, "fine_tune")
    given = FineTune.model_validate({"pass": "fine_tune", "learning_rate": 0.5, "weight_decay": 0}).filled_in()
    assert (given["learning_rate"], given["weight_decay"]) == (0.5, 0)


@dataclass
class Pruning:
    id: str
    arguments: dict[str, Any]
    refused_as: str | None = None


PRUNINGS = [
    Pruning("threshold", {"threshold": 0.1}),
    Pruning("the-rest-is-null", {"threshold": None, "percentile": 50, "sparsity": None, "pattern": None}),
    Pruning("pattern", {"pattern": "2:4"}),
    Pruning("nothing-said", {}, "exactly one of .* gives none"),
    Pruning("two-rules", {"threshold": 0.1, "sparsity": 0.5}, "gives `threshold` and `sparsity`"),
    Pruning("all-stay", {"pattern": "4:4"}, "`pattern` is 4:4: N, how many of M weights stay, must be less than M"),
    Pruning("no-pattern", {"pattern": "two of four"}, "match pattern"),
    Pruning("all-go", {"sparsity": 1.0}, "less than 1"),
    Pruning("endless", {"threshold": float("inf")}, "finite"),
]


@pytest.mark.parametrize("case", PRUNINGS, ids=lambda case: case.id)
async def test_exactly_one_rule_says_what_is_pruned(case: Pruning) -> None:
    body = {"pass": "prune_unstructured", **case.arguments}
    if case.refused_as is None:
        PruneUnstructured.model_validate(body)
    else:
        with pytest.raises(ValueError, match=case.refused_as):
            PruneUnstructured.model_validate(body)


async def test_the_schema_of_pruning_refuses_what_the_service_refuses() -> None:
    checker = Draft202012Validator(PruneUnstructured.model_json_schema())
    for case in PRUNINGS[:5]:
        assert checker.is_valid({"pass": "prune_unstructured", **case.arguments}) == (case.refused_as is None), case.id


async def test_the_schema_of_a_pass_has_its_defaults_and_refuses_strangers(
    client: httpx.AsyncClient, reader: Headers
) -> None:
    for name, entry in (await passes(client, reader)).items():
        schema = entry["json_schema"]
        Draft202012Validator.check_schema(schema)
        checker = Draft202012Validator(schema)
        least = {"pass": name, **REQUIRED.get(name, {})}
        assert checker.is_valid(least)
        assert checker.is_valid({"pass": name}) == (name not in REQUIRED)
        assert not checker.is_valid({**least, "no_such_argument": 1})
        assert all("default" in field for key, field in schema["properties"].items() if key != "pass")
        assert all(field.get("description") for field in schema["properties"].values())


async def test_a_pass_is_available_while_a_live_worker_offers_it(
    client: httpx.AsyncClient, reader: Headers, database: Database
) -> None:
    assert {entry["unavailable_reason"] for entry in (await passes(client, reader)).values()} == {"no live worker"}
    add_worker(database, passes=["optimize_graph"])
    add_worker(database, name="silent", passes=list(CATALOGUE), silent_seconds=120)
    found = await passes(client, reader)
    assert (found["optimize_graph"]["available"], found["optimize_graph"]["unavailable_reason"]) == (True, None)
    assert found["quantize_static"]["unavailable_reason"] == "no live worker offers this pass"
    assert found["distill"]["unavailable_reason"] == "no live worker can train"


@pytest.mark.parametrize(
    ("behind", "asked", "fuses"),
    [
        pytest.param([], None, True, id="alone"),
        pytest.param(["quantize_dynamic"], None, True, id="before-a-pass-that-takes-them"),
        pytest.param(["quantize_static"], None, False, id="before-a-pass-that-does-not"),
        pytest.param(["convert_float16", "compile"], None, True, id="before-two"),
        pytest.param(["quantize_static"], True, True, id="as-asked"),
    ],
)
def test_transformers_are_fused_where_what_follows_takes_them(
    behind: list[str], asked: bool | None, fuses: bool
) -> None:
    first: dict[str, Any] = {"pass": "optimize_graph"} | ({} if asked is None else {"fuse_transformers": asked})
    recipe = TypeAdapter(Recipe).validate_python([first, *({"pass": name} for name in behind)])
    assert isinstance(recipe[0], OptimizeGraph)
    assert recipe[0].fuse_transformers is fuses
