"""What the supervisor reads of a runner."""

import json

import pytest

from worker.runner.contract import without_nul


@pytest.mark.parametrize(
    ("name", "stored"),
    [
        ("a\0b", "a\ufffdb"),
        ("a\\u0000b", "a\\u0000b"),
        ("\\\0", "\\\ufffd"),
        ("\0\0", "\ufffd\ufffd"),
        ("plain", "plain"),
    ],
    ids=["NUL", "what looks like its escape", "NUL behind a backslash", "two", "none"],
)
def test_a_name_loses_its_nul_and_nothing_else(name: str, stored: str) -> None:
    assert json.loads(without_nul(json.dumps({"name": name}).encode())) == {"name": stored}
