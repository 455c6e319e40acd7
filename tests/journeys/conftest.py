"""The whole service, as `lathe serve` starts it, and a client of it."""

from collections.abc import Iterator

import pytest

from app.client import Lathe
from app.embedded import Stack


@pytest.fixture(scope="package")
def lathe(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lathe]:
    stack = Stack(tmp_path_factory.mktemp("stack"), port=0)
    try:
        stack.start()
        stack.wait_ready(60)
        with Lathe(stack.url, stack.key) as client:
            yield client
    finally:
        stack.stop()
