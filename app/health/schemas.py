"""Health as the API shows it."""

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, Field


class Alive(BaseModel):
    """The process answers."""

    status: Literal["ok"] = Field(default="ok", description="Always `ok`.")


class Component(BaseModel):
    """One part that the service needs."""

    ok: bool = Field(description="Whether it answers.")
    detail: str = Field(description="What it said, or what is wrong with it.")


class WorkerStatus(BaseModel):
    """One live worker."""

    name: str = Field(description="Host and process.")
    queues: list[str] = Field(description="The queues it takes jobs from.")
    passes: list[str] = Field(description="The passes it can run.")
    trains: bool = Field(description="Whether it takes jobs that train.")
    threads: int | None = Field(description="The most threads it gives a model; null where it does not say.")
    confinement: dict[str, Any] = Field(
        description="By layer of the sandbox, whether it held against a real attempt to break out of it."
    )
    versions: dict[str, Any] = Field(description="Versions of Python and of the libraries that matter.")
    seen_at: datetime = Field(description="When it last said that it lives.")


class Readiness(BaseModel):
    """Whether an upload would be inspected and a job be run."""

    ready: bool = Field(description="Whether every component is ok.")
    components: dict[str, Component] = Field(description="By name: `postgres`, `redis`, `storage`, `worker_cpu`, ...")
    workers: list[WorkerStatus] = Field(description="Every live worker.")


class Links(BaseModel):
    """Where to go from here."""

    service: str = Field(description="What this is.")
    version: str = Field(description="Version of Lathe that answers; that of the API is in its addresses.")
    documentation: str = Field(description="The interactive documentation.")
    openapi: str = Field(description="The OpenAPI document.")
    ready: str = Field(description="Whether the service can work.")
