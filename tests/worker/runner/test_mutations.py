"""Files spoilt at random end in a clear fault or in a correct result, never in a fault of ours; nothing else changes.

`python -m benchmarks.hostile` does the same with thousands, and with every other hostile file.
"""

import os
from pathlib import Path

import numpy as np
import pytest

from tests.worker.runner.hostile.confined import RESULT, Upload, canary, inspect_all
from tests.worker.runner.hostile.good import GOOD
from tests.worker.runner.hostile.mutations import KINDS, fields_of, mutated

MUTATIONS, SEED = int(os.environ.get("LATHE_TEST_MUTATIONS", "30")), 20


@pytest.mark.parametrize("name", GOOD)
def test_mutated_files_end_in_a_clear_fault_or_a_result(name: str, tmp_path: Path) -> None:
    good = GOOD[name]
    content = good.build()
    others = [one.build() for one in GOOD.values() if one.kind is good.kind]
    generator = np.random.default_rng(SEED)
    files = [content, *(mutated(content, others, generator)[1] for _ in range(MUTATIONS))]
    uploads = [Upload(good.kind, good.media_type, lambda path, file=file: path.write_bytes(file)) for file in files]
    folder = tmp_path / "work"
    folder.mkdir()
    with canary(tmp_path) as untouched:
        outcomes = inspect_all(uploads, folder)
        assert untouched()
    assert [outcome for outcome in outcomes if not outcome.clear] == []
    # A mutation lands in a name or a number about as often as in the structure: neither side may swallow the other.
    assert outcomes[0].code == RESULT or name == "tar-gz"  # whose model is none
    assert len({outcome.code for outcome in outcomes}) > 1


def test_mutations_are_the_same_by_the_same_seed_and_of_every_kind() -> None:
    content, other = GOOD["perceptron"].build(), GOOD["convnet"].build()

    def drawn(seed: int) -> list[tuple[str, bytes]]:
        generator = np.random.default_rng(seed)
        return [mutated(content, [other], generator) for _ in range(100)]

    assert drawn(1) == drawn(1) != drawn(2)
    assert {name for name, _ in drawn(1)} == set(KINDS)
    assert sum(changed != content for _, changed in drawn(1)) > 90


def test_the_fields_of_a_model_are_found() -> None:
    content = GOOD["perceptron"].build()
    fields = fields_of(content, 0, len(content))
    assert b"".join(content[field.start : field.end] for field in fields) == content
    assert max(len(fields_of(content, field.value, field.end)) for field in fields if field.nested) > 3
    assert fields_of(b"\x0b" * 10, 0, 10) == []
