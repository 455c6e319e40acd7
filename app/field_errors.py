"""What is wrong with the fields of a request: what pydantic and FastAPI found, without the names that only we use."""

from typing import Any

MAX_TEXT = 300
RECIPE = ("body", "recipe")


def located(entry: dict[str, Any], body: Any) -> dict[str, str]:
    """One error as `location` (`body.recipe.0`) and `message`. `body` is the text of JSON that could not be read."""
    where = entry["loc"]
    if entry["type"] == "json_invalid":
        where = where[:1]
    if where[:2] == RECIPE:
        where = where[:2] + where[3:]  # what comes third is our name for the form that it has
    return {"location": clip(".".join(str(part) for part in where)), "message": clip(_message(entry, body))}


def clip(text: str) -> str:
    """As much of a stranger's text as an answer repeats."""
    return text if len(text) <= MAX_TEXT else text[:MAX_TEXT] + "..."


def _message(entry: dict[str, Any], body: Any) -> str:
    context = entry.get("ctx", {})
    match entry["type"]:
        case "json_invalid":
            return f"The JSON breaks off at {_place(str(body), entry['loc'][-1])}: {context['error']}"
        case "union_tag_invalid":
            tag = clip(context["tag"])
            return f"There is no {_field(context)} `{tag}`. There are {context['expected_tags']}"
        case "union_tag_not_found":
            return f"`{_field(context)}` is missing"
    return str(entry["msg"])


def _place(text: str, position: int) -> str:
    before = text[:position]
    return f"line {before.count(chr(10)) + 1}, column {position - before.rfind(chr(10))}"


def _field(context: dict[str, Any]) -> str:
    """The discriminator as a request spells it: its alias comes last in `'pass_' | 'pass'`."""
    return str(context["discriminator"]).rpartition(" | ")[2].strip("'")
