"""How a process of the service tells that it lives."""

import os
import socket
from typing import Any

from sqlalchemy import func
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from app.health.tables import WorkerRow


def name_of_this_process() -> str:
    return f"{socket.gethostname()}:{os.getpid()}"


def announce(session: Session, *, queues: list[str], **facts: Any) -> None:
    """Write down that this process lives, takes jobs from `queues` and has these `facts` to tell (see `WorkerRow`)."""
    known = {"passes": [], "confinement": {}, "versions": {}} | facts
    values = known | {"queues": queues, "seen_at": func.now()}
    session.execute(
        insert(WorkerRow)
        .values(name=name_of_this_process(), **values)
        .on_conflict_do_update(index_elements=["name"], set_=values)
    )
