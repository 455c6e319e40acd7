"""What a look at an installation found."""

from typing import Literal

from pydantic import BaseModel, Field

Level = Literal["ok", "warning", "problem"]


class Finding(BaseModel):
    """One thing that was looked at. What is no more than a warning keeps nobody from working."""

    name: str = Field(description="What was looked at.")
    level: Level = Field(description="How it is.")
    detail: str = Field(description="What was seen.")
    remedy: str | None = Field(default=None, description="What to do about it.")


def ok(name: str, detail: str) -> Finding:
    return Finding(name=name, level="ok", detail=detail)


def warning(name: str, detail: str, remedy: str) -> Finding:
    return Finding(name=name, level="warning", detail=detail, remedy=remedy)


def problem(name: str, detail: str, remedy: str) -> Finding:
    return Finding(name=name, level="problem", detail=detail, remedy=remedy)
