"""What a search says of itself."""

from tests.worker.engine.search.grounds import LATENCY, trial
from worker.engine.search.explaining import why


def test_the_original_is_delivered_for_what_was_so() -> None:
    none = [trial("slower", latency=0.9), trial("broken", latency=3.0, drop=0.5)]
    (words,) = why(None, none, LATENCY, 0.01)
    assert words == (
        "None of 2 candidates keeps the contract (a drop of at most 0.01) and gains anything: "
        "the original is delivered."
    )
    # What kept it while candidates were chosen, and was not accepted, did not break it.
    (words,) = why(None, [*none, trial("promising", latency=2.0)], LATENCY, 0.01)
    assert words.startswith("1 of 3 candidates, `promising` the best of them, keep the contract")
    assert words.endswith(
        "none both gained and was shown to keep it on the samples for accepting: the original is delivered."
    )
