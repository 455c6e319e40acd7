"""Settings, in groups, read once from the environment.

`DATABASE_URL`, `REDIS_URL` and `STORAGE_URL` say where things are; everything else is named `LATHE_<GROUP>_<FIELD>`.
"""

from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeGuard
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from app.extras import install_command

KNOWN_DEFAULT_SECRETS = frozenset({"", "secret", "changeme", "change-me", "password", "postgres", "lathe", "redis"})
MEBIBYTE = 1 << 20
# What Postgres holds, and its times: a hundred years from now is one to it, ten thousand are not.
MOST_DAYS = 36_500
MOST_SECONDS = MOST_DAYS * 86_400
Count = Annotated[int, Field(le=2**31 - 1)]
Attempts = Annotated[int, Field(ge=1, le=1000)]  # the wait before each is twice the one before
Bytes = Annotated[int, Field(le=2**63 - 1)]
Seconds = Annotated[float, Field(le=MOST_SECONDS)]
WholeSeconds = Annotated[int, Field(le=MOST_SECONDS)]
Days = Annotated[int, Field(le=MOST_DAYS)]


class DatabaseSettings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="LATHE_DATABASE_")

    pool_size: Count = Field(default=10, ge=1, description="Connections kept open by one process.")
    max_overflow: Count = Field(default=10, ge=0, description="Connections opened beyond that under load.")
    pool_timeout_seconds: Seconds = Field(default=10.0, gt=0)


class ApiSettings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="LATHE_API_")

    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65535)
    max_upload_bytes: Bytes = Field(default=16 << 30, ge=1, description="An upload past this many bytes answers 413.")
    max_body_bytes: Bytes = Field(default=MEBIBYTE, ge=1024, description="The same for JSON bodies.")
    # Local storage is written in pieces of 8 MiB: at this rate one comes well within the hour after which the collector
    # takes a file that nobody writes to.
    min_upload_bytes_per_second: Bytes = Field(
        default=4096, ge=0, description="An upload that arrives more slowly answers 408; 0: none is too slow."
    )
    slow_upload_grace_seconds: Seconds = Field(default=60.0, gt=0, description="How long one may send nothing at all.")
    min_download_bytes_per_second: Bytes = Field(
        default=4096, ge=0, description="Who takes an answer more slowly is cut off; 0: nobody is."
    )
    slow_download_grace_seconds: Seconds = Field(
        default=60.0, gt=0, description="How long one may take nothing at all."
    )
    resumable_upload_seconds: Seconds = Field(
        default=86400.0, gt=0, description="How long a resumable upload waits for its next bytes."
    )
    min_free_bytes: Bytes = Field(default=256 * MEBIBYTE, ge=0, description="Local storage left free; else 507.")
    key_cache_seconds: Seconds = Field(
        default=5.0, ge=0, description="How long a verified API key is trusted; a revocation takes this long."
    )
    health_cache_seconds: Seconds = Field(
        default=2.0, ge=0, description="How long /readyz, and /metrics of jobs, are answered from what was found last."
    )
    event_poll_seconds: Seconds = Field(default=0.5, gt=0, description="How often an event stream looks for news.")
    event_streams: Count = Field(
        default=100, ge=0, description="Event streams of one workspace in one process; beyond it they answer 429."
    )
    open_uploads: Count = Field(default=100, ge=0, description="The same for uploads that are under way.")


class JobSettings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="LATHE_JOBS_")

    lease_seconds: Seconds = Field(default=45.0, gt=0)
    heartbeat_seconds: Seconds = Field(default=10.0, gt=0)
    republish_seconds: Seconds = Field(default=30.0, gt=0, description="A queued job is published again after this.")
    backoff_seconds: Seconds = Field(default=2.0, ge=0, description="Wait before the 2nd attempt; doubles after.")
    max_attempts: Attempts = Field(default=3)
    queue_ttl_seconds: Seconds = Field(default=7 * 86400, gt=0, description="A job queued longer than this expires.")
    default_budget_seconds: WholeSeconds = Field(default=900, ge=1)
    max_budget_seconds: WholeSeconds = Field(default=86400, ge=1)
    cancel_grace_seconds: Seconds = Field(default=5.0, ge=0, description="Between asking a runner to stop and killing.")
    housekeeping_seconds: Seconds = Field(default=1.0, gt=0, description="Pause between two rounds of housekeeping.")
    idempotency_seconds: Seconds = Field(default=7 * 86400, gt=0, description="How long an Idempotency-Key is known.")
    garbage_grace_seconds: Seconds = Field(default=3600.0, ge=0, description="Age at which a file without a row goes.")
    search_cache_seconds: Seconds = Field(
        default=7 * 86400, ge=0, description="How long what a search made is kept for a later one that does not come."
    )
    search_cache_bytes: Bytes = Field(
        default=10 << 30, ge=0, description="How much of it a workspace keeps; 0: nothing."
    )

    @model_validator(mode="after")
    def refuse_a_lease_that_no_heartbeat_keeps(self) -> Self:
        """Raises ValueError: one lost heartbeat must not cost a living worker its job."""
        if self.heartbeat_seconds * 2 > self.lease_seconds:
            raise ValueError("LATHE_JOBS_LEASE_SECONDS must be at least twice LATHE_JOBS_HEARTBEAT_SECONDS")
        return self


class LimitSettings(BaseSettings):
    """What a workspace may take where nothing else was set for it (`lathe workspaces limit`); 0: no limit.

    The last two are the same for every workspace.
    """

    model_config = SettingsConfigDict(env_prefix="LATHE_LIMITS_")

    requests_per_minute: Count = Field(default=6000, ge=0, description="Beyond it requests answer 429.")
    stored_bytes: Bytes = Field(
        default=0, ge=0, description="Uploads and delivered files; beyond it uploads and submissions answer 507."
    )
    queued_jobs: Count = Field(default=10_000, ge=0, description="Jobs that wait; beyond it submissions answer 429.")
    running_jobs: Count = Field(default=0, ge=0, description="Jobs that run at once; the others wait.")
    queued_inspections: Count = Field(
        default=1000, ge=0, description="Uploads that wait for their inspection; beyond it uploads answer 429."
    )
    resumable_uploads: Count = Field(
        default=1000, ge=0, description="Resumable uploads that are not whole; beyond it none is begun, with 429."
    )


class RetentionSettings(BaseSettings):
    """How long things are kept where nothing else was set for a workspace (`lathe workspaces retain`); 0: for ever."""

    model_config = SettingsConfigDict(env_prefix="LATHE_RETENTION_")

    models_days: Days = Field(default=0, ge=0, description="Since the last upload or the end of the last job on one.")
    datasets_days: Days = Field(default=0, ge=0, description="The same.")
    artifacts_days: Days = Field(default=0, ge=0, description="Since the end of the job; what was promoted stays.")


class WebhookSettings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="LATHE_WEBHOOKS_")

    allow_private: bool = Field(default=False, description="Send to private, loopback and other inner addresses too.")
    allow_http: bool = Field(default=False, description="Send without TLS too.")
    timeout_seconds: Seconds = Field(default=15.0, gt=0, description="For one attempt, from resolving to the answer.")
    lease_seconds: Seconds = Field(
        default=120.0, gt=0, description="After this a dead housekeeper's message goes again."
    )
    backoff_seconds: Seconds = Field(default=5.0, ge=0, description="Wait before the 2nd attempt; doubles after.")
    max_attempts: Attempts = Field(default=15, description="By default over 23 hours; given up then, or after 2 days.")
    keep_seconds: Seconds = Field(default=7 * 86400, ge=0, description="How long what became of a message is shown.")

    @model_validator(mode="after")
    def refuse_a_lease_that_an_attempt_outlives(self) -> Self:
        """Raises ValueError: a message that is on its way must not be sent by another housekeeper as well."""
        if self.timeout_seconds * 2 > self.lease_seconds:
            raise ValueError("LATHE_WEBHOOKS_LEASE_SECONDS must be at least twice LATHE_WEBHOOKS_TIMEOUT_SECONDS")
        return self


class RunnerSettings(BaseSettings):
    """Limits on the child process that opens untrusted models."""

    model_config = SettingsConfigDict(env_prefix="LATHE_RUNNER_")

    sandbox: str = Field(
        default="best",
        pattern=r"^[a-z_]+(,[a-z_]+)*$",
        description="`best`: whatever holds here. `required`, or names of layers: without them no worker starts.",
    )
    memory_bytes: Bytes = Field(default=16 << 30, ge=256 * MEBIBYTE)
    file_bytes: Bytes = Field(default=32 << 30, ge=MEBIBYTE)
    disk_bytes: Bytes = Field(
        default=128 << 30, ge=MEBIBYTE, description="All that a job may leave in its folder, beyond what is brought."
    )
    processes: Count = Field(default=256, ge=16, description="Processes and threads of the child and its children.")
    inspect_seconds: Seconds = Field(default=300.0, gt=0, description="Wall time of an inspection.")
    grace_seconds: Seconds = Field(
        default=60.0, ge=0, description="Wall time beyond a job's budget before it is killed."
    )
    threads: Count = Field(
        default=0, ge=0, description="Threads of a model, and the most it may ask for; 0: every core."
    )
    timing_rounds: int = Field(default=9, ge=3, le=99, description="How often files are timed by turns, time allowing.")
    round_seconds: float = Field(default=0.25, ge=0.01, le=3, description="How long a file is timed each time.")


class WorkerSettings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="LATHE_WORKER_")

    trains: Literal["auto", "no"] = Field(default="auto", description="`auto`: takes jobs that train if it has torch.")


class Settings(BaseSettings):
    # What is wrong is named; its value may be a secret, and errors are logged.
    model_config = SettingsConfigDict(env_prefix="LATHE_", populate_by_name=True, hide_input_in_errors=True)

    database_url: SecretStr = Field(default=SecretStr(""), validation_alias="DATABASE_URL")
    redis_url: SecretStr = Field(default=SecretStr(""), validation_alias="REDIS_URL")
    storage_url: str = Field(default="", validation_alias="STORAGE_URL")
    secret_key: SecretStr = Field(
        default=SecretStr(""), description="Keys the hashes of API keys; at least 32 characters, kept out of backups."
    )
    # The variables of OpenTelemetry's SDK are read by itself; this one says whether there is any tracing.
    otlp_endpoint: str = Field(
        default="",
        validation_alias="OTEL_EXPORTER_OTLP_ENDPOINT",
        description="Where traces go, by OTLP over HTTP.",
    )
    embedded: bool = Field(default=False, description="Set by `lathe serve`: one machine, bundled Postgres and Redis.")
    work_folder: Path = Field(default=Path("/tmp/lathe-work"), description="Where runners get their folders.")  # noqa: S108 - each runner's folder inside is made 0700
    log_json: bool = False

    database: DatabaseSettings = Field(default_factory=DatabaseSettings)
    api: ApiSettings = Field(default_factory=ApiSettings)
    jobs: JobSettings = Field(default_factory=JobSettings)
    limits: LimitSettings = Field(default_factory=LimitSettings)
    retention: RetentionSettings = Field(default_factory=RetentionSettings)
    webhooks: WebhookSettings = Field(default_factory=WebhookSettings)
    runner: RunnerSettings = Field(default_factory=RunnerSettings)
    worker: WorkerSettings = Field(default_factory=WorkerSettings)

    @model_validator(mode="after")
    def refuse_traces_that_nothing_can_send(self) -> Self:
        """Raises ValueError: an endpoint without the extra would be traces that silently never come."""
        if self.otlp_endpoint and not (_installed("opentelemetry.sdk") and _installed("opentelemetry.exporter.otlp")):
            raise ValueError(
                "OTEL_EXPORTER_OTLP_ENDPOINT is set, and what sends traces is not installed: "
                f"{install_command('tracing')}, or unset it"
            )
        return self

    @model_validator(mode="after")
    def refuse_missing_urls_and_default_secrets(self) -> Self:
        """Raises ValueError naming the variable, so that nothing starts half configured."""
        for name in ("database_url", "redis_url"):
            if not getattr(self, name).get_secret_value():
                raise ValueError(f"{name.upper()} is not set")
        if not self.storage_url:
            raise ValueError("STORAGE_URL is not set")
        if self.embedded:
            return self
        secret = self.secret_key.get_secret_value()
        if len(secret) < 32 or len(set(secret)) < 8:
            raise ValueError("LATHE_SECRET_KEY needs 32 random characters: `openssl rand -hex 32` makes them")
        for name, url in (("DATABASE_URL", self.database_url), ("REDIS_URL", self.redis_url)):
            password = urlsplit(url.get_secret_value()).password
            if password is not None and password.lower() in KNOWN_DEFAULT_SECRETS:
                raise ValueError(f"{name} holds a well-known default password")
        return self


def _installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # a package around it is missing
        return False


def what_is_wrong(error: ValidationError) -> list[str]:
    """A sentence for each fault of the environment, which names the variable."""
    kinds = [Settings, *(field.annotation for field in Settings.model_fields.values())]
    prefixes = {kind.__name__: kind.model_config["env_prefix"] for kind in kinds if _is_group(kind)}
    words = []
    for fault in error.errors():
        name = "_".join(map(str, fault["loc"]))
        # One that has a name of its own is told by it.
        variable = name if name.isupper() else prefixes.get(error.title, "") + name.upper()
        words.append(f"{variable}: {fault['msg']}" if name else fault["msg"])
    return words


def _is_group(kind: Any) -> TypeGuard[type[BaseSettings]]:
    return isinstance(kind, type) and issubclass(kind, BaseSettings)


@lru_cache(maxsize=1)
def get_settings() -> Settings:
    return Settings()
