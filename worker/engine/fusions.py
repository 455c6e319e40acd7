"""Patterns of transformers as one operator each: those of `onnxruntime.transformers.optimizer` that are exact."""

from pathlib import Path

from onnxruntime.transformers.fusion_options import AttentionMaskFormat, FusionOptions
from onnxruntime.transformers.optimizer import optimize_model

from worker.engine.model_file import ModelFile
from worker.engine.preparation import save_restored
from worker.engine.sessions import Device


def patterns(device: Device) -> FusionOptions:
    """All that pay on this device."""
    options = FusionOptions("bert")
    # These two reshape the model's inputs or approximate a function.
    options.enable_embed_layer_norm = False
    options.enable_gelu_approximation = False
    # By default Attention is handed the number of visible tokens, and takes them for the first ones.
    options.attention_mask_format = AttentionMaskFormat.AttentionMask
    # On a CPU these kernels are slower than what they stand for (worker.engine.rewrites.residual_sum).
    options.enable_skip_layer_norm = options.enable_bias_skip_layer_norm = device != "cpu"
    return options


def normalizations() -> FusionOptions:
    """LayerNormalization alone, which the standard has: files older than opset 17 spell it out in nine nodes."""
    options = patterns("cpu")
    options.enable_attention = options.enable_gelu = options.enable_bias_gelu = False
    return options


def fused(model: ModelFile, folder: Path, options: FusionOptions) -> ModelFile:
    """The model with these patterns fused, in `folder`."""
    made = optimize_model(str(model.path), "bert", optimization_options=options, opt_level=0).model
    return save_restored(made, model, folder / "done")
