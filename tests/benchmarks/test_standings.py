"""Which of several files is the best: the rule that every headline of the comparison rests on."""

from benchmarks.entries import ORIGINAL, Entry, Side, entries_for
from benchmarks.standings import Standing, best, best_peer, default_recipe

FLOAT = Standing(ORIGINAL, medians_ms=[10.0, 20.0, 10.0])
TRAINED = Standing(ORIGINAL, medians_ms=[10.0, 20.0, 10.0], accuracy=0.98)


def entry(side: Side = "peer", *, default: bool = False) -> Entry:
    return Entry("x", "x", side, default_recipe=default)


def standing(medians_ms: list[float], sqnr_db: float | None = 30.0, side: Side = "peer", **more: object) -> Standing:
    default = bool(more.pop("default", False))
    return Standing(entry(side, default=default), medians_ms=medians_ms, sqnr_db=sqnr_db, **more)  # type: ignore[arg-type]


def test_speed_is_the_median_of_the_ratios_of_each_round() -> None:
    # Ratio of the medians: 10 / 5 as well; in the second round both were slow, and it counts as a round like any other.
    one = standing([5.0, 5.0, 10.0])
    assert one.speeds(FLOAT) == [2.0, 4.0, 1.0]
    assert one.speed(FLOAT) == 2.0


def test_a_fast_file_that_is_not_faithful_is_not_the_best() -> None:
    destroyed, good = standing([1.0, 1.0, 1.0], sqnr_db=3.0), standing([4.0, 4.0, 4.0])
    assert best(FLOAT, [destroyed, good]) is good
    assert best(FLOAT, [destroyed]) is None


def test_a_file_that_returns_the_same_bits_is_faithful() -> None:
    same = standing([9.0, 9.0, 9.0], sqnr_db=None)
    assert best(FLOAT, [same]) is same


def test_where_there_are_labels_accuracy_decides_and_not_sqnr() -> None:
    noisy = standing([2.0, 2.0, 2.0], sqnr_db=5.0, accuracy=0.97)
    wrong = standing([1.0, 1.0, 1.0], sqnr_db=40.0, accuracy=0.9695)
    assert best(TRAINED, [wrong, noisy]) is noisy


def test_what_failed_takes_no_part() -> None:
    failed, good = standing([], failure="does not load"), standing([4.0, 4.0, 4.0])
    assert best_peer(FLOAT, [failed, good]) is good
    assert best_peer(FLOAT, [failed]) is None


def test_lathe_is_no_peer_and_its_default_is_the_better_of_its_own() -> None:
    peer = standing([3.0, 3.0, 3.0])
    static = standing([5.0, 5.0, 5.0], side="lathe", default=True)
    dynamic = standing([4.0, 4.0, 4.0], side="lathe", default=True)
    other = standing([1.0, 1.0, 1.0], side="lathe")
    everyone = [peer, static, dynamic, other]
    assert best_peer(FLOAT, everyone) is peer
    assert default_recipe(FLOAT, everyone) is dynamic
    assert best(FLOAT, everyone) is other


def test_a_default_that_is_not_faithful_is_shown_and_not_hidden() -> None:
    static = standing([5.0, 5.0, 5.0], sqnr_db=3.0, side="lathe", default=True)
    assert default_recipe(FLOAT, [static]) is static
    assert not static.is_faithful(FLOAT)


def test_transformers_and_recurrent_nets_may_come_out_dynamic() -> None:
    defaults = {
        kind: [one.name for one in entries_for(kind, None) if one.default_recipe]
        for kind in ("convolutional", "transformer", "recurrent", "dense")
    }
    assert defaults["convolutional"] == defaults["dense"] == ["quantize_static"]
    assert defaults["transformer"] == defaults["recurrent"] == ["quantize_static", "quantize_dynamic"]
