"""The whole service, as `lathe serve` starts it, for the tests of this folder."""

import os
from collections.abc import Iterator

import pytest

from app.embedded import Stack

pytest.register_assert_rewrite("tests.faults.service")
from tests.faults.service import Service  # noqa: E402 - after what makes its assertions tell what differed

# The lease is shortened so that the tests need not wait for the real one: set these in the environment to see it.
SHORT = {
    "LATHE_JOBS_LEASE_SECONDS": "6",
    "LATHE_JOBS_HEARTBEAT_SECONDS": "2",
    "LATHE_JOBS_REPUBLISH_SECONDS": "5",
    "LATHE_JOBS_BACKOFF_SECONDS": "0.5",
}


@pytest.fixture(scope="package")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    added = {name: value for name, value in SHORT.items() if name not in os.environ}
    os.environ.update(added)
    stack = Stack(tmp_path_factory.mktemp("stack"), port=0)
    try:
        stack.start()
        stack.wait_ready(60)
        service = Service(stack)
        yield service
        service.client.close()
    finally:
        stack.stop()
        for name in added:
            del os.environ[name]


@pytest.fixture(scope="package")
def model(service: Service) -> str:
    return service.upload()
