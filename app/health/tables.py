"""Workers that said they are alive."""

from datetime import datetime
from typing import Any

from sqlalchemy import ARRAY, DateTime, Integer, Text, func
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from app.database import Base
from app.jobs.routing import TRAINING_QUEUES


class WorkerRow(Base):
    """One worker process: refreshed while it lives, removed by housekeeping when it has been silent.

    Housekeeping has one as well, without a queue.
    """

    __tablename__ = "workers"

    name: Mapped[str] = mapped_column(Text, primary_key=True)
    queues: Mapped[list[str]] = mapped_column(ARRAY(Text))
    passes: Mapped[list[str]] = mapped_column(ARRAY(Text))
    threads: Mapped[int | None] = mapped_column(Integer)
    """The most that it gives a model; null from a worker that does not say."""
    confinement: Mapped[dict[str, Any]] = mapped_column(JSONB)
    versions: Mapped[dict[str, Any]] = mapped_column(JSONB)
    started_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())
    seen_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())

    @property
    def trains(self) -> bool:
        """Whether it takes jobs that train."""
        return not set(TRAINING_QUEUES).isdisjoint(self.queues)
