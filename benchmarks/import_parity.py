"""Known architectures through both exporters of PyTorch into the trainable graph: does it compute the same, and train?

    python -m benchmarks.import_parity [architecture ...]

Each is exported, imported, compared with ONNX Runtime node by node on one call, and trained for one step. Prints a
markdown table; ends with 1 where an export is not imported faithfully.
"""

import contextlib
import io
import logging
import sys
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from benchmarks.small_architectures import IMAGES, SIDE, TEXTS, Tensors
from worker.engine.faults import UserFault
from worker.engine.model_file import ModelFile
from worker.engine.trainable.claims import unsupported
from worker.engine.trainable.importing import import_model
from worker.engine.trainable.module import TrainableGraph
from worker.engine.trainable.parity import Parity, check_parity

EXPORTERS = {"old": 17, "new": 18}  # with their opsets
SAMPLES, TOKENS = 2, 12


@dataclass(frozen=True)
class Imported:
    """What became of one export."""

    parity: Parity
    parameters: int
    untouched: list[str]
    """Parameters that no gradient reached."""


def main(names: list[str]) -> int:
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    print("| architecture | exporter | nodes | worst node | outputs | tensors trained | without gradient |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    failed = 0
    for name, build in {**IMAGES, **TEXTS}.items():
        for exporter in EXPORTERS if not names or name in names else ():
            torch.manual_seed(0)
            feed = _feed(name)
            with tempfile.TemporaryDirectory(prefix="lathe-") as folder:
                file = ModelFile(Path(folder) / "model" / "model.onnx")
                fault = _export(Tensors(_settled(build()), list(feed)), feed, file, exporter)
                if fault is not None:
                    print(f"| {name} | {exporter} | not exported: {fault} | | | | |", flush=True)
                    continue
                try:
                    found = _imported(file, feed, Path(folder))
                except UserFault as error:
                    print(f"| {name} | {exporter} | FAILED: {error} | | | | |", flush=True)
                    failed += 1
                    continue
            print(_row(name, exporter, found), flush=True)
    return 1 if failed else 0


def _row(name: str, exporter: str, found: Imported) -> str:
    errors = f"{found.parity.worst_node_error:.0e} | {found.parity.output_error:.0e}"
    return f"| {name} | {exporter} | {found.parity.nodes} | {errors} | {found.parameters} | {len(found.untouched)} |"


def _feed(name: str) -> dict[str, torch.Tensor]:
    if name in IMAGES:
        return {"pixel_values": torch.randn(SAMPLES, 3, SIDE, SIDE)}
    tokens = torch.randint(1, 100, (SAMPLES, TOKENS))
    return {"input_ids": tokens, "attention_mask": torch.ones(SAMPLES, TOKENS, dtype=torch.int64)}


def _settled(model: nn.Module) -> nn.Module:
    """Weights as large as in training, so that activations and gradients live, and no two tensors alike."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                nn.init.normal_(parameter, std=(1.5 / parameter[0].numel()) ** 0.5)
            else:
                parameter.add_(0.1 * torch.rand_like(parameter))
    return model.eval()


def _export(network: nn.Module, feed: dict[str, torch.Tensor], file: ModelFile, exporter: str) -> str | None:
    """Why it could not be exported, in a word, or None. BatchNorm is left apart by the new exporter's own choice."""
    file.path.parent.mkdir()
    arguments = {"input_names": list(feed), "opset_version": EXPORTERS[exporter], "dynamo": exporter == "new"}
    if exporter == "old":
        arguments["dynamic_axes"] = {name: {0: "N"} for name in feed}
    else:
        arguments["external_data"] = False
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        try:
            torch.onnx.export(network, tuple(feed.values()), str(file.path), **arguments)
        except Exception as error:  # exporters raise anything; that one fails is not what is looked for
            return type(error).__name__
    return None


def _imported(file: ModelFile, feed: dict[str, torch.Tensor], scratch: Path) -> Imported:
    blockers = unsupported(file.structure())
    if blockers:
        raise UserFault(f"not trainable: {', '.join(blockers)}")
    module = import_model(file)
    arrays = {name: tensor.numpy() for name, tensor in feed.items()}
    parity = check_parity(file, module, arrays, scratch, threads=1)
    return Imported(parity, len(list(module.parameters())), _untouched(module, feed))


def _untouched(module: TrainableGraph, feed: dict[str, torch.Tensor]) -> list[str]:
    outputs = module(feed).values()
    sum((one * torch.randn_like(one)).sum() for one in outputs if one.is_floating_point()).backward()
    return [
        name
        for name, parameter in module.named_parameters()
        if parameter.grad is None or not parameter.grad.isfinite().all() or not parameter.grad.any()
    ]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
