"""What the processor can do: which 8-bit instructions a measurement ran on."""

import platform
from pathlib import Path

from worker.engine.sessions import Device

CPU_INFO = Path("/proc/cpuinfo")
GPU_INFO = Path("/proc/driver/nvidia/gpus")
RELEVANT = (
    "avx2",
    "avx512f",
    "avx512bw",
    "avx_vnni",
    "avx512_vnni",
    "avx512_bf16",
    "avx512_fp16",
    "amx_int8",
    "amx_bf16",
    "asimd",
    "asimddp",
    "i8mm",
    "sve",
)
# Without one of these, products of two 8-bit numbers are summed in 16 bits and saturate.
WITHOUT_SATURATION = frozenset({"avx_vnni", "avx512_vnni", "amx_int8", "asimd", "asimddp", "i8mm"})


def processor_name(device: Device = "cpu") -> str:
    """The CPU's model, or the first GPU's as its driver names it."""
    if device == "cuda":
        models = [_field("Model", path) for path in sorted(GPU_INFO.glob("*/information"))]
        return next((model for model in models if model), "GPU")
    return _field("model name") or platform.processor() or platform.machine()


def instruction_sets() -> list[str]:
    """Those of `RELEVANT` that the kernel reports."""
    flags = set((_field("flags") or _field("Features") or "").split())
    return [name for name in RELEVANT if name in flags]


def needs_reduced_range() -> bool:
    """Whether kernels here add products of 8-bit numbers in 16 bits, which saturate."""
    return WITHOUT_SATURATION.isdisjoint(instruction_sets())


def _field(name: str, path: Path = CPU_INFO) -> str | None:
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return None
    return next((line.partition(":")[2].strip() for line in lines if line.partition(":")[0].strip() == name), None)
