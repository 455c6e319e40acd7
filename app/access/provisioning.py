"""The first key of an embedded service."""

from app.access.service import ensure_first_key as ensure
from app.config import Settings
from app.database import Database


def ensure_first_key(settings: Settings) -> str | None:
    """The text of a new key if the database holds none yet; None where there is one already."""
    database = Database(settings)
    try:
        with database.session_scope() as session:
            return ensure(session, settings.secret_key.get_secret_value())
    finally:
        database.dispose()
