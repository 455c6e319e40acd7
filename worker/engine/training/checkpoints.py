"""What training would go on from, in plain files: tensors as safetensors, the rest as JSON."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

TENSORS, FACTS = "state.safetensors", "state.json"


def write(folder: Path, tensors: Mapping[str, torch.Tensor], facts: Mapping[str, Any]) -> None:
    """Into the new `folder`; every tensor must have a memory of its own."""
    folder.mkdir(parents=True)
    save_file({name: one.detach().cpu().contiguous() for name, one in tensors.items()}, folder / TENSORS)
    (folder / FACTS).write_text(json.dumps(facts))


def read(folder: Path | None, fingerprint: str) -> tuple[dict[str, torch.Tensor], dict[str, Any]] | None:
    """What `write` left there; None where that belongs to another training, or is damaged."""
    if folder is None:
        return None
    try:
        facts = json.loads((folder / FACTS).read_text())
        if facts["fingerprint"] != fingerprint:
            return None
        return load_file(folder / TENSORS), facts
    except (OSError, ValueError, KeyError, TypeError, SafetensorError):
        return None
