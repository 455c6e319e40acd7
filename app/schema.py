"""The whole schema in one place, and the way a database is brought to it."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from app.access import tables as access
from app.artifacts import tables as artifacts
from app.blobs import tables as blobs
from app.database import Base
from app.datasets import tables as datasets
from app.health import tables as health
from app.jobs import tables as jobs
from app.models import tables as models
from app.uploads import tables as uploads
from app.webhooks import tables as webhooks

DOMAINS = (access, artifacts, blobs, datasets, health, jobs, models, uploads, webhooks)
METADATA = Base.metadata


def migrate(database_url: str) -> None:
    """Run every migration that the database has not seen; safe to run beside another that does the same."""
    config = _config()
    config.attributes["database_url"] = database_url
    command.upgrade(config, "head")


def revisions(connection: Connection) -> tuple[str | None, str | None]:
    """Where the database is, None before the first migration; and where the migrations that are installed end."""
    current = MigrationContext.configure(connection).get_current_revision()
    return current, ScriptDirectory.from_config(_config()).get_current_head()


def _config() -> Config:
    import migrations  # noqa: PLC0415 - found by where it is installed, and needed here alone

    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    return config
