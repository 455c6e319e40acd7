"""A hard end to what does not look at the clock itself."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

# Where native code or a handler of all errors swallowed the first one.
REPEAT_SECONDS = 1.0


class TimeUp(BaseException):
    """No Exception: what a pass does where one of its steps fails must not take this for a failure of the step."""


@contextmanager
def limit(seconds: float) -> Iterator[None]:
    """Raises TimeUp in the block once `seconds` are over, between two steps of Python. In the main thread alone."""

    def ring(_number: int, _frame: FrameType | None) -> None:
        raise TimeUp

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 1e-3), REPEAT_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)
