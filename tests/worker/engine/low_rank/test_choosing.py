"""Ranks are bought where noise costs least: within the budget, and no dearer choice is."""

import itertools

import numpy as np
import pytest

from worker.engine.low_rank.choosing import Bid, Offer, select
from worker.engine.low_rank.factoring import Option
from worker.engine.low_rank.forms import Shape


def _offer(cost: float, noise: float) -> Offer:
    return Offer(Option(Shape("matrix", (16,), 1, 1), noise), cost, noise)


def _bids(seed: int) -> dict[str, Bid]:
    generator = np.random.default_rng(seed)
    bids = {}
    for number in range(5):
        whole = float(generator.uniform(5, 20))
        costs = sorted(generator.uniform(1, whole, 3))
        noises = sorted(generator.uniform(0.001, 0.3, 3), reverse=True)
        bids[f"node-{number}"] = Bid(whole, [_offer(*pair) for pair in zip(costs, noises, strict=True)])
    return bids


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("budget", [0.01, 0.1, 0.4])
def test_no_choice_within_the_noise_made_is_cheaper(seed: int, budget: float) -> None:
    """A price finds the corners of the front, and there it is exact: nothing with as little noise costs less."""
    bids = _bids(seed)
    chosen = select(bids, budget)
    noise = sum(offer.noise for offer in chosen.values())
    cost = sum(chosen[name].cost if name in chosen else bid.cost for name, bid in bids.items())
    assert noise <= budget
    for picks in itertools.product(*([None, *bid.offers] for bid in bids.values())):
        if sum(one.noise for one in picks if one is not None) <= noise:
            whole = sum(bid.cost if one is None else one.cost for one, bid in zip(picks, bids.values(), strict=True))
            assert whole >= cost - 1e-9


def test_what_pays_is_taken_where_nothing_is_lost_and_nothing_else() -> None:
    bids = {"dear": Bid(1.0, [_offer(2.0, 0.0)]), "cheap": Bid(1.0, [_offer(0.5, 0.0)]), "none": Bid(1.0, [])}
    assert list(select(bids, 0.0)) == ["cheap"]


def test_without_room_for_noise_everything_stays_whole() -> None:
    assert select({"node": Bid(1.0, [_offer(0.5, 0.2)])}, 0.1) == {}
