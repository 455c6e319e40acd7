"""From a torch module to an ONNX file, as users of torch make one."""

import warnings
from pathlib import Path

import torch
from torch import nn
from torch.onnx import TrainingMode

OPSET = 18


def export(
    network: nn.Module, inputs: dict[str, torch.Tensor], output: str, target: Path, *, for_training: bool = False
) -> None:
    """Write `network`, called with `inputs` in their order, to `target`; the first axis of each is dynamic.

    `for_training` keeps BatchNormalization apart from the convolution before it.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tracing warns of every size that it takes for a constant
        torch.onnx.export(
            network.eval(),
            tuple(inputs.values()),
            str(target),
            input_names=list(inputs),
            output_names=[output],
            dynamic_axes={name: {0: "batch"} for name in [*inputs, output]},
            opset_version=OPSET,
            dynamo=False,
            # Training in either case means what eval mode computes: the module is in it.
            training=TrainingMode.PRESERVE if for_training else TrainingMode.EVAL,
            do_constant_folding=not for_training,
        )
