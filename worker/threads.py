"""Threads of an attempt: what they log bears its ids, and none of them keeps the process from ending."""

import contextvars
import threading
from collections.abc import Callable


def thread_of_attempt(work: Callable[[], None], name: str) -> threading.Thread:
    """A daemon thread, not started yet, in a copy of the caller's context: a plain one knows of none of its variables,
    and so of no request, job and attempt.
    """
    return threading.Thread(target=contextvars.copy_context().run, args=(work,), name=name, daemon=True)
