"""What is tried next."""

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest

from app.recipes.auto import TRAINED_BESIDE, TRIED, Search
from app.recipes.catalogue import CATALOGUE
from tests.worker.engine.search.grounds import CONVOLUTIONAL, LATENCY, PLENTY, SIZE, measured, searched, trial
from worker.engine.search.agenda import Agenda
from worker.engine.search.ladders import epochs_within, pruned_proposals, tail_of
from worker.engine.search.proposals import Proposal, Trial, best_of, key_of
from worker.engine.search.tuning import MOST_SAMPLES, PATIENCE, Tuner


def as_cnns_are(proposal: Proposal) -> Trial:
    """Convolutions: static int8 pays, dynamic int8 finds nothing, cuts below 40 % break the contract."""
    speed = {"graph": 1.05, "static": 3.0, "tuned": 3.0, "float16": 0.5}.get(proposal.family, 1.0)
    if proposal.family == "dynamic":
        return Trial(proposal, 5.0, failure="`quantize_dynamic` changed nothing.")
    left = proposal.settings.get("left")
    if left is None:
        return measured(proposal, speed)
    return measured(proposal, 3.0 / (0.2 + 0.8 * left), drop=0.0 if left > 0.4 else 0.3)


def test_every_plain_method_is_tried_before_what_builds_on_them() -> None:
    families = [one.proposal.family for one in searched(as_cnns_are)]
    assert set(families[:5]) == {"graph", "static", "dynamic", "weights", "float16"}
    assert families[0] == "static"  # most promising on convolutions with VNNI


def test_cuts_go_deeper_while_the_contract_holds_and_come_back_where_it_breaks() -> None:
    rungs = [one.proposal.settings["left"] for one in searched(as_cnns_are) if one.proposal.family == "pruned"]
    assert rungs[:2] == [0.5, 0.3]  # a half, which holds; then deeper, which does not
    assert 0.3 < rungs[2] < 0.5
    best = best_of(searched(as_cnns_are), LATENCY)
    assert best is not None
    assert 0.4 < best.proposal.settings["left"] < 0.5
    assert [one.pass_ for one in best.proposal.recipe] == ["prune_structured", "quantize_static"]


def test_a_cut_is_followed_by_the_precision_that_served_best() -> None:
    def dynamic_wins(proposal: Proposal) -> Trial:
        speed = {"dynamic": 2.5, "static": 1.4}.get(proposal.family, 1.0)
        return measured(proposal, speed)

    pruned = next(one for one in searched(dynamic_wins) if one.proposal.family == "pruned")
    assert [one.pass_ for one in pruned.proposal.recipe] == ["prune_structured", "quantize_dynamic"]


def test_the_search_ends_where_nothing_promises_anything() -> None:
    trials = searched(lambda proposal: Trial(proposal, 1.0, failure="It cannot be done."))
    assert 5 <= len(trials) < 20


def test_a_trial_without_the_time_for_it_is_not_begun() -> None:
    agenda = Agenda(CONVOLUTIONAL, Search(), LATENCY, seed=0)
    assert agenda.following([], seconds_left=1.0) is None
    following = agenda.following([], seconds_left=25.0)
    assert following is not None
    assert following.proposal.seconds <= 25.0


@pytest.mark.parametrize("factor", [0.5, 1.0, 3.0])
def test_on_a_slower_machine_trials_are_expected_to_take_as_long_as_they_did(factor: float) -> None:
    agenda, trials = Agenda(CONVOLUTIONAL, Search(), LATENCY, seed=0), list[Trial]()
    told = []
    while (following := agenda.following(trials, PLENTY)) is not None and len(trials) < 6:
        told.append(following.trial_seconds / (factor * following.proposal.seconds))
        trials.append(replace(as_cnns_are(following.proposal), seconds=factor * following.proposal.seconds))
    # Nothing is known before the first; then as it was, however often it was looked at.
    assert told == pytest.approx([1 / factor, *[1.0] * 5])
    # What an earlier search had measured says nothing of how long anything takes now.
    recalled = [replace(one, cached=True) for one in trials]
    following = Agenda(CONVOLUTIONAL, Search(), LATENCY, seed=0).following(recalled, PLENTY)
    assert following is not None
    assert following.trial_seconds == following.proposal.seconds


def test_cuts_that_are_taught_are_not_rounded_where_rounding_breaks_the_contract() -> None:
    """A transformer that int8 ruins: behind every cut it would, and hide those that hold in float."""

    def as_outliers_are(proposal: Proposal) -> Trial:
        names, left = [one.pass_ for one in proposal.recipe], proposal.settings.get("left", 1.0)
        rounded, aware = names[-1] in ("quantize_static", "quantize_dynamic"), names[-1] == "quantize_aware_training"
        speed = (1.3 if rounded or aware else 1.0) / (0.2 + 0.8 * left)
        return measured(proposal, speed, drop=0.3 if rounded or left < (0.2 if "distill" in names else 0.45) else 0.0)

    ground = replace(CONVOLUTIONAL, training_samples=2000)
    trials = searched(as_outliers_are, Search(training=True), ground)
    taught = [[one.pass_ for one in trial.proposal.recipe] for trial in trials if trial.proposal.family == "taught"]
    assert taught
    assert all(recipe == ["prune_structured", "distill"] for recipe in taught)
    aware = [[one.pass_ for one in trial.proposal.recipe] for trial in trials if trial.proposal.family == "aware"]
    assert ["prune_structured", "distill", "quantize_aware_training"] in aware


@pytest.mark.parametrize(
    ("search", "allowed"),
    [
        pytest.param(Search(passes=["quantize_dynamic"]), {"quantize_dynamic"}, id="one pass"),
        pytest.param(Search(passes=["optimize_graph", "compile"]), {"optimize_graph"}, id="no quantization"),
    ],
)
def test_only_allowed_passes_are_tried(search: Search, allowed: set[str]) -> None:
    trials = searched(lambda proposal: measured(proposal, 1.0), search)
    assert {one.pass_ for trial in trials for one in trial.proposal.recipe} == allowed


@pytest.mark.parametrize("name", CATALOGUE)
def test_a_search_that_may_try_nothing_is_known_to(name: str) -> None:
    """With one pass alone; it is refused at submission where there is nothing."""
    search = Search(passes=[name], training=True)
    agenda = Agenda(replace(CONVOLUTIONAL, training_samples=2000), search, LATENCY, seed=0)
    assert bool(list(agenda.open([], PLENTY))) is search.may_try is (name in TRIED)


@pytest.mark.parametrize(
    "passes", [None, *(list(pair) for pair in TRAINED_BESIDE.items()), ["quantize_static", "distill"]], ids=str
)
def test_a_search_that_may_train_is_known_to(passes: list[str] | None) -> None:
    search = Search(passes=passes, training=True)
    agenda = Agenda(replace(CONVOLUTIONAL, training_samples=2000), search, LATENCY, seed=0)
    static = trial("static", 2.0, drop=0.3)
    tried = {one.pass_ for trials in ([], [static]) for new in agenda.open(trials, PLENTY) for one in new.recipe}
    assert bool(tried & TRAINED_BESIDE.keys()) is search.may_train
    if passes is None:
        assert tried == {*TRIED, *TRAINED_BESIDE}


def test_training_is_tried_only_where_it_is_allowed() -> None:
    ground = replace(CONVOLUTIONAL, training_samples=2000)

    def taught(search: Search) -> Sequence[Trial]:
        return [one for one in searched(as_cnns_are, search, ground) if one.proposal.family == "taught"]

    assert taught(Search(training=True))
    # However much time there is, as the reason for the end of a search asks.
    assert Agenda(ground, Search(training=True), LATENCY, seed=0).following([], math.inf) is not None
    assert not taught(Search(training=False))


@pytest.mark.parametrize("budget", [200.0, 230.0, 300.0, 600.0])
def test_one_candidate_is_trained_before_time_is_over(budget: float) -> None:
    """By worth for its time alone the cuts without training, and the sampler, would use up all of it."""
    ground = replace(CONVOLUTIONAL, training_samples=1000)
    agenda, trials, left = Agenda(ground, Search(training=True), LATENCY, seed=0), list[Trial](), budget
    while (following := agenda.following(trials, left)) is not None:
        trials.append(as_cnns_are(following.proposal))
        left -= following.proposal.seconds
    families = [one.proposal.family for one in trials]
    assert "taught" in families
    assert set(families[:5]) == {"graph", "static", "dynamic", "weights", "float16"}
    assert left >= 0
    # Where there is time for both, what is cheaper is not given up for it.
    assert "pruned" in families or budget < 300


def test_no_more_candidates_than_asked_for() -> None:
    assert len(searched(as_cnns_are, Search(max_trials=3))) == 3


def test_by_size_weights_in_few_bits_come_early() -> None:
    agenda = Agenda(CONVOLUTIONAL, Search(), SIZE, seed=0)
    trials: list[Trial] = []
    while (following := agenda.following(trials, PLENTY)) is not None and len(trials) < 8:
        trials.append(measured(following.proposal, 1.0, size=following.proposal.expected.size))
    assert {"bits": 4} in [dict(one.proposal.settings) for one in trials]


def test_the_same_trials_lead_to_the_same_search() -> None:
    names = [[one.name for one in searched(as_cnns_are)] for _ in range(2)]
    assert names[0] == names[1]


@pytest.mark.parametrize(
    ("seconds_left", "epochs"), [(40, None), (150, 2), (200, 4), (250, 4), (300, 4), (600, 8), (math.inf, 8)]
)
def test_other_seconds_left_mostly_lead_to_as_many_epochs(seconds_left: float, epochs: int | None) -> None:
    """With other epochs it is another candidate, which a later search has to train anew."""
    ground = replace(CONVOLUTIONAL, call_seconds=0.0024, training_samples=1000)
    assert ground.epoch_seconds() == pytest.approx(14.4)
    assert epochs_within(ground, seconds_left) == epochs
    assert epochs_within(replace(ground, training_samples=0), seconds_left) is None


def test_a_candidate_is_tried_once_however_many_epochs_there_is_time_for() -> None:
    """Static int8 breaks the contract, and so does what is trained around it, while time runs away."""

    def broken(proposal: Proposal) -> Trial:
        speed = 3.0 if proposal.family in ("static", "aware") else 1.0
        return measured(proposal, speed, drop=0.3)

    ground = replace(CONVOLUTIONAL, training_samples=300)
    agenda, trials = Agenda(ground, Search(training=True), LATENCY, seed=0), list[Trial]()
    left = 2000.0
    while (following := agenda.following(trials, left)) is not None:
        trials.append(broken(following.proposal))
        left *= 0.8
    names = [one.name for one in trials]
    assert len(set(names)) == len(names)
    assert sum(one.proposal.family == "aware" for one in trials) >= 1


def test_what_holds_by_a_hair_is_no_ground_to_go_on_from() -> None:
    """On other samples it would hardly be accepted, and nor would anything deeper."""

    def as_deeper_cuts_lose_more(proposal: Proposal) -> Trial:
        left = proposal.settings.get("left")
        if left is None:
            return as_cnns_are(proposal)
        return measured(proposal, 3.0 / (0.2 + 0.8 * left), drop=0.002 / left)

    trials = searched(as_deeper_cuts_lose_more)
    rungs = [one.proposal.settings["left"] for one in trials if one.proposal.family == "pruned"]
    assert rungs[0] == 0.5  # a drop of 0.004, where 0.01 is allowed
    assert min(rungs[1:]) > 0.5
    best = best_of(trials, LATENCY)
    assert best is not None
    assert best.likely


def test_the_first_candidate_has_the_time_to_prepare_a_large_model_and_the_others_find_it_prepared() -> None:
    ground = replace(CONVOLUTIONAL, size_bytes=330_000_000, load_seconds=1.0)
    agenda = Agenda(ground, Search(), LATENCY, seed=0)
    first = agenda.following([], PLENTY)
    assert first is not None
    assert first.proposal.seconds > ground.preparing_seconds + ground.measuring_seconds
    alike = [one for one in agenda.open([measured(first.proposal, 1.0)], PLENTY) if one.family == "graph"]
    assert alike[0].seconds < ground.preparing_seconds + ground.measuring_seconds


def test_where_training_betters_nothing_it_is_tried_on_deeper_cuts() -> None:
    """A cut that lost nothing is left as it is; what training is for are cuts that lose too much."""
    ground = replace(CONVOLUTIONAL, training_samples=2000)

    def taught(proposal: Proposal) -> Trial:
        left = proposal.settings.get("left", 1.0)
        if proposal.family == "taught" and left > 0.2:
            return Trial(proposal, 20.0, failure="`distill` changed nothing.")
        drop = 0.3 if left < (0.1 if proposal.family == "taught" else 0.4) else 0.0
        return as_cnns_are(proposal) if left == 1.0 else measured(proposal, 3.0 / (0.2 + 0.8 * left), drop=drop)

    trials = searched(taught, Search(training=True), ground)
    lefts = [one.proposal.settings["left"] for one in trials if one.proposal.family == "taught"]
    assert lefts[0] > 0.2 > lefts[1]
    best = best_of(trials, LATENCY)
    assert best is not None
    assert best.proposal.family == "taught"


def test_whole_blocks_go_where_narrower_layers_are_no_faster() -> None:
    """A small transformer: its time is that of calling kernels, of which there are as many in narrow layers."""
    ground = replace(
        CONVOLUTIONAL, convolution_share=0.0, product_share=0.3, training_samples=2000, left_without_blocks=0.1
    )

    def as_small_transformers_are(proposal: Proposal) -> Trial:
        left = proposal.settings.get("left", 1.0)
        return measured(proposal, 1 / left if proposal.family == "shortened" else 1.0, drop=0.3 if left < 0.25 else 0.0)

    trials = searched(as_small_transformers_are, Search(training=True), ground)
    best = best_of(trials, LATENCY)
    assert best is not None
    cut, taught = best.proposal.recipe
    assert cut.model_dump(include={"target", "remove"}) == {
        "target": {"mac_ratio": best.proposal.settings["left"], "latency_ratio": None},
        "remove": ["blocks"],
    }
    assert taught.pass_ == "distill"


@pytest.mark.parametrize(("left", "tried"), [(1.0, []), (0.4, [0.5]), (0.1, [0.5, 0.3, 0.18, 0.108])])
def test_no_more_is_asked_of_blocks_than_there_is_in_them(left: float, tried: list[float]) -> None:
    ground = replace(CONVOLUTIONAL, training_samples=2000, left_without_blocks=left)

    def as_deep_as_can_be(proposal: Proposal) -> Trial:
        left = proposal.settings.get("left", 1.0)
        return measured(proposal, 1 / left if proposal.family == "shortened" else 1.0)

    trials = searched(as_deep_as_can_be, Search(training=True), ground)
    assert [one.proposal.settings["left"] for one in trials if one.proposal.family == "shortened"] == tried


def test_rungs_that_lie_close_have_names_of_their_own() -> None:
    def at(left: float, holds: bool) -> Trial:
        return trial(f"{left}", family="pruned", drop=0.0 if holds else 0.3, settings={"left": left})

    trials = [at(0.06, True), at(0.05, False)]
    (following,) = pruned_proposals(trials, CONVOLUTIONAL, LATENCY)
    assert following.name == "5.5% of the multiply-accumulates"


@pytest.mark.parametrize(
    ("drop_below", "taught_below", "taught"),
    [
        pytest.param(0.008, 0.008, 3, id="by a hair, and so they do when they were taught"),
        pytest.param(0.008, 0.0, 1, id="by a hair, and the deepest is sure once it was taught"),
        pytest.param(0.0, 0.0, 0, id="surely"),
    ],
)
def test_cuts_that_may_lose_elsewhere_are_taught_once_nothing_promises_more(
    drop_below: float, taught_below: float, taught: int
) -> None:
    """What training reaches below them breaks the contract; they hold, and by how little the samples say."""
    ground = replace(CONVOLUTIONAL, training_samples=2000)

    def as_recurrent_networks_are(proposal: Proposal) -> Trial:
        left = proposal.settings.get("left", 1.0)
        if left == 1.0:
            return as_cnns_are(proposal)
        if proposal.family == "shortened":
            return measured(proposal, 1.0, drop=0.3)
        found = measured(proposal, 3.0 / (0.2 + 0.8 * left), drop=0.0 if left > 0.17 else 0.3)
        return replace(found, drop_below=drop_below if proposal.family == "pruned" else taught_below)

    trials = searched(as_recurrent_networks_are, Search(training=True), ground)
    held = sorted(one.proposal.settings["left"] for one in trials if one.proposal.family == "pruned" and one.holds)
    order = [one.proposal for one in trials]
    last = [one for one in order if one.family == "taught" and one.settings["left"] in held]
    assert sorted(one.settings["left"] for one in last) == held[:taught]
    without = [number for number, one in enumerate(order) if one.family == "pruned"]
    assert all(order.index(one) > max(without) for one in last)


def test_where_size_counts_cuts_are_followed_by_what_is_smallest() -> None:
    """Slower in int8, as without VNNI: it is no tail where speed counts."""
    smaller = [trial("static", 0.95, 3.8), trial("weights in 4 bits", 1.0, 6.5, family="weights")]
    assert tail_of(smaller, LATENCY).passes == ()
    assert tail_of(smaller, SIZE).passes == smaller[1].proposal.recipe


def test_a_sampler_that_asks_for_what_was_tried_is_told_and_asks_for_another() -> None:
    """It knows but 240 combinations, and the better a place, the more often it asks for it."""
    tuner, trials = Tuner(LATENCY, seed=0), [trial("static", 1.5, drop=0.3)]
    recipes = []
    for _ in range(MOST_SAMPLES):
        # Whatever it asks for first was tried already, by another search.
        (first,) = Tuner(LATENCY, seed=0).proposals(trials[:1], CONVOLUTIONAL)
        known = replace(trials[0], proposal=replace(first, family="given", settings={}))
        following = list(tuner.proposals([*trials, known], CONVOLUTIONAL))
        if not following:
            break
        assert following[0].recipe != first.recipe
        recipes.append(key_of(following[0].recipe))
        trials.append(measured(following[0], 1.5, drop=0.2 - 0.01 * len(trials)))
    assert len(set(recipes)) == len(recipes) > 3


def test_a_sampler_whose_samples_fail_has_nothing_more_to_say() -> None:
    tuner, trials = Tuner(LATENCY, seed=0), [trial("static", 1.5, drop=0.3)]
    while len(trials) <= MOST_SAMPLES and (following := list(tuner.proposals(trials, CONVOLUTIONAL))):
        trials.append(Trial(following[0], 5.0, failure="It could not be made."))
    assert len(trials) - 1 == PATIENCE


def test_the_whole_search_is_expected_to_take_what_its_ladders_take() -> None:
    """They show one rung at a time: what was told is between half and twice of what it took."""
    agenda, trials = Agenda(CONVOLUTIONAL, Search(), LATENCY, seed=0), list[Trial]()
    told = []
    while (following := agenda.following(trials, PLENTY)) is not None:
        told.append((sum(one.seconds for one in trials), following.seconds))
        trials.append(as_cnns_are(following.proposal))
    whole = sum(one.seconds for one in trials)
    early = [(done, expected) for done, expected in told if done < whole / 2]
    assert all(0.5 < (done + expected) / whole < 2 for done, expected in early)
