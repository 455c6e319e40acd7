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
# As targets name them: those without VNNI, and by which flags each is known.
WITHOUT_VNNI = frozenset({"avx2", "avx512"})
HAVING = {"avx2": {"avx2"}, "avx512": {"avx512f"}, "vnni": {"avx_vnni", "avx512_vnni"}}


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


def needs_reduced_range(least: str | None = None) -> bool:
    """Whether kernels add products of 8-bit numbers in 16 bits, which saturate.

    Here, or on a processor that has no more than `least`, as a target names it.
    """
    return least in WITHOUT_VNNI or WITHOUT_SATURATION.isdisjoint(instruction_sets())


def beyond_here(least: str | None) -> bool:
    """Whether a target has what this processor lacks, so that nothing measured here holds there."""
    here = set(instruction_sets())
    return least is not None and here.isdisjoint(HAVING[least])


def _field(name: str, path: Path = CPU_INFO) -> str | None:
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return None
    return next((line.partition(":")[2].strip() for line in lines if line.partition(":")[0].strip() == name), None)
