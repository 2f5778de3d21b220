"""The world behind the simulated ad log: who is who, what they like, and how the logging policy chooses ads.

Every number is a function of (seed, stream, index) through splitmix64, so any part of the world can be asked for at
any time, in any order, at the cost of that part alone: nothing is drawn in sequence and nothing is kept.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fullrank.data.keys import splitmix64

INTERESTS = 4  # most interests a user can have
SEGMENTS = 8
FORMATS = 4
DEVICES = 3
_ACTIVITY = 1.5  # user rank ~ uniform ** this: the first users of the log come most often


def bits(seed: int, stream: str, index: np.ndarray) -> np.ndarray:
    """64 random bits for each index: uint64, the same for the same (seed, stream, index) wherever they are asked."""
    base = splitmix64(np.array([seed & (2**64 - 1)], dtype=np.uint64))
    for letter in stream.encode():
        base = splitmix64(base ^ np.uint64(letter))
    return splitmix64(splitmix64(np.asarray(index, dtype=np.uint64) ^ base))


def uniform(seed: int, stream: str, index: np.ndarray) -> np.ndarray:
    """Uniform on (0, 1), both ends left out."""
    return ((bits(seed, stream, index) >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53


def normal(seed: int, stream: str, index: np.ndarray) -> np.ndarray:
    """Standard normal, by Box and Muller's transform."""
    radius = np.sqrt(-2.0 * np.log(uniform(seed, stream + ".radius", index)))
    return radius * np.cos(2.0 * np.pi * uniform(seed, stream + ".angle", index))


def below(seed: int, stream: str, index: np.ndarray, count: int) -> np.ndarray:
    """Uniform integers in [0, count)."""
    return (uniform(seed, stream, index) * count).astype(np.int64)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1.0 / (1.0 + np.exp(-x))


@dataclass(frozen=True)
class Users:
    """Of n users: `interest_nI` are categories of ads, of which the first `interests` count, with `weight_nI`. `age`
    is the true one, `knows_age` whether the log has it."""

    index: np.ndarray
    segment: np.ndarray
    age: np.ndarray
    knows_age: np.ndarray
    interests: np.ndarray
    interest_nI: np.ndarray
    weight_nI: np.ndarray
    effect: np.ndarray


@dataclass(frozen=True)
class Ads:
    """Of n ads; `price` is what is advertised, NaN where the log has none."""

    index: np.ndarray
    campaign: np.ndarray
    category: np.ndarray
    format: np.ndarray
    price: np.ndarray
    bid: np.ndarray
    quality: np.ndarray
    value: np.ndarray


@dataclass(frozen=True, kw_only=True)
class World:
    """`slots` classes of ads (index mod slots), so that the slots of one request never show the same ad; within a
    class, ad number q belongs to campaign q mod campaigns, and campaign c to category c mod categories."""

    seed: int
    slots: int
    campaigns: int
    categories: int
    drift: float
    explore: float

    def users(self, index: np.ndarray) -> Users:
        each = index[:, None] * INTERESTS + np.arange(INTERESTS)
        return Users(
            index=index,
            segment=below(self.seed, "segment", index, SEGMENTS),
            age=18.0 + np.floor(52.0 * uniform(self.seed, "age", index) ** 1.3),
            knows_age=uniform(self.seed, "knows age", index) > 0.15,
            interests=below(self.seed, "interests", index, INTERESTS + 1),
            interest_nI=below(self.seed, "interest", each, self.categories),
            weight_nI=0.2 + 0.8 * uniform(self.seed, "interest weight", each),
            effect=normal(self.seed, "user effect", index),
        )

    def ads(self, index: np.ndarray) -> Ads:
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
            quality=normal(self.seed, "quality", index),
            value=normal(self.seed, "value", index),
        )

    def taste(self, task: str, day: np.ndarray, segment: np.ndarray, category: np.ndarray) -> np.ndarray:
        """How a segment likes a category: two standard normal matrices, turned into each other by `drift` radians a
        day, so that taste changes and its spread does not."""
        cell = segment * self.categories + category
        every = np.arange(SEGMENTS * self.categories)
        old, new = (normal(self.seed, f"{task} taste {part}", every)[cell] for part in ("old", "new"))
        angle = self.drift * day
        return np.cos(angle) * old + np.sin(angle) * new

    def visitor(self, request: np.ndarray, active: np.ndarray) -> np.ndarray:
        """The user of each request, out of the first `active`."""
        return (active * uniform(self.seed, "visitor", request) ** _ACTIVITY).astype(np.int64)

    def shown(
        self, request: np.ndarray, slot: np.ndarray, segment: np.ndarray, active: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """What the logging policy shows: ad, whether it explored, and its probability of showing this ad in this slot
        to this segment, given how many ads were `active` that day.

        Slot s shows class (s + turn) mod slots, the turn being uniform. With probability `explore` the ad is uniform
        over the class; else its category is drawn by the softmax of day 0's taste (the policy does not learn), and
        the ad within it by rank, P(rank >= j of n) = 1 - sqrt(j / n). Hence, of an ad in a class of N,
            propensity = (explore / N + (1 - explore) · softmax · (sqrt((j + 1) / n) - sqrt(j / n))) / slots.
        """
        row = request * self.slots + slot
        kind = (slot + below(self.seed, "turn", request, self.slots)) % self.slots
        in_class = (active - kind + self.slots - 1) // self.slots
        explored = uniform(self.seed, "explore", row) < self.explore
        policy = self._policy()
        drawn = (uniform(self.seed, "category", row)[:, None] > np.cumsum(policy, axis=1)[segment, :-1]).sum(axis=1)
        in_category = self._in_category(in_class, drawn)
        rank = (in_category * uniform(self.seed, "rank", row) ** 2).astype(np.int64)
        anywhere = (in_class * uniform(self.seed, "anywhere", row)).astype(np.int64)
        number = np.where(explored, anywhere, drawn + self.categories * rank)

        category, rank = number % self.categories, number // self.categories
        in_category = self._in_category(in_class, category)
        by_rank = np.sqrt((rank + 1) / in_category) - np.sqrt(rank / in_category)
        propensity = self.explore / in_class + (1.0 - self.explore) * policy[segment, category] * by_rank
        return kind + self.slots * number, explored, propensity / self.slots

    def _policy(self) -> np.ndarray:
        segment, category = np.divmod(np.arange(SEGMENTS * self.categories), self.categories)
        weight = np.exp(0.7 * self.taste("click", np.zeros(1), segment, category)).reshape(SEGMENTS, -1)
        return weight / weight.sum(axis=1, keepdims=True)

    def _in_category(self, in_class: np.ndarray, category: np.ndarray) -> np.ndarray:
        return (in_class - category + self.categories - 1) // self.categories

    def match(self, users: Users, ads: Ads) -> np.ndarray:
        """The summed weight of the user's interests in the ad's category; NaN for a user without interests."""
        counted = np.arange(INTERESTS) < users.interests[:, None]
        hit = (users.interest_nI == ads.category[:, None]) & counted
        return np.where(users.interests > 0, (users.weight_nI * hit).sum(axis=1), np.nan)

    def click_probability(
        self, users: Users, ads: Ads, slot: np.ndarray, day: np.ndarray, hour: np.ndarray, device: np.ndarray
    ) -> np.ndarray:
        """P(click | shown) = 1 / (1 + 0.35 slot) · sigmoid(of what is planted): slots are looked at less and less."""
        by_format = normal(self.seed, "device format", np.arange(DEVICES * FORMATS))[device * FORMATS + ads.format]
        logit = (
            -2.4
            + self.taste("click", day, users.segment, ads.category)
            + 0.8 * np.nan_to_num(self.match(users, ads))
            + 0.4 * ads.quality
            + 0.3 * users.effect
            + 0.3 * by_format
            - 0.4 * ((users.age - 40.0) / 20.0) ** 2
            + 0.2 * np.sin(2.0 * np.pi * hour / 24.0)
        )
        return sigmoid(logit) / (1.0 + 0.35 * slot)

    def conversion_probability(self, users: Users, ads: Ads, day: np.ndarray) -> np.ndarray:
        """P(conversion within the window | click): dear things and other tastes than for clicks."""
        dear = np.where(np.isnan(ads.price), 0.0, np.log(ads.price) - 3.0)
        taste = self.taste("conversion", day, users.segment, ads.category)
        return sigmoid(-1.5 + 0.7 * taste + 0.4 * ads.value - 0.3 * dear)
