"""Handwritten digits from the IDX files of MNIST (Y. LeCun, C. Cortes, C. Burges, The MNIST database).

The test set of 10,000: it is small, and every image of it is real. The first 8,000 train, the last 2,000 are kept.
"""

import gzip
import math
import struct
from pathlib import Path

import numpy as np

IMAGES, LABELS = "t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"
TRAINING = 8000
UNSIGNED_BYTES = 0x08
# Of all pixels of MNIST, as shares of full white.
MEAN, DEVIATION = 0.1307, 0.3081


class BrokenIdx(ValueError):
    """A file is no IDX file of unsigned bytes."""


def read_idx(path: Path) -> np.ndarray:
    """The array of a gzipped IDX file of unsigned bytes, in its shape.

    Two zero bytes, the type, the number of axes, each axis as a big-endian uint32, then the elements in C order.

    Raises:
        BrokenIdx: the header says something else, or the data is longer or shorter than it says.

    """
    content = gzip.decompress(path.read_bytes())
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] != UNSIGNED_BYTES:
        raise BrokenIdx(f"{path.name} is no IDX file of unsigned bytes.")
    start = 4 + 4 * content[3]
    if len(content) < start:
        raise BrokenIdx(f"{path.name} ends within its header.")
    shape = struct.unpack(f">{content[3]}I", content[4:start])
    if len(content) - start != math.prod(shape):
        raise BrokenIdx(f"{path.name} holds {len(content) - start} elements, its header says {math.prod(shape)}.")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def read_digits(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Images `(N, 1, 28, 28)` float32 of mean 0 and deviation 1, and labels `(N,)` int64.

    Raises:
        BrokenIdx: a file is no IDX file, or the two do not belong together.
        OSError: a file is not there.

    """
    pixels, labels = read_idx(folder / IMAGES), read_idx(folder / LABELS)
    if pixels.shape[1:] != (28, 28) or labels.shape != pixels.shape[:1]:
        raise BrokenIdx(f"Images {list(pixels.shape)} and labels {list(labels.shape)} do not belong together.")
    images = (pixels[:, None].astype(np.float32) / 255 - MEAN) / DEVIATION
    return images.astype(np.float32), labels.astype(np.int64)
