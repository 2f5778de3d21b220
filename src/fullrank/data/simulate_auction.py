"""Ads bid for a slot: who takes part, who wins, what is paid, and what campaigns have left to spend."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fullrank.data.simulate_draws import below, normal, sigmoid, uniform
from fullrank.data.simulate_world import Shown


def bidders(seed: int, row: np.ndarray, kind: np.ndarray, active: np.ndarray, slots: int, count: int) -> np.ndarray:
    """[n, count] different ads of the slots' classes: one out of each `count`-th of the class, uniformly."""
    in_class = ((active - kind + slots - 1) // slots)[:, None]
    place = np.arange(count)
    drawn = uniform(seed, "bidder", row[:, None] * count + place)
    low, high = in_class * place // count, in_class * (place + 1) // count
    return kind[:, None] + slots * (low + ((high - low) * drawn).astype(np.int64))


def auction(
    seed: int,
    row: np.ndarray,
    ad_nM: np.ndarray,
    bid_nM: np.ndarray,
    logit_nM: np.ndarray,
    may_bid_nM: np.ndarray,
    *,
    explore: float,
    noise: float,
) -> Shown:
    """One second-price auction a row over its M bidders, `logit_nM` being the true click logits of all.

    The winner is the highest bid · σ(logit + noise); it pays per click (second highest) / p̂ of its own, which is no
    more than its bid; 0 if nobody else may bid, and where the slot explored. Propensities are given the M bidders:
    explore / M, and 1 - explore more for the winner; 1 / M where nobody may bid.
    """
    n, count = ad_nM.shape
    wobble = noise * normal(seed, "estimate", row[:, None] * count + np.arange(count)) if noise else 0.0
    estimate_nM = sigmoid(logit_nM + wobble)
    offer_nM = np.where(may_bid_nM, bid_nM * estimate_nM, 0.0)
    each = np.arange(n)
    winner = offer_nM.argmax(axis=1)
    second = np.partition(offer_nM, count - 2, axis=1)[:, count - 2]
    nobody = ~may_bid_nM.any(axis=1)
    explored = (uniform(seed, "explore", row) < explore) | nobody
    place = np.where(explored, below(seed, "anywhere", row, count), winner)
    share = np.where(nobody, 1.0, explore)
    propensity = share / count + (1.0 - share) * (place == winner)
    # float division may come out a rounding above the bid where two offers are equal
    paid = np.minimum(second / estimate_nM[each, place], bid_nM[each, place])
    return Shown(ad_nM[each, place], explored, propensity, np.where(explored, 0.0, paid))


@dataclass
class Purse:
    """What campaigns have spent today, as settled, and may spend a day at most."""

    budget: np.ndarray
    spent: np.ndarray
    day: int = -1

    @staticmethod
    def of(seed: int, campaigns: int, mean: float) -> Purse:
        spread = 0.5
        each = mean * np.exp(spread * normal(seed, "budget", np.arange(campaigns)) - spread**2 / 2.0)
        return Purse(each, np.zeros(campaigns))

    def out_on(self, day: int) -> np.ndarray:
        """Which campaigns may not bid any more; a new day starts from nothing."""
        if day != self.day:
            self.day, self.spent = day, np.zeros(len(self.spent))
        return self.spent >= self.budget

    def settle(self, campaign: np.ndarray, price: np.ndarray) -> None:
        self.spent += np.bincount(campaign, weights=price, minlength=len(self.spent))
