"""Workers that said they are alive."""

from datetime import UTC, datetime, timedelta
from typing import Any

from app.database import Database
from app.health.tables import WorkerRow


def add_worker(database: Database, *, silent_seconds: float = 0.0, **columns: Any) -> None:
    """A worker on every queue, with every pass that needs no torch; `columns` override."""
    defaults: dict[str, Any] = {
        "name": "host:1",
        "queues": ["cpu", "inspect"],
        "passes": ["optimize_graph", "quantize_static", "quantize_dynamic", "convert_float16"],
        "confinement": {"network": "cut off"},
        "versions": {"python": "3.11"},
        "seen_at": datetime.now(UTC) - timedelta(seconds=silent_seconds),
    }
    with database.session_scope() as session:
        session.add(WorkerRow(**(defaults | columns)))
