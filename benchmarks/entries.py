"""Who takes part, by kind of model."""

from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any, Literal

Kind = Literal["convolutional", "transformer", "recurrent", "dense"]
Side = Literal["original", "peer", "lathe"]

PRODUCTS = ["MatMul", "Gemm"]
# The kinds whose default recipe is the better of two: which one is faster depends on the machine and the lengths.
TRIES_DYNAMIC = ("transformer", "recurrent")


@dataclass(frozen=True)
class Entry:
    """One way to make a file faster. `function` is what a child calls, with the task and `options`."""

    name: str
    title: str
    side: Side
    function: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    package: str = "onnxruntime"
    default_recipe: bool = False
    start: str = ""
    """The entry whose file this one works on; by default the original."""

    @property
    def is_installed(self) -> bool:
        return find_spec(self.package) is not None


ORIGINAL = Entry("original", "float32 original", "original")


def entries_for(kind: Kind, fuse: str | None) -> list[Entry]:
    """Peers first, then Lathe's. `fuse` is the model type that ONNX Runtime's transformer optimizer knows it by."""
    return [*_onnxruntime(kind, fuse), *_nncf(kind), *_lathe(kind)]


def _onnxruntime(kind: Kind, fuse: str | None) -> list[Entry]:
    tool = "benchmarks.rivals.with_onnxruntime"
    found = [
        Entry("ort-static", "ORT static, defaults", "peer", f"{tool}:static_defaults"),
        Entry("ort-static-best", "ORT static, U8 x S8, per channel", "peer", f"{tool}:static_best"),
    ]
    if kind == "transformer":
        options = {"operators": PRODUCTS}
        title = "ORT static, U8 x S8, MatMul and Gemm only"
        found.append(Entry("ort-static-products", title, "peer", f"{tool}:static_best", options))
    found.append(Entry("ort-dynamic", "ORT dynamic, per channel", "peer", f"{tool}:dynamic"))
    if kind == "transformer":
        title = "ORT dynamic, MatMul and Gemm only"
        found.append(Entry("ort-dynamic-products", title, "peer", f"{tool}:dynamic", {"operators": PRODUCTS}))
    if fuse:
        title = "ORT transformer optimizer, dynamic"
        found.append(Entry("ort-dynamic-fused", title, "peer", f"{tool}:dynamic", {"fuse": fuse}))
    return found


def _nncf(kind: Kind) -> list[Entry]:
    function = "benchmarks.rivals.with_nncf:quantize"
    found = [Entry("nncf", "NNCF, defaults", "peer", function, package="nncf")]
    if kind == "transformer":
        options = {"transformer": True}
        found.append(Entry("nncf-transformer", "NNCF, model type transformer", "peer", function, options, "nncf"))
    return found


def _lathe(kind: Kind) -> list[Entry]:
    recipe = {"quantize_static": True, "quantize_dynamic": kind in TRIES_DYNAMIC, "optimize_graph": False}
    return [
        Entry(name, f"Lathe {name}", "lathe", "benchmarks.ours:optimize", {"name": name}, default_recipe=default)
        for name, default in recipe.items()
    ]
