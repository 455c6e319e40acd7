"""A child that is watched by one thread while another starts it again."""

import os
import time
from pathlib import Path

from app.embedded.managed_process import ManagedProcess

PATIENCE_SECONDS = 10.0


def test_a_child_that_somebody_else_waited_for_has_ended(tmp_path: Path) -> None:
    child = ManagedProcess("child", ["true"], tmp_path / "log", dict(os.environ))
    child.start()
    until = time.monotonic() + PATIENCE_SECONDS
    while child.running() and time.monotonic() < until:
        time.sleep(0.01)
    assert child.pid is not None
    os.waitpid(child.pid, 0)
    assert not child.running()
    child.stop()
    assert child.pid is None
