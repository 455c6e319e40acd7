"""What can be seen without a service: the environment's variables, and the API from outside."""

import difflib
from collections.abc import Iterator, Mapping
from importlib.metadata import version

import httpx
from pydantic_settings import BaseSettings

from app.client.errors import NotConfigured
from app.client.transport import authorization, own_connections
from app.config import Settings
from app.diagnosis.finding import Finding, ok, problem, warning

# Read by the command line, the client and docker-compose.yml; all others are fields of the settings.
READ_ELSEWHERE = frozenset(
    {
        "LATHE_URL",
        "LATHE_KEY",
        "LATHE_DATA_FOLDER",
        "LATHE_RESUMABLE_FROM_BYTES",
        "LATHE_PUBLISH",
        "LATHE_WORKER_MEMORY",
    }
)
PATIENCE_SECONDS = 5.0
FORBIDDEN = frozenset({401, 403})


def unknown_variables(environment: Mapping[str, str]) -> list[Finding]:
    """A variable that nothing reads is a setting that was meant and does not hold."""
    known = set(_variables(Settings)) | READ_ELSEWHERE
    unknown = sorted(name for name in environment if name.startswith("LATHE_") and name not in known)
    if not unknown:
        return [ok("settings", "Every LATHE_ variable that is set is one that is read.")]
    found = []
    for name in unknown:
        close = difflib.get_close_matches(name, known, 1)
        remedy = f"Did you mean {close[0]}?" if close else "Remove it; README.md lists the variables there are."
        found.append(warning("settings", f"{name} is set, and nothing reads it.", remedy))
    return found


def _variables(settings: type[BaseSettings]) -> Iterator[str]:
    prefix = settings.model_config.get("env_prefix", "")
    for name, field in settings.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseSettings):
            yield from _variables(kind)
        else:
            yield str(field.validation_alias or f"{prefix}{name}".upper())


def api(url: str, key: str | None) -> list[Finding]:
    """Whether the API answers at `url`, as what version, and whether it takes the key."""
    try:
        with httpx.Client(base_url=url, timeout=PATIENCE_SECONDS, **own_connections(url)) as client:
            links = client.get("/").raise_for_status().json()
            return [_version(url, str(links.get("version"))), _key(client, key)]
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        remedy = "Start it (`lathe serve`, `docker compose up`), or set LATHE_URL to where it answers."
        return [problem("api", f"{url} does not answer: {str(error) or type(error).__name__}", remedy)]


def _version(url: str, theirs: str) -> Finding:
    ours = version("lathe")
    if theirs == ours:
        return ok("api", f"{url} answers, version {theirs}.")
    remedy = "Let all parts be of one version: stop what is older, and start it again."
    return warning("api", f"{url} answers as version {theirs}; this command is of version {ours}.", remedy)


def _key(client: httpx.Client, key: str | None) -> Finding:
    if key is None:
        return warning("key", "No API key is set here.", "Set LATHE_KEY; `lathe keys create` makes one.")
    try:
        headers = authorization(key)
    except NotConfigured as error:
        return problem("key", str(error), "Set LATHE_KEY to the key and nothing else; `lathe keys create` makes one.")
    answer = client.get("/v1/jobs", params={"limit": 1}, headers=headers)
    if answer.status_code in FORBIDDEN:
        remedy = "It may be revoked, expired, of another service or without the scope `read`: `lathe keys list`."
        return problem("key", f"The API key is refused ({answer.status_code}).", remedy)
    if not answer.is_success:
        remedy = "Try again in a minute where that is 429; else the other findings here, or the API's log, say why."
        return problem("key", f"The API answers {answer.status_code} to a request with the key.", remedy)
    return ok("key", "The API takes the key.")
