"""Settings: nothing starts half configured, and what is said of a wrong one shows no secret."""

from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError

from app.config import JobSettings, Settings, what_is_wrong
from tests.settings_table import defaults_in_readme, defaults_of_settings

GOOD = {
    "DATABASE_URL": "postgresql+psycopg://lathe:0f8b7c2d9e@db/lathe",
    "REDIS_URL": "redis://:5e1f9a7b3c@redis/0",
    "STORAGE_URL": "file:///storage",
    "LATHE_SECRET_KEY": "0123456789abcdef0123456789abcdef",
}


@pytest.fixture
def settings_from(monkeypatch: pytest.MonkeyPatch):
    def make(**changes: str) -> Settings:
        for name, value in (GOOD | changes).items():
            monkeypatch.setenv(name, value)
        return Settings()

    return make


def test_good_settings_start(settings_from) -> None:
    assert settings_from().storage_url == "file:///storage"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DATABASE_URL", ""),
        ("REDIS_URL", ""),
        ("STORAGE_URL", ""),
        ("LATHE_SECRET_KEY", "short-but-secret"),
        ("LATHE_SECRET_KEY", "changemechangemechangemechangeme"),
        ("DATABASE_URL", "postgresql+psycopg://lathe:changeme@db/lathe"),
        ("REDIS_URL", "redis://:password@redis/0"),
    ],
    ids=["no-database", "no-redis", "no-storage", "short", "few-letters", "default-password", "default-redis-password"],
)
def test_a_wrong_setting_is_named_and_no_value_is_shown(settings_from, name: str, value: str) -> None:
    with pytest.raises(ValidationError) as caught:
        settings_from(**{name: value})
    said = str(caught.value)
    assert name in said
    assert not [secret for secret in (*GOOD.values(), value) if secret and secret in said]
    assert "input_value" not in said


NUMBERS = sorted(name for name, default in defaults_of_settings().items() if type(default) in (int, float))


@pytest.mark.parametrize("name", NUMBERS)
def test_a_number_beyond_what_postgres_holds_is_refused_before_anything_starts(settings_from, name: str) -> None:
    """Later it would end the first statement that is given it: each round of housekeeping, say."""
    for value in ("1" + "0" * 30, "inf"):
        with pytest.raises(ValidationError, match=r"less than or equal to|finite number|valid integer"):
            settings_from(**{name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        pytest.param("LATHE_RUNNER_DISK_BYTES", "1000000", id="of-a-group"),
        pytest.param("LATHE_LOG_JSON", "perhaps", id="of-none"),
        pytest.param("LATHE_SECRET_KEY", "short", id="by-a-rule-of-its-own"),
    ],
)
def test_a_wrong_one_is_named_and_not_repeated(name: str, value: str, settings_from) -> None:
    with pytest.raises(ValidationError) as caught:
        settings_from(**{name: value})
    [words] = what_is_wrong(caught.value)
    assert name in words
    assert value not in words


def test_embedded_settings_need_no_secret_of_the_operators(settings_from) -> None:
    assert settings_from(LATHE_EMBEDDED="1", LATHE_SECRET_KEY="").embedded


def test_a_lease_must_outlive_a_lost_heartbeat() -> None:
    with pytest.raises(ValidationError, match="at least twice"):
        JobSettings(lease_seconds=10, heartbeat_seconds=6)


def as_printed(value: object) -> str:
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, Path):
        return f"`{value}`"
    if isinstance(value, int) and value >= 1 << 20:
        return f"{value >> 30} GiB" if value % (1 << 30) == 0 else f"{value >> 20} MiB"
    text = value.get_secret_value() if isinstance(value, SecretStr) else str(value)
    return f"{value:g}" if isinstance(value, float) else text or "none"


def test_the_readme_tells_the_variables_and_defaults_that_there_are() -> None:
    told = defaults_in_readme()
    assert len(told) > 20
    del told["LATHE_DATA_FOLDER"]  # of the command `lathe serve` alone
    defaults = defaults_of_settings()
    assert told == {name: as_printed(defaults[name]) for name in told}
