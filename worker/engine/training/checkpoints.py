"""What training would go on from, in plain files: tensors as safetensors, the rest as JSON."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

TENSORS, FACTS = "state.safetensors", "state.json"


class Damaged(Exception):
    """What was left cannot be gone on from."""


def write(folder: Path, tensors: Mapping[str, torch.Tensor], facts: Mapping[str, Any]) -> None:
    """Into the new `folder`; every tensor must have a memory of its own."""
    folder.mkdir(parents=True)
    save_file({name: one.detach().cpu().contiguous() for name, one in tensors.items()}, folder / TENSORS)
    shapes = {name: list(one.shape) for name, one in tensors.items()}
    (folder / FACTS).write_text(json.dumps({**facts, "shapes": shapes}))


def read(folder: Path | None, fingerprint: str) -> tuple[dict[str, torch.Tensor], dict[str, Any]] | None:
    """What `write` left there; None where there is nothing, or it belongs to another training.

    Raises:
        Damaged: it cannot be read, or not all of it is there.

    """
    if folder is None:
        return None
    try:
        facts = json.loads((folder / FACTS).read_text())
        if facts["fingerprint"] != fingerprint:
            return None
        tensors = load_file(folder / TENSORS)
        if {name: list(one.shape) for name, one in tensors.items()} != facts["shapes"]:
            raise Damaged("it has not the tensors that it was written with")
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise Damaged(repr(error)) from error
    return tensors, facts
