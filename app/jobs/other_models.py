"""Whether the models that a recipe names beside the job's own can do what they are named for."""

from collections.abc import Mapping
from uuid import UUID

from app.datasets.inspection import ArraySpec, DatasetInspection
from app.datasets.matching import fits, match
from app.datasets.tables import DatasetRow
from app.errors import DataMismatch, NotTrainable, Unprocessable
from app.jobs.naming import named, untrainable
from app.models.inspection import ModelInspection, TensorSpec
from app.models.tables import ModelRow
from app.recipes.request import OptimizeRequest


class StudentMismatch(Unprocessable):
    code, title = "student_mismatch", "The student cannot take the place of the model"


def check_other_models(
    request: OptimizeRequest, model: ModelRow, others: Mapping[UUID, ModelRow], datasets: Mapping[str, DatasetRow]
) -> None:
    """Raises the first thing that makes it impossible, naming the argument; `datasets` are by role."""
    facts = ModelInspection.model_validate(model.inspection)
    arrays = {role: DatasetInspection.model_validate(row.inspection).arrays for role, row in datasets.items()}
    training = arrays.get("training", [])
    for config in request.passes:
        for argument, model_id in config.other_models().items():
            other = ModelInspection.model_validate(others[model_id].inspection)
            if argument == "student":
                _check_student(other, facts)
            missing = sorted({spec.name for spec in other.inputs} - {array.name for array in training})
            if missing:
                raise DataMismatch(
                    f"The {argument} has the input `{missing[0]}`, and no array of the training data bears its name.",
                    remedy="Add one array for every input of both models, by name.",
                )
            match(other.inputs, training, f"the training dataset, as the {argument} is given it,")
            if argument == "student":
                for role, found in arrays.items():
                    _check_calls(other, facts, role, found, request)


def _check_student(student: ModelInspection, model: ModelInspection) -> None:
    if not student.trainable:
        raise NotTrainable(
            f"The student cannot be trained: {untrainable(student)}.",
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


def _check_calls(
    student: ModelInspection, model: ModelInspection, role: str, arrays: list[ArraySpec], request: OptimizeRequest
) -> None:
    """Whether it takes the calls that the model is measured by, and that passes behind it calibrate with.

    `arrays` are those of one role. Calls are made in the model's dtypes, and cast for a student in halves.
    """
    theirs = {spec.name: spec for spec in model.inputs}
    given = match(model.inputs, arrays, f"the {role} dataset")
    as_called = [spec.model_copy(update={"dtype": theirs[spec.name].dtype}) for spec in student.inputs]
    taken = match(as_called, arrays, f"the {role} dataset, as the student is given it,")
    for spec in student.inputs:
        wanted = theirs[spec.name]
        becomes_half = (wanted.dtype, spec.dtype) == ("float32", "float16")
        another_rank = spec.shape is not None and (spec.name in given.whole) != (spec.name in taken.whole)
        if another_rank or (spec.dtype != wanted.dtype and not becomes_half):
            raise StudentMismatch(
                f"The input `{spec.name}` of the student is {_words(spec)}; the model's is {_words(wanted)}.",
                remedy="Export the student with the model's dtypes and axes.",
            )
        asked = (request.target.shapes or {}).get(spec.name)
        if asked is not None and spec.shape is not None and not fits(asked, spec.shape):
            raise StudentMismatch(
                f"`target.shapes.{spec.name}` is {asked}; the student's input is {_words(spec)}.",
                remedy="Leave the shape out, or give one that both models take.",
            )
    # Of calls of several samples the last may hold fewer, where no model fixes how many.
    single = taken.fixed_batch == 1 and given.fixed_batch is None and request.target.batch in (None, 1)
    if taken.fixed_batch not in (None, given.fixed_batch) and not single:
        raise StudentMismatch(
            f"The student fixes {taken.fixed_batch} samples a call; the model, which it is measured beside, "
            f"takes {given.fixed_batch or 'any number'}.",
            remedy="Export the student with its first axis open, or as the model's.",
        )


def _words(spec: TensorSpec) -> str:
    return f"{spec.dtype} {'of unknown rank' if spec.shape is None else spec.shape}"
