"""What the job delivers, written into the output folder."""

import hashlib
import json
import re
import shutil
import tarfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from worker.engine.model_file import ModelFile
from worker.engine.pass_contract import ExtraKind
from worker.runner.contract import OUTPUT_FOLDER, OutputFile

LONGEST_STEM = 120
# Of a model in any of its formats, a tar, and the manifest.
ONNX, TAR, JSON = "application/octet-stream", "application/x-tar", "application/json"
MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Artifact:
    """A delivered file, and the model in it as it can be loaded."""

    file: OutputFile
    path: Path
    model: ModelFile
    sha256: str


def artifact_stem(model_name: str, passes: list[str]) -> str:
    """`<name>-<passes>`, in characters that are safe in any file system and header."""
    name = re.sub(r"\.(onnx|tar)$", "", model_name.strip(), flags=re.IGNORECASE)
    safe = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.")[:LONGEST_STEM] or "model"
    return f"{safe}-{'-'.join(passes)}"[: 2 * LONGEST_STEM]


def candidate_stem(model_name: str, candidate: str, passes: list[str]) -> str:
    """As `artifact_stem`, and different for every candidate of a search."""
    digest = hashlib.sha256(candidate.encode()).hexdigest()[:6]
    return artifact_stem(model_name, [*passes, digest] if passes else ["original"])


def write_artifact(model: ModelFile, stem: str, workdir: Path) -> Artifact:
    """One `.onnx`, measured where it lies; with external data a tar of the model's folder, measured unpacked."""
    path, media_type = pack(model, workdir / OUTPUT_FOLDER, stem)
    file = OutputFile(path=f"{OUTPUT_FOLDER}/{path.name}", kind="model", file_name=path.name, media_type=media_type)
    if media_type == ONNX:
        # A folder of its own for the link that is measured: beside the .onnx lies only what belongs to it.
        measured = workdir / "delivered" / stem / path.name
        measured.parent.mkdir(parents=True, exist_ok=True)
        measured.hardlink_to(path)
        model = ModelFile(measured)
    return Artifact(file, path, model, file_sha256(path))


def pack(model: ModelFile, folder: Path, stem: str) -> tuple[Path, str]:
    """A copy of the model as one file, `.onnx` or, with external data, `.tar`; its media type."""
    folder.mkdir(exist_ok=True)
    files = model.files()
    if len(files) == 1:
        path = folder / f"{stem}.onnx"
        shutil.copyfile(model.path, path)
        return path, ONNX
    path = folder / f"{stem}.tar"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        for member in files:
            archive.add(member, member.name, filter=_anonymous)
    return path, TAR


def write_extras(extras: dict[ExtraKind, Path], stem: str, workdir: Path) -> list[Artifact]:
    """Files that a pass made beside its model, named as the model is."""
    written = []
    for kind, made in sorted(extras.items()):
        path = workdir / OUTPUT_FOLDER / f"{stem}{made.suffix}"
        shutil.copyfile(made, path)
        file = OutputFile(path=f"{OUTPUT_FOLDER}/{path.name}", kind=kind, file_name=path.name, media_type=ONNX)
        written.append(Artifact(file, path, ModelFile(made), file_sha256(path)))
    return written


def marked_slower(artifact: Artifact) -> Artifact:
    """The same file under a name that says that it is slower than its original."""
    name = Path(artifact.file.file_name)
    return replace(artifact, file=artifact.file.model_copy(update={"file_name": f"{name.stem}-slower{name.suffix}"}))


def write_manifest(manifest: dict[str, Any], workdir: Path) -> OutputFile:
    (workdir / OUTPUT_FOLDER / MANIFEST).write_text(json.dumps(manifest, indent=2, allow_nan=False) + "\n")
    return OutputFile(path=f"{OUTPUT_FOLDER}/{MANIFEST}", kind="manifest", file_name=MANIFEST, media_type=JSON)


def file_sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """The same bytes whoever packs it, and whenever."""
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    member.mtime = 0
    member.mode = 0o644
    return member
