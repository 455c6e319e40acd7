"""What a caller may write for a job, in its short forms, as the document that the API takes."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias
from uuid import UUID

from pydantic import BaseModel

from app.client.shapes import Dataset, Model
from app.recipes.base import PassConfig

Document: TypeAlias = Mapping[str, Any] | BaseModel
PassLike: TypeAlias = str | Mapping[str, Any] | PassConfig
RecipeLike: TypeAlias = PassLike | Sequence[PassLike]
ModelLike: TypeAlias = Model | UUID | str
DatasetLike: TypeAlias = Dataset | UUID | str
AUTO: Literal["auto"] = "auto"


def document(value: Document) -> dict[str, Any]:
    """A mapping or one of the API's own shapes, as JSON's types; what was left unset stays unsaid."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", by_alias=True, exclude_unset=True)
    return dict(value)


def recipe_document(recipe: RecipeLike) -> list[dict[str, Any]] | Literal["auto"]:
    """One pass, or several; a pass by its name alone has its defaults. Or `auto`: Lathe finds them."""
    if recipe == AUTO:
        return AUTO
    passes = [recipe] if isinstance(recipe, str | Mapping | PassConfig) else recipe
    return [{"pass": item} if isinstance(item, str) else document(item) for item in passes]


def metric_document(metric: str | Document) -> dict[str, Any]:
    """A metric by its name alone is measured on the first output that holds numbers."""
    return {"name": metric} if isinstance(metric, str) else document(metric)


def contract_document(contract: float | Document) -> dict[str, Any]:
    """A number is the largest drop of the metric that is accepted."""
    return {"max_drop": contract} if isinstance(contract, int | float) else document(contract)


def objective_document(objective: str | Document) -> str | dict[str, Any]:
    """What to make small, by its name alone or with weights."""
    return str(objective) if isinstance(objective, str) else document(objective)


def id_of(thing: BaseModel | UUID | str) -> str:
    """The id of a shape that has one, or the id itself."""
    return str(getattr(thing, "id", thing))
