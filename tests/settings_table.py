"""The table of variables in README.md, and the settings that it tells of."""

import re
from pathlib import Path
from typing import Any

from pydantic_settings import BaseSettings

from app.config import Settings

README = Path(__file__).parent.parent / "README.md"


def defaults_in_readme() -> dict[str, str]:
    """Each variable with its default as it is printed; `..._X` stands for the group of the first in the row."""
    found: dict[str, str] = {}
    for cell, default in re.findall(r"^\| (`[A-Z][^|]*) \|[^|]*\| ([^|]*) \|$", README.read_text(), re.MULTILINE):
        first, *more = re.findall(r"`([A-Z_.]+)`", cell)
        group = "_".join(first.split("_")[:2])
        names = [first, *(name.replace("...", group) for name in more)]
        found |= zip(names, default.split(", ") if more else [default], strict=True)
    return found


def defaults_of_settings(settings: type[BaseSettings] = Settings) -> dict[str, Any]:
    """Each variable that is read, with its default."""
    found: dict[str, Any] = {}
    for name, field in settings.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseSettings):
            found |= defaults_of_settings(field.annotation)
        else:
            found[str(field.validation_alias or f"{settings.model_config['env_prefix']}{name}".upper())] = field.default
    return found
