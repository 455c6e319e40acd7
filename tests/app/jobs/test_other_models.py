"""Which teachers and students are refused when a job is submitted: what would fail once one of them is called."""

from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import pytest

from app.datasets.tables import DatasetRow
from app.errors import DataMismatch, LatheError
from app.jobs.other_models import StudentMismatch, check_other_models
from app.models.tables import ModelRow
from app.recipes.request import OptimizeRequest
from tests.app.jobs.refusals import ID, IMAGES, LABELS, MODEL

OTHER = UUID(int=2)
LATENT = {"name": "image", "dtype": "float32", "shape": [100, 8, 8]}


def _taking(*shape: int | str, dtype: str = "float32") -> dict[str, Any]:
    return MODEL | {"inputs": [{"name": "image", "dtype": dtype, "shape": list(shape)}]}


@dataclass(frozen=True)
class Case:
    id: str
    other: dict[str, Any]
    error: type[LatheError] | None = None
    names: str = ""
    argument: str = "student"
    model: dict[str, Any] = field(default_factory=lambda: MODEL)
    images: dict[str, Any] = field(default_factory=lambda: IMAGES)
    target: dict[str, Any] = field(default_factory=dict)
    others: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Images of other roles than training."""


LARGER = IMAGES | {"shape": [100, 1, 16, 16]}
FIXED, SINGLE, OPEN = _taking(4, 1, 8, 8), _taking(1, 1, 8, 8), _taking("B", 1, 8, 8)
CASES = [
    Case("open-as-the-model", OPEN),
    Case("one-sample-where-calls-hold-one", SINGLE),
    Case("the-batch-of-the-model", FIXED, model=FIXED),
    Case("any-batch-for-a-model-with-its-own", OPEN, model=FIXED),
    Case("halves-of-its-own", _taking("B", 1, 8, 8, dtype="float16"), images=IMAGES | {"dtype": "float16"}),
    Case("whole-calls", _taking(8, 8), model=_taking("H", "W"), images=LATENT),
    Case("a-teacher-with-a-batch-of-its-own", FIXED, argument="teacher"),
    Case("a-batch-where-the-model-has-none", FIXED, StudentMismatch, "fixes 4 samples a call; the model"),
    Case(
        "a-batch-that-only-some-calls-fill",
        FIXED,
        StudentMismatch,
        "takes any number",
        target={"batch": 4},
    ),
    Case("another-batch", SINGLE, StudentMismatch, "fixes 1 samples a call", model=FIXED),
    Case("one-sample-timed-on-more", SINGLE, StudentMismatch, "fixes 1 samples a call", target={"batch": 8}),
    Case("another-type", _taking("B", 1, 8, 8, dtype="float64"), StudentMismatch, "is float64 ['B', 1, 8, 8]"),
    Case("another-rank", _taking(8, 8), StudentMismatch, "is float32 [8, 8]", model=_taking("N", 8, 8), images=LATENT),
    Case("axes-that-the-data-lacks", _taking("B", 3, 8, 8), DataMismatch, "as the student is given it"),
    Case(
        "axes-that-the-timed-call-lacks",
        OPEN,
        StudentMismatch,
        "`target.shapes.image` is [2, 1, 16, 16]; the student's",
        model=_taking("N", 1, "H", "W"),
        target={"shapes": {"image": [2, 1, 16, 16]}},
    ),
    Case(
        "a-teacher-of-other-axes", _taking("B", 3, 8, 8), DataMismatch, "as the teacher is given it", argument="teacher"
    ),
    *(
        Case(
            f"axes-that-the-{role}-data-lacks",
            OPEN,
            DataMismatch,
            f"of the {role} dataset, as the student is given it, is float32 [100, 1, 16, 16]",
            model=_taking("N", 1, "H", "W"),
            others={role: LARGER},
        )
        for role in ("calibration", "evaluation")
    ),
    Case(
        "axes-as-open-as-the-model-has-them",
        _taking("B", 1, "H", "W"),
        model=_taking("N", 1, "H", "W"),
        others={"calibration": LARGER, "evaluation": LARGER},
    ),
    Case(
        "a-batch-that-training-data-hide",
        _taking(1, 8),
        StudentMismatch,
        "fixes 1 samples a call",
        model=_taking("A", 8),
        images=LATENT | {"shape": [100, 1, 8]},
        others={"evaluation": LATENT | {"shape": [100, 8]}},
        target={"batch": 8},
    ),
    Case(
        "halves-that-calls-in-singles-are-cast-to",
        _taking("B", 1, 8, 8, dtype="float16"),
        images=IMAGES | {"dtype": "float16"},
        others={"evaluation": IMAGES},
    ),
    Case(
        "a-teacher-is-asked-about-training-data-alone",
        OPEN,
        argument="teacher",
        model=_taking("N", 1, "H", "W"),
        others={"evaluation": LARGER},
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_another_model_has_to_take_the_calls_that_it_is_given(case: Case) -> None:
    images = {"training": case.images} | case.others
    request = OptimizeRequest.model_validate(
        {
            "model_id": str(ID),
            "recipe": [{"pass": "distill", case.argument: str(OTHER)}],
            "data": dict.fromkeys(images, str(ID)),
            "target": case.target,
        }
    )
    arguments = (
        request,
        ModelRow(inspection=case.model, status="ready"),
        {OTHER: ModelRow(inspection=case.other, status="ready")},
        {
            role: DatasetRow(inspection={"arrays": [found, LABELS], "sample_count": 100}, status="ready")
            for role, found in images.items()
        },
    )
    if case.error is None:
        check_other_models(*arguments)
        return
    with pytest.raises(case.error) as caught:
        check_other_models(*arguments)
    assert case.names in caught.value.detail
    assert caught.value.remedy
