"""The same contexts as for the passes in 8 bits."""

from tests.worker.engine.int8.conftest import context

__all__ = ["context"]
