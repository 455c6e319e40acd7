"""`lathe mark-storage`: storage is made that of a database by whoever knows that it is."""

import pytest

from app.blobs.mark import KEY, mismatch
from app.config import Settings
from app.database import Database
from app.storage import Storage
from tests.app.cli.conftest import LatheCommand


@pytest.fixture(autouse=True)
def installation(settings: Settings, monkeypatch: pytest.MonkeyPatch, bare_lathe: LatheCommand) -> None:
    """That of the test, as its variables name it."""
    monkeypatch.setenv("DATABASE_URL", settings.database_url.get_secret_value())
    monkeypatch.setattr("app.config.get_settings", lambda: settings)


def test_what_it_bore_before_gives_way(bare_lathe: LatheCommand, database: Database, storage: Storage) -> None:
    storage.put_note_sync(KEY, b"another database's")
    assert bare_lathe("mark-storage").code == 0
    assert mismatch(database, storage) is None


def test_storage_that_cannot_be_written_is_told(
    bare_lathe: LatheCommand, database: Database, settings: Settings
) -> None:
    settings.storage_url = "file:///proc/lathe"
    outcome = bare_lathe("mark-storage")
    assert outcome.code == 1
    assert "the storage cannot be marked" in outcome.stderr
