"""Which weights are factored, and at which ranks: the cheapest choice whose losses stay within a budget.

Noise at the model's outputs is taken as a sum over places, each adding its share of lost power times how much the
outputs feel of it. Under that, min sum(cost) subject to sum(noise) <= budget is solved by a price on noise, found by
halving: every place then chooses for itself (H. Everett, Generalized Lagrange Multiplier Method, Operations Research
11(3), 1963).
"""

from collections.abc import Mapping
from dataclasses import dataclass

from worker.engine.low_rank.factoring import Option

# Prices on noise between which nearly everything and nearly nothing is factored.
LOWEST_PRICE, HIGHEST_PRICE = 1e-12, 1e12
HALVINGS = 80


@dataclass(frozen=True)
class Offer:
    """What one place may become: `cost` in whatever is to be small, `noise` at the outputs."""

    option: Option
    cost: float
    noise: float


@dataclass(frozen=True)
class Bid:
    """A place as it is, at `cost` and without noise, and what it may become."""

    cost: float
    offers: list[Offer]


def select(bids: Mapping[str, Bid], budget: float) -> dict[str, Offer]:
    """By place: what it becomes; places that stay as they are have no entry."""
    free = _at_price(bids, 0.0)
    if _noise(free) <= budget:
        return free
    low, high = LOWEST_PRICE, HIGHEST_PRICE
    found: dict[str, Offer] = {}
    for _ in range(HALVINGS):
        price = (low * high) ** 0.5
        tried = _at_price(bids, price)
        if _noise(tried) <= budget:
            found, high = tried, price
        else:
            low = price
    return found


def _at_price(bids: Mapping[str, Bid], price: float) -> dict[str, Offer]:
    chosen = {}
    for name, bid in bids.items():
        best = min(bid.offers, key=lambda one: (one.cost + price * one.noise, one.noise), default=None)
        if best is not None and best.cost + price * best.noise < bid.cost:
            chosen[name] = best
    return chosen


def _noise(chosen: Mapping[str, Offer]) -> float:
    return sum(offer.noise for offer in chosen.values())
