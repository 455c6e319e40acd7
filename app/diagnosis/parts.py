"""Postgres, Redis and storage, each used as the service uses it."""

import tempfile
import time
from pathlib import Path

import redis
from sqlalchemy import func, select, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session
from uuid_utils.compat import uuid7

from app.blobs import mark
from app.blobs.collection import PREFIX
from app.config import Settings
from app.database import REQUEST_ROLE, Database
from app.diagnosis.finding import Finding, ok, problem, warning
from app.errors import LatheError
from app.queue import plain_url
from app.schema import revisions
from app.storage import Storage

LEAST_POSTGRES = 140000
MOST_SKEW_SECONDS = 2.0
CROWDED = 0.8
REDIS_SECONDS = 2.0
TAKE_ON = f"As a superuser: GRANT {REQUEST_ROLE} TO the user in DATABASE_URL."
MIGRATE = "Run `lathe migrate`; with compose the service `migrate` does it."


def postgres(database: Database) -> list[Finding]:
    """Whether it answers, is recent, at the newest schema, of the same time, and has connections left."""
    try:
        with database.session_scope() as session:
            connection = session.connection()
            version = int(session.execute(text("SHOW server_version_num")).scalar_one())
            now = session.execute(select(func.extract("epoch", func.clock_timestamp()))).scalar_one()
            skew = time.time() - float(now)
            most = int(session.execute(text("SHOW max_connections")).scalar_one())
            used = int(session.execute(text("SELECT count(*) FROM pg_stat_activity")).scalar_one())
            current, head = revisions(connection)
    except SQLAlchemyError as error:
        return [silent_postgres(error)]
    return [_postgres_version(version), _schema(current, head), _clock(skew), _connections(used, most)]


def silent_postgres(error: SQLAlchemyError) -> Finding:
    remedy = "Start it, and see that DATABASE_URL names it with the right user, password and database."
    return problem("postgres", f"It does not answer: {_first_line(error)}", remedy)


def _postgres_version(version: int) -> Finding:
    words = f"Postgres {version // 10000}.{version % 10000} answers."
    if version < LEAST_POSTGRES:
        return problem("postgres", words, f"Lathe needs Postgres {LEAST_POSTGRES // 10000} or newer.")
    return ok("postgres", words)


def _schema(current: str | None, head: str | None) -> Finding:
    if current == head:
        return ok("schema", f"The schema is the newest: {head}.")
    return problem("schema", f"The database is at {current or 'no schema'}, this version needs {head}.", MIGRATE)


def _clock(skew: float) -> Finding:
    words = f"The clock here is {abs(skew):.1f} s {'ahead of' if skew > 0 else 'behind'} the database's."
    if abs(skew) <= MOST_SKEW_SECONDS:
        return ok("clock", words)
    remedy = "Let both keep time by NTP. Leases go by the database's clock, the age of stored files by this one."
    return warning("clock", words, remedy)


def _connections(used: int, most: int) -> Finding:
    words = f"{used} of {most} connections are in use."
    if used < CROWDED * most:
        return ok("connections", words)
    return warning("connections", words, "Raise max_connections, or lower LATHE_DATABASE_POOL_SIZE.")


def broker(settings: Settings) -> list[Finding]:
    """Whether Redis answers, and whether it might throw messages away."""
    client = redis.Redis.from_url(
        plain_url(settings.redis_url.get_secret_value()),
        socket_timeout=REDIS_SECONDS,
        socket_connect_timeout=REDIS_SECONDS,
    )
    try:
        with client:
            memory = client.info("memory")
    except (redis.RedisError, OSError) as error:
        remedy = "Start it, and see that REDIS_URL names it. Meanwhile jobs are kept, and nobody is woken for them."
        return [problem("redis", f"It does not answer: {_first_line(error)}", remedy)]
    policy, most = memory.get("maxmemory_policy"), memory.get("maxmemory", 0)
    if most and policy != "noeviction":
        words = f"It answers, and throws away what it likes past {most} bytes (maxmemory-policy {policy})."
        return [warning("redis", words, "Set maxmemory-policy to noeviction: a lost message delays its job.")]
    return [ok("redis", f"It answers; {memory.get('used_memory_human')} in use.")]


def row_security(session: Session) -> list[Finding]:
    """Whether workspaces are kept apart by Postgres as well, and the service itself is not held."""
    if session.execute(text("SELECT row_security_active('jobs')")).scalar_one():
        remedy = "Let DATABASE_URL name the user that ran `lathe migrate`."
        return [problem("row security", "The tables are not this user's: it sees no rows of theirs.", remedy)]
    try:
        with session.begin_nested():
            session.execute(text(f"SET LOCAL ROLE {REQUEST_ROLE}"))
            seen = session.execute(text("SELECT count(*) FROM workspaces")).scalar_one()
            session.execute(text("RESET ROLE"))
    except SQLAlchemyError as error:
        return [problem("row security", f"No request can take on its role: {_first_line(error)}", TAKE_ON)]
    if seen:
        remedy = f"See that {REQUEST_ROLE} is neither a superuser nor exempt: ALTER ROLE {REQUEST_ROLE} NOBYPASSRLS."
        return [problem("row security", "A request sees rows of every workspace.", remedy)]
    return [ok("row security", "Postgres shows a request rows of its own workspace alone.")]


def storage(settings: Settings) -> list[Finding]:
    """Whether a file can be written, found and deleted again, with the reserve left free."""
    scheme = settings.storage_url.partition(":")[0]
    try:
        place = Storage(settings)
        key = f"{PREFIX}/{uuid7()}"
        with tempfile.TemporaryDirectory(prefix="lathe-doctor-") as folder:
            path = Path(folder) / "probe"
            path.write_bytes(key.encode())
            place.store(path, key)
            whole = place.holds_sync(key, len(key))
            place.delete_sync(key)
    except (LatheError, OSError, ValueError) as error:
        detail = error.detail if isinstance(error, LatheError) else _first_line(error)
        remedy = "See that STORAGE_URL names a folder or bucket that can be written, with room; for s3, AWS_* as well."
        return [problem("storage", f"A file cannot be stored ({scheme}): {detail}", remedy)]
    if not whole:
        remedy = "STORAGE_URL must name one place that keeps what is written to it."
        return [problem("storage", f"What was just stored is not there ({scheme}).", remedy)]
    return [ok("storage", f"A file was stored, found and deleted ({scheme}).")]


def storage_mark(database: Database, settings: Settings) -> list[Finding]:
    """Whether storage is that of this database; nothing where it does not answer, which `storage` tells."""
    try:
        reason = mark.mismatch(database, Storage(settings))
    except (LatheError, OSError, ValueError):
        return []
    except SQLAlchemyError as error:
        return [silent_postgres(error)]
    if reason is None or reason == mark.UNMARKED:
        return [ok("storage mark", reason or "Storage is that of this database.")]
    return [problem("storage mark", reason, mark.REMEDY)]


def _first_line(error: Exception) -> str:
    """Of a driver's words, which go on about where to read more. No URL is among them, and so no password."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
