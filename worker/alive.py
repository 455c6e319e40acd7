"""`python -m worker.alive`: exit status 0 if a worker of this host, or its housekeeping, lately said that it lives."""

import socket
import sys
from datetime import timedelta

from sqlalchemy import func, select

from app.config import get_settings
from app.database import Database
from app.health.tables import WorkerRow

# Three announcements missed.
SILENCE = timedelta(seconds=30)


def alive(database: Database) -> bool:
    """Whether this host, which in a container is the container, has a process that was heard of lately."""
    recent = WorkerRow.seen_at > func.now() - SILENCE
    mine = WorkerRow.name.startswith(f"{socket.gethostname()}:", autoescape=True)
    with database.session_scope() as session:
        return session.scalar(select(func.count()).select_from(WorkerRow).where(mine, recent)) != 0


if __name__ == "__main__":
    sys.exit(0 if alive(Database(get_settings())) else 1)
