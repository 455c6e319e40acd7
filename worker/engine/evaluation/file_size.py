"""Size of a model's files, and of the same through zstd."""

from pathlib import Path

import zstandard

CHUNK_BYTES = 1 << 20
LEVEL = 3


def compressed_size_bytes(files: list[Path]) -> int:
    """Bytes of the files, one after another, through zstd (RFC 8878) at level 3; streamed."""
    compressor = zstandard.ZstdCompressor(level=LEVEL).compressobj()
    total = 0
    for file in files:
        with file.open("rb") as stream:
            while chunk := stream.read(CHUNK_BYTES):
                total += len(compressor.compress(chunk))
    return total + len(compressor.flush())
