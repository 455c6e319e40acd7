"""Good files spoilt at random, the same by the same seed: bits, bytes, numbers, spans, and the fields of protobuf."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

# What lengths, offsets and shapes are hardest on: all ones, the largest and the smallest signed, zero, a long varint.
EXTREMES = (
    b"\xff" * 4, b"\xff" * 8, b"\xff\xff\xff\x7f", b"\xff" * 7 + b"\x7f", b"\x00\x00\x00\x80", b"\x00" * 8,
    b"\xff" * 9 + b"\x01", b"\x80" * 12, b"\xff\xff\xff\xff\x0f",
)  # fmt: skip
MOST_PLACES = 8
DEEPEST = 4


@dataclass(frozen=True)
class Field:
    """One field of a protobuf message: where it begins, where its value does, and where it ends."""

    start: int
    value: int
    end: int
    nested: bool
    """Whether its value is of a length that is told, and so may be a message."""


def mutated(content: bytes, others: Sequence[bytes], generator: np.random.Generator) -> tuple[str, bytes]:
    """The name of one kind of mutation, drawn, and `content` after it; spans may come from `others`."""
    name = list(KINDS)[generator.integers(len(KINDS))]
    other = others[generator.integers(len(others))]
    return name, KINDS[name](content, other, generator)


def _bytes(content: bytes, other: bytes, generator: np.random.Generator) -> bytes:
    del other
    changed = np.frombuffer(content, np.uint8).copy()
    places = generator.integers(0, len(changed), generator.integers(1, MOST_PLACES + 1))
    changed[places] = generator.integers(0, 256, len(places))
    return changed.tobytes()


def _bits(content: bytes, other: bytes, generator: np.random.Generator) -> bytes:
    del other
    changed = np.frombuffer(content, np.uint8).copy()
    for place in generator.integers(0, len(changed), generator.integers(1, MOST_PLACES + 1)):
        changed[place] ^= 1 << generator.integers(8)
    return changed.tobytes()


def _number(content: bytes, other: bytes, generator: np.random.Generator) -> bytes:
    del other
    extreme = EXTREMES[generator.integers(len(EXTREMES))]
    place = int(generator.integers(len(content)))
    return content[:place] + extreme + content[place + len(extreme) :]


def _cut(content: bytes, other: bytes, generator: np.random.Generator) -> bytes:
    del other
    return content[: generator.integers(1, len(content))]


def _span(content: bytes, generator: np.random.Generator) -> tuple[int, int]:
    """Short ones more often than long ones."""
    length = int(2 ** generator.uniform(0, np.log2(len(content))))
    start = int(generator.integers(0, len(content) - length + 1))
    return start, start + length


def _removed(content: bytes, other: bytes, generator: np.random.Generator) -> bytes:
    del other
    start, end = _span(content, generator)
    return content[:start] + content[end:] or content[:1]


def _repeated(content: bytes, other: bytes, generator: np.random.Generator) -> bytes:
    del other
    start, end = _span(content, generator)
    return content[:end] + content[start:end] * int(generator.integers(1, 5)) + content[end:]


def _moved(content: bytes, other: bytes, generator: np.random.Generator) -> bytes:
    del other
    start, end = _span(content, generator)
    rest = content[:start] + content[end:]
    place = int(generator.integers(len(rest) + 1))
    return rest[:place] + content[start:end] + rest[place:]


def _spliced(content: bytes, other: bytes, generator: np.random.Generator) -> bytes:
    start, end = _span(other, generator)
    place = int(generator.integers(len(content)))
    behind = place + (end - start) * int(generator.integers(2))
    return content[:place] + other[start:end] + content[behind:]


def _fields_swapped(content: bytes, other: bytes, generator: np.random.Generator) -> bytes:
    """Two fields of one message change places: what belongs to the one name has the other's value."""
    del other
    fields = _drawn_message(content, generator)
    if len(fields) < 2:
        return content[::-1]
    first, second = (fields[number] for number in np.sort(generator.choice(len(fields), 2, replace=False)))
    between = content[first.end : second.start]
    swapped = content[second.start : second.end] + between + content[first.start : first.end]
    return content[: first.start] + swapped + content[second.end :]


def _tag_changed(content: bytes, other: bytes, generator: np.random.Generator) -> bytes:
    """A field becomes another one of its message, or is read as another kind of value."""
    del other
    fields = _drawn_message(content, generator)
    if not fields:
        return content[::-1]
    place = fields[generator.integers(len(fields))].start
    return content[:place] + bytes([generator.integers(1, 128)]) + content[place + 1 :]


def _drawn_message(content: bytes, generator: np.random.Generator) -> list[Field]:
    """The fields of the whole message, or of one somewhere within."""
    fields = fields_of(content, 0, len(content))
    for _ in range(int(generator.integers(DEEPEST + 1))):
        inner = [found for one in fields if one.nested and (found := fields_of(content, one.value, one.end))]
        if not inner:
            break
        fields = inner[generator.integers(len(inner))]
    return fields


def fields_of(content: bytes, start: int, end: int) -> list[Field]:
    """The fields of a protobuf message; none where these bytes are no message."""
    fields = []
    while start < end:
        tag, value = _varint(content, start, end)
        length = 0
        if tag & 7 == 0:
            _, behind = _varint(content, value, end)
            length = behind - value
        elif tag & 7 == 2:
            length, value = _varint(content, value, end)
        elif tag & 7 in {1, 5}:
            length = 8 if tag & 7 == 1 else 4
        if (length <= 0 and tag & 7 != 2) or tag >> 3 == 0 or value + length > end:
            return []
        fields.append(Field(start, value, value + length, tag & 7 == 2))
        start = value + length
    return fields if all(before.end == after.start for before, after in pairwise(fields)) else []


def _varint(content: bytes, start: int, end: int) -> tuple[int, int]:
    """The number, and where it ends; past `end` where it is cut off."""
    number = 0
    for place in range(start, min(end, start + 10)):
        number |= (content[place] & 0x7F) << 7 * (place - start)
        if content[place] < 0x80:
            return number, place + 1
    return number, end + 1


KINDS: dict[str, Callable[[bytes, bytes, np.random.Generator], bytes]] = {
    "bytes changed": _bytes,
    "bits flipped": _bits,
    "extreme numbers": _number,
    "cut short": _cut,
    "spans removed": _removed,
    "spans repeated": _repeated,
    "spans moved": _moved,
    "spans of another file": _spliced,
    "protobuf fields swapped": _fields_swapped,
    "protobuf tags changed": _tag_changed,
}
