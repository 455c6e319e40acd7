"""What every pass configuration shares."""

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

Need = Literal["calibration_data", "training_data", "labels", "trainable_model", "float32_weights"]
Name = Annotated[str, Field(min_length=1, max_length=512)]
"""Of an input, an output or another tensor, or of an array; also of an operator."""
NodeName = Annotated[str, Field(max_length=4096)]
"""Exporters put together the names of all modules around a node; or give it none."""


def exactly_one(names: Sequence[str]) -> Callable[[dict[str, Any]], None]:
    """What a validator checks, in the words of JSON Schema: of these arguments one is given, and is not null."""

    def add(schema: dict[str, Any]) -> None:
        schema["oneOf"] = [{"required": [name], "properties": {name: {"not": {"type": "null"}}}} for name in names]

    return add


def refuse_unless_one(model: BaseModel, names: Sequence[str], wanted: str) -> None:
    """What `exactly_one` says, checked. Raises ValueError: `wanted`, and what is given."""
    given = [f"`{name}`" for name in names if getattr(model, name) is not None]
    if len(given) != 1:
        raise ValueError(f"give exactly one of {wanted}; the request gives {' and '.join(given) or 'none'}")


class Arguments(BaseModel):
    """What a pass is told, or a part of that under one name. Unknown fields are refused; every default is part of the
    API.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    argument_needs: ClassVar[Mapping[str, frozenset[Need]]] = {}
    """By argument: what the pass cannot do without once it is given, beside what the catalogue says of every use."""

    def own_needs(self) -> frozenset[Need]:
        """What these arguments bring with them."""
        given = [needs for name, needs in self.argument_needs.items() if getattr(self, name)]
        return frozenset[Need]().union(*given, *(part.own_needs() for part in self._parts()))

    def training_labels(self) -> dict[str, str]:
        """By output of the model: the array of the training data that the arguments name as its labels."""
        return {output: array for part in self._parts() for output, array in part.training_labels().items()}

    def training_kinds(self) -> list[str]:
        """Outputs of the model of which the arguments say what they hold for training."""
        return [output for part in self._parts() for output in part.training_kinds()]

    def _parts(self) -> list["Arguments"]:
        return [value for _, value in self if isinstance(value, Arguments)]


class PassConfig(Arguments):
    """The arguments of one pass."""

    @property
    def fits_weights(self) -> bool:
        """Whether the pass fits weights anew, of which none is 0 then."""
        return False

    def other_models(self) -> dict[str, UUID]:
        """Uploaded models beside the job's that the arguments name, by argument; a `student` is what is worked on."""
        return {}
