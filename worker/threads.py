"""Threads of an attempt: what they log bears its ids, and none of them keeps the process from ending."""

import contextvars
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

LOOK_SECONDS = 0.1

Result = TypeVar("Result")


def thread_of_attempt(work: Callable[[], None], name: str) -> threading.Thread:
    """A daemon thread, not started yet, in a copy of the caller's context: a plain one knows of none of its variables,
    and so of no request, job and attempt.
    """
    return threading.Thread(target=contextvars.copy_context().run, args=(work,), name=name, daemon=True)


def awaited(work: Callable[[], Result], name: str, going_on: Callable[[], None]) -> Result:
    """What `work` returns, which may hang in a call that nothing ends, as those of storage may.

    Raises what `work` does, and whatever `going_on` does, which is asked again and again: `work` is then left to
    itself, and must write nothing that anybody relies on.
    """
    outcome: Future[Result] = Future()

    def do() -> None:
        try:
            outcome.set_result(work())
        except BaseException as error:  # it is the caller's
            outcome.set_exception(error)

    thread = thread_of_attempt(do, name)
    thread.start()
    while thread.is_alive():
        going_on()
        thread.join(LOOK_SECONDS)
    return outcome.result()
