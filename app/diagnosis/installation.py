"""Everything at once, on the installation that settings name."""

from collections.abc import Callable

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from app.config import Settings
from app.database import Database
from app.diagnosis import parts, work
from app.diagnosis.finding import Finding


def installation(settings: Settings) -> list[Finding]:
    """What is seen of the parts, the workers and the jobs. Whatever is broken, the others are looked at."""
    database = Database(settings)
    try:
        found = parts.postgres(database)
        if all(finding.level != "problem" for finding in found):
            for look in (parts.row_security, work.workers, work.jobs):
                found += _asked(database, look)
            found += parts.storage_mark(database, settings)
    finally:
        database.dispose()
    return found + parts.broker(settings) + parts.storage(settings)


def _asked(database: Database, look: Callable[[Session], list[Finding]]) -> list[Finding]:
    try:
        with database.session_scope() as session:
            return look(session)
    except SQLAlchemyError as error:
        return [parts.silent_postgres(error)]
