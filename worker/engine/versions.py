"""Versions of everything that has a say in the bytes of a result, or in its timings."""

import hashlib
import importlib
import platform
from functools import lru_cache
from importlib import metadata
from pathlib import Path

PACKAGES = ("onnxruntime", "onnx", "onnx-ir", "numpy", "scipy", "torch", "lathe")
# Whose source has a say in what passes make, in what they are fed, and in how it is measured.
SOURCES = ("app.datasets", "app.recipes", "worker.engine", "worker.passes", "worker.runner")
# Another distribution of the same package; it is told under the package's name.
OTHER_NAMES = {"onnxruntime": "onnxruntime-gpu"}


def versions() -> dict[str, str]:
    """By package, Python among them; what is not installed is left out, what hides its version is `unknown`."""
    found = {name: _version(name) for name in PACKAGES}
    return {name: version for name, version in found.items() if version} | {"python": platform.python_version()}


@lru_cache(maxsize=1)
def source_digest(packages: tuple[str, ...] = SOURCES) -> str:
    """Over every file of Python in these packages: a change to a pass is another pass, whatever its version says."""
    digest = hashlib.sha256()
    for package in packages:
        for root in importlib.import_module(package).__path__:
            for file in sorted(Path(root).rglob("*.py")):
                content = file.read_bytes()
                digest.update(f"{package} {file.relative_to(root).as_posix()} {len(content)}\n".encode())
                digest.update(content)
    return digest.hexdigest()


def _version(name: str) -> str | None:
    names = [name, OTHER_NAMES[name]] if name in OTHER_NAMES else [name]
    known = [found for one in names for found in metadata.distributions(name=one)]
    # A checkout has an `egg-info` of its own first on the path, which the sandbox keeps closed: it has no version here.
    return next((found.version for found in known if found.version), "unknown" if known else None)
