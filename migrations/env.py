"""Alembic's entry: migrates the database named by the caller, or by DATABASE_URL on the command line."""

import os

from alembic import context
from sqlalchemy import NullPool, create_engine, text

from app.schema import METADATA

# Any number of processes may migrate at once; the lock lets one through at a time.
MIGRATION_LOCK = 7_226_011_894


def run() -> None:
    url = context.config.attributes.get("database_url") or os.environ["DATABASE_URL"]
    # No pool: whatever goes wrong, the connection ends and the lock with it.
    engine = create_engine(url, poolclass=NullPool)
    with engine.connect() as connection:
        connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": MIGRATION_LOCK})
        # The new code runs beside the old: a migration that cannot get its lock fails instead of stopping the service.
        connection.execute(text("SET lock_timeout = '10s'"))
        connection.commit()
        context.configure(
            connection=connection,
            target_metadata=METADATA,
            compare_server_default=False,
            # What one of them has locked does not stay so while the next one rewrites rows.
            transaction_per_migration=True,
        )
        with context.begin_transaction():
            context.run_migrations()
        connection.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": MIGRATION_LOCK})
        connection.commit()


run()
