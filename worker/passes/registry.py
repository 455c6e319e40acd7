"""Every pass by its name, imported when it is first asked for: each brings tools that others do without."""

from importlib import import_module
from typing import cast

from app.recipes.catalogue import CATALOGUE
from worker.engine.pass_contract import Pass


def load_pass(name: str) -> Pass:
    """The `apply` of `worker/passes/<name>.py`.

    Raises:
        KeyError: no such pass.

    """
    if name not in CATALOGUE:
        raise KeyError(name)
    return cast("Pass", import_module(f"worker.passes.{name}").apply)
