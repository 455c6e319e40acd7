"""Whether a search can be carried out on its model and data, and what it may do where the request does not say."""

from collections.abc import Mapping

from app.datasets.inspection import ArraySpec
from app.errors import DataRequired, MetricMismatch, NotTrainable, Unprocessable
from app.jobs.naming import named, untrainable
from app.models.inspection import ModelInspection
from app.recipes.auto import TRAINED_BESIDE, TRIED, Search
from app.recipes.request import LABEL_FREE, OptimizeRequest


class NothingToTry(Unprocessable):
    code, title = "nothing_to_try", "The search may try nothing"


class SearchContradictory(Unprocessable):
    code, title = "search_contradictory", "What the search is told does not go together"


def settle_search(request: OptimizeRequest, facts: ModelInspection) -> OptimizeRequest:
    """The request of an `auto` job with the defaults of its search and its contract filled in.

    Raises:
        DataRequired: it asks for training, and there is no training data.
        NotTrainable: it asks for training, and the model cannot be trained.
        NothingToTry: it may make candidates of passes alone that no search tries.
        SearchContradictory: some of what it is told could have no effect.

    """
    search = request.search or Search()
    _check_search(search)
    if search.training and request.data.training is None:
        raise DataRequired(
            "`search.training` asks for candidates that are trained, and there is no training data.",
            remedy="Upload a dataset and name it as `data.training`, or leave `search.training` out.",
        )
    if search.training and not facts.trainable:
        raise NotTrainable(
            "`search.training` asks for candidates that are trained, and the model cannot be trained: "
            f"{untrainable(facts)}.",
            remedy="Leave `search.training` out: what does without training is tried all the same.",
        )
    could = request.data.training is not None and facts.trainable and search.may_train
    training = request.learns if search.given else could
    return request.model_copy(
        update={
            "search": search.model_copy(update={"training": training if search.training is None else search.training}),
            "contract": request.searched_contract,
            "deployment_check": True if request.deployment_check is None else request.deployment_check,
        }
    )


def _check_search(search: Search) -> None:
    """By itself, whatever the model and data are."""
    idle = {
        "passes": search.passes is not None,
        "max_trials": search.max_trials != Search.model_fields["max_trials"].default,
    }
    if search.given and any(idle.values()):
        names = " and ".join(f"`search.{name}`" for name, said in idle.items() if said)
        raise SearchContradictory(
            f"`search.given` names every candidate of the search, and {names} could change nothing about them.",
            remedy=f"Leave out {names}, or `search.given`.",
        )
    if not search.may_try:
        raise NothingToTry(
            f"A search makes no candidate of {named(search.passes or [])} alone, which is all that `search.passes` "
            "allows.",
            remedy=f"Allow one of {named(TRIED)}; {_trained_with()}. Other passes run in a recipe, or in "
            "`search.given`.",
        )
    if search.training and not search.may_train:
        raise SearchContradictory(
            "`search.training` asks for candidates that are trained, and `search.passes` allows none.",
            remedy=f"Leave one of the two out, or allow more: {_trained_with()}.",
        )


def _trained_with() -> str:
    ways = [f"`{name}` beside `{beside}`" for name, beside in TRAINED_BESIDE.items()]
    return f"training takes {' or '.join(ways)}"


def judging_arrays(request: OptimizeRequest, arrays: Mapping[str, list[ArraySpec]]) -> list[ArraySpec] | None:
    """Of the data that quality is measured on: a search holds samples back for that from whatever it is given."""
    roles = ("evaluation", "calibration", "training") if request.recipe == "auto" else ("evaluation",)
    return next((arrays[role] for role in roles if role in arrays), None)


def check_floor(request: OptimizeRequest) -> None:
    """Raises MetricMismatch: the contract is a floor, and the metric that was settled is measured against labels, or
    never as high.
    """
    metric = request.metric
    if request.contract is None or request.contract.floor is None or metric is None:
        return
    if metric.name not in LABEL_FREE:
        raise MetricMismatch(
            f"`contract.floor` is of a metric without labels, and the metric of this job is `{metric.name}`.",
            remedy="Give `contract.max_drop`, or one of agreement, cosine and sqnr_db as `metric`.",
        )
    if metric.name != "sqnr_db" and request.contract.floor > 1:
        raise MetricMismatch(
            f"`contract.floor` is {request.contract.floor:g}, and `{metric.name}`, the metric of this job, is never "
            "above 1.",
            remedy="Give a floor of at most 1, as 0.99, or sqnr_db as `metric`, whose floor is in dB.",
        )
