"""Versions of everything that has a say in the bytes of a result, or in its timings."""

import platform
from importlib import metadata

PACKAGES = ("onnxruntime", "onnx", "numpy", "torch", "lathe")
# Another distribution of the same package; it is told under the package's name.
OTHER_NAMES = {"onnxruntime": "onnxruntime-gpu"}


def versions() -> dict[str, str]:
    """By package, Python among them; what is not installed is left out, what hides its version is `unknown`."""
    found = {name: _version(name) for name in PACKAGES}
    return {name: version for name, version in found.items() if version} | {"python": platform.python_version()}


def _version(name: str) -> str | None:
    names = [name, OTHER_NAMES[name]] if name in OTHER_NAMES else [name]
    known = [found for one in names for found in metadata.distributions(name=one)]
    # A checkout has an `egg-info` of its own first on the path, which the sandbox keeps closed: it has no version here.
    return next((found.version for found in known if found.version), "unknown" if known else None)
