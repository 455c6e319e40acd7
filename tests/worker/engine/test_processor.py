"""What a processor can do, and one that a target names."""

import pytest

from worker.engine import processor

VNNI, AVX512, AVX2 = ["avx2", "avx512f", "avx512_vnni"], ["avx2", "avx512f"], ["avx2"]


@pytest.mark.parametrize(
    ("here", "least", "saturates", "beyond"),
    [
        pytest.param(VNNI, None, False, False, id="its-own"),
        pytest.param(AVX2, None, True, False, id="its-own-without-vnni"),
        pytest.param(VNNI, "vnni", False, False, id="as-much"),
        pytest.param(VNNI, "avx512", True, False, id="less"),
        pytest.param(VNNI, "avx2", True, False, id="much-less"),
        pytest.param(AVX512, "vnni", True, True, id="more"),
        pytest.param(AVX2, "avx512", True, True, id="more-without-vnni"),
    ],
)
def test_sums_saturate_where_one_of_the_two_lacks_vnni(
    monkeypatch: pytest.MonkeyPatch, here: list[str], least: str | None, saturates: bool, beyond: bool
) -> None:
    monkeypatch.setattr(processor, "instruction_sets", lambda: here)
    assert processor.needs_reduced_range(least) is saturates
    assert processor.beyond_here(least) is beyond
