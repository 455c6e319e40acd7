"""What a file that is not ONNX looks like, so that a refusal can name it."""

from pathlib import Path

HEAD_BYTES = 512
EXPORT = (
    "Export the network with torch.onnx.export (or tf2onnx, skl2onnx) on your own machine and upload the .onnx file."
)
AS_TAR = "Send it with Content-Type: application/x-tar."

# (offset, magic, what it is, remedy)
SIGNATURES: tuple[tuple[int, bytes, str, str], ...] = (
    (0, b"PK\x03\x04", "a zip archive: a PyTorch checkpoint (.pt, .pth), TorchScript, a Keras file or an .npz", EXPORT),
    (0, b"\x80\x02", "a Python pickle, as older PyTorch checkpoints are", EXPORT),
    (0, b"\x80\x03", "a Python pickle", EXPORT),
    (0, b"\x80\x04", "a Python pickle", EXPORT),
    (0, b"\x80\x05", "a Python pickle", EXPORT),
    (0, b"\x89HDF\r\n\x1a\n", "an HDF5 file, as Keras writes", EXPORT),
    (4, b"TFL3", "a TensorFlow Lite model", EXPORT),
    (4, b"ORTM", "a model in ONNX Runtime's own .ort format", "Upload the .onnx file that it was made from."),
    (0, b"GGUF", "a GGUF file", EXPORT),
    (0, b"\x1f\x8b", "gzip-compressed data", f"Unpack it first. If it is a tar: {AS_TAR[0].lower()}{AS_TAR[1:]}"),
    (0, b"\x28\xb5\x2f\xfd", "zstd-compressed data", "Unpack it first."),
    (257, b"ustar", "a tar archive", AS_TAR),
    (0, b"\x93NUMPY", "a NumPy array", "Arrays are uploaded as datasets, in an .npz; the model is a file of its own."),
    (0, b"version https://git-lfs", "a Git LFS pointer, not the file it stands for", "Run git lfs pull first."),
    (0, b"<?xml", "an XML file, as OpenVINO writes", EXPORT),
    (0, b"<!DOCTYPE", "a web page", "Look at what was downloaded: it is probably a page about the model."),
    (0, b"<html", "a web page", "Look at what was downloaded: it is probably a page about the model."),
)


def read_head(path: Path) -> bytes:
    """The first bytes, as many as telling takes."""
    with path.open("rb") as file:
        return file.read(HEAD_BYTES)


def recognize(head: bytes) -> tuple[str, str] | None:
    """What the file is and what to do, or None for a format that is not known here."""
    for offset, magic, name, remedy in SIGNATURES:
        if head[offset : offset + len(magic)] == magic:
            return name, remedy
    if head[8:9] == b"{" and 2 <= int.from_bytes(head[:8], "little") < 1 << 30:
        return "a .safetensors file, which holds weights and no graph", EXPORT
    if head.lstrip()[:1] in (b"{", b"["):
        return "a JSON file", EXPORT
    return None


def may_be_onnx(head: bytes) -> bool:
    """Whether the first field is one that writers of ONNX begin with: ir_version as a small number, or a string."""
    return len(head) >= 2 and ((head[0] == 0x08 and head[1] < 0x80) or head[0] in (0x12, 0x1A, 0x3A))
