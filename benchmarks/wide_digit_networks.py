"""Networks for digits that are wide enough to be made smaller: some ten million multiplications an image and more."""

from collections.abc import Callable

from torch import nn

from benchmarks.digit_networks import CLASSES, SIDE, Residual, VisionTransformer, convolution


def wide_residual(width: int = 64) -> nn.Module:
    return nn.Sequential(
        *convolution(1, width, 3, stride=2),
        Residual(width, width, 1),
        Residual(width, width, 1),
        Residual(width, 2 * width, 2),
        Residual(2 * width, 2 * width, 1),
        Residual(2 * width, 4 * width, 2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4 * width, CLASSES),
    )


def residual_student() -> nn.Module:
    """A quarter of the weights of `wide_residual`."""
    return wide_residual(32)


def wide_mlp() -> nn.Module:
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(SIDE * SIDE, 4096),
        nn.ReLU(),
        nn.Dropout(0.3),
        nn.Linear(4096, 4096),
        nn.ReLU(),
        nn.Dropout(0.3),
        nn.Linear(4096, CLASSES),
    )


def wide_vit() -> nn.Module:
    return VisionTransformer(width=192, depth=4, heads=6)


def vit_student() -> nn.Module:
    """A quarter of the weights of `wide_vit`."""
    return VisionTransformer(width=96, depth=4, heads=3)


WIDE_NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "digits-wide-residual": wide_residual,
    "digits-student-residual": residual_student,
    "digits-wide-mlp": wide_mlp,
    "digits-wide-vit": wide_vit,
    "digits-student-vit": vit_student,
}
