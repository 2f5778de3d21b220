"""The world behind the simulated ad log: who is who, and what a fixed logging policy shows.

Every number is a function of (seed, stream, index), so any part of the world can be asked for at any time, in any
order. What ads are like is kept once asked for (about 50 bytes an ad); nothing is kept of users.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cached_property

import numpy as np

from fullrank.data.simulate_draws import below, normal, uniform

INTERESTS = 4  # most interests a user can have
SEGMENTS = 8
FORMATS = 4
DEVICES = 3
_ACTIVITY = 1.5  # user rank ~ uniform ** this: the first users of the log come most often


@dataclass(frozen=True)
class Users:
    """Of n users: `interest_nI` are categories of ads, of which the first `interests` count, with `weight_nI`. `age`
    is the true one, `knows_age` whether the log has it. `effect_n2`: the user's own part of `additive`, by task."""

    index: np.ndarray
    segment: np.ndarray
    age: np.ndarray
    knows_age: np.ndarray
    interests: np.ndarray
    interest_nI: np.ndarray
    weight_nI: np.ndarray
    effect_n2: np.ndarray

    def take(self, index: np.ndarray) -> Users:
        return Users(**{f.name: getattr(self, f.name)[index] for f in fields(self)})


@dataclass(frozen=True)
class Ads:
    """Of n ads; `price` is what is advertised, NaN where the log has none; `bid` is per click."""

    index: np.ndarray
    campaign: np.ndarray
    category: np.ndarray
    format: np.ndarray
    price: np.ndarray
    bid: np.ndarray

    def take(self, index: np.ndarray) -> Ads:
        return Ads(**{f.name: getattr(self, f.name)[index] for f in fields(self)})


@dataclass(frozen=True)
class Shown:
    """What fills n slots. `paid` per click is NaN where there is no auction."""

    ad: np.ndarray
    explored: np.ndarray
    propensity: np.ndarray
    paid: np.ndarray


@dataclass(frozen=True, kw_only=True)
class World:
    """`slots` classes of ads (index mod slots), so that the slots of one request never show the same ad; within a
    class, ad number q belongs to campaign q mod campaigns, and campaign c to category c mod categories.

    `all_ads`: how many there will ever be.
    """

    seed: int
    slots: int
    campaigns: int
    categories: int
    explore: float
    all_ads: int

    def users(self, index: np.ndarray) -> Users:
        each = index[:, None] * INTERESTS + np.arange(INTERESTS)
        effects = [normal(self.seed, f"{task} main user", index) for task in ("click", "conversion")]
        return Users(
            index=index,
            segment=below(self.seed, "segment", index, SEGMENTS),
            age=18.0 + np.floor(52.0 * uniform(self.seed, "age", index) ** 1.3),
            knows_age=uniform(self.seed, "knows age", index) > 0.15,
            interests=below(self.seed, "interests", index, INTERESTS + 1),
            interest_nI=below(self.seed, "interest", each, self.categories),
            weight_nI=0.2 + 0.8 * uniform(self.seed, "interest weight", each),
            effect_n2=np.stack(effects, axis=1),
        )

    def ads(self, index: np.ndarray) -> Ads:
        return self._catalogue.take(index)

    @cached_property
    def _catalogue(self) -> Ads:
        index = np.arange(self.all_ads)
        campaign = index // self.slots % self.campaigns
        price = np.exp(3.0 + 1.2 * normal(self.seed, "price", index))
        price[uniform(self.seed, "knows price", index) < 0.1] = np.nan
        return Ads(
            index=index,
            campaign=campaign,
            category=campaign % self.categories,
            format=below(self.seed, "format", index, FORMATS),
            price=price,
            bid=np.exp(-1.0 + 0.4 * normal(self.seed, "bid", index)),
        )

    def visitor(self, request: np.ndarray, active: np.ndarray) -> np.ndarray:
        """The user of each request, out of the first `active`."""
        return (active * uniform(self.seed, "visitor", request) ** _ACTIVITY).astype(np.int64)

    def scenario(self, request: np.ndarray, scenarios: int) -> np.ndarray:
        """The domain of each request: number s has a share proportional to 1 / (s + 1)."""
        shares = 1.0 / np.arange(1, scenarios + 1)
        return np.searchsorted(np.cumsum(shares)[:-1] / shares.sum(), uniform(self.seed, "scenario", request))

    def class_of(self, request: np.ndarray, slot: np.ndarray) -> np.ndarray:
        """The class of ads that a slot shows: (slot + turn) mod slots, the turn being uniform in each request."""
        return (slot + below(self.seed, "turn", request, self.slots)) % self.slots

    def shown(
        self,
        request: np.ndarray,
        slot: np.ndarray,
        segment: np.ndarray,
        active: np.ndarray,
        policy: np.ndarray,
    ) -> Shown:
        """What the fixed policy shows, and its probability of showing this ad in this slot to this segment, given how
        many ads were `active` that day.

        With probability `explore` the ad is uniform over the slot's class; else its category is drawn from
        `policy[segment]`, and the ad within it by rank, P(rank >= j of n) = 1 - sqrt(j / n). Hence, of an ad in a
        class of N, the turn of classes being uniform,
            propensity = (explore / N + (1 - explore) · policy · (sqrt((j + 1) / n) - sqrt(j / n))) / slots.
        """
        row = request * self.slots + slot
        kind = self.class_of(request, slot)
        in_class = (active - kind + self.slots - 1) // self.slots
        explored = uniform(self.seed, "explore", row) < self.explore
        drawn = (uniform(self.seed, "category", row)[:, None] > np.cumsum(policy, axis=1)[segment, :-1]).sum(axis=1)
        in_category = self._in_category(in_class, drawn)
        rank = (in_category * uniform(self.seed, "rank", row) ** 2).astype(np.int64)
        anywhere = (in_class * uniform(self.seed, "anywhere", row)).astype(np.int64)
        number = np.where(explored, anywhere, drawn + self.categories * rank)

        category, rank = number % self.categories, number // self.categories
        in_category = self._in_category(in_class, category)
        by_rank = np.sqrt((rank + 1) / in_category) - np.sqrt(rank / in_category)
        propensity = self.explore / in_class + (1.0 - self.explore) * policy[segment, category] * by_rank
        return Shown(kind + self.slots * number, explored, propensity / self.slots, np.full(len(row), np.nan))

    def _in_category(self, in_class: np.ndarray, category: np.ndarray) -> np.ndarray:
        return (in_class - category + self.categories - 1) // self.categories


def match(users: Users, category: np.ndarray) -> np.ndarray:
    """The summed weight of the user's interests in the category; NaN for a user without interests."""
    counted = np.arange(INTERESTS) < users.interests[:, None]
    hit = (users.interest_nI == category[:, None]) & counted
    return np.where(users.interests > 0, (users.weight_nI * hit).sum(axis=1), np.nan)
