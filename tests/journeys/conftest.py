"""A client of the whole service."""

from collections.abc import Iterator

import pytest

from app.client import Lathe
from app.embedded import Stack


@pytest.fixture(scope="package")
def lathe(stack: Stack) -> Iterator[Lathe]:
    with Lathe(stack.url, stack.key) as client:
        yield client
