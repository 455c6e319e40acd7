"""Whether the models that a recipe names beside the job's own can do what they are named for."""

from collections.abc import Mapping
from uuid import UUID

from app.datasets.inspection import DatasetInspection
from app.datasets.tables import DatasetRow
from app.errors import DataMismatch, NotTrainable, Unprocessable
from app.jobs.naming import named
from app.models.inspection import ModelInspection
from app.models.tables import ModelRow
from app.recipes.request import OptimizeRequest


class StudentMismatch(Unprocessable):
    code, title = "student_mismatch", "The student cannot take the place of the model"


def check_other_models(
    request: OptimizeRequest, model: ModelRow, others: Mapping[UUID, ModelRow], training: DatasetRow | None
) -> None:
    """Raises the first thing that makes it impossible, naming the argument."""
    facts = ModelInspection.model_validate(model.inspection)
    arrays = (
        {array.name for array in DatasetInspection.model_validate(training.inspection).arrays} if training else set()
    )
    for config in request.passes:
        for argument, model_id in config.other_models().items():
            other = ModelInspection.model_validate(others[model_id].inspection)
            if argument == "student":
                _check_student(other, facts)
            missing = sorted({spec.name for spec in other.inputs} - arrays)
            if missing:
                raise DataMismatch(
                    f"The {argument} has the input `{missing[0]}`, and no array of the training data bears its name.",
                    remedy="Add one array for every input of both models, by name.",
                )


def _check_student(student: ModelInspection, model: ModelInspection) -> None:
    if not student.trainable:
        raise NotTrainable(
            f"The student has operators that cannot be trained: {named(student.training_blockers)}.",
            remedy="Name another student.",
        )
    for what, own, wanted in (("inputs", student.inputs, model.inputs), ("outputs", student.outputs, model.outputs)):
        names, expected = [spec.name for spec in own], [spec.name for spec in wanted]
        if sorted(names) != sorted(expected):
            raise StudentMismatch(
                f"The student's {what} are {named(names)}; the model's are {named(expected)}. What is "
                "delivered is compared with the model, call by call.",
                remedy="Export the student with the model's names of inputs and outputs.",
            )
