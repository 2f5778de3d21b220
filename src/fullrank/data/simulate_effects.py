"""Planted effects that need no past: what each adds to the logit of a task, as a function of who, what and where.

Interactions are tables over the fields' values, made of latent vectors, centred along every axis and scaled to
standard deviation 1: over uniformly drawn values no subset of the fields tells anything. Task 2 sees
cos(πc) · (task 1's) + sin(πc) · (one of its own, orthogonal to it), c = `task_conflict`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from fullrank.data.simulate_config import SimulatorConfig
from fullrank.data.simulate_draws import normal, normals, uniform
from fullrank.data.simulate_world import DEVICES, FORMATS, SEGMENTS

RANK = 4  # width of every latent vector
STATIC = ("additive", "match", "fm", "item_taste", "three_way", "gated", "time_of_day")
_AGE, _AGE_SPREAD = 40.1, 15.5  # mean and standard deviation of 18 + floor(52 u^1.3)
_PAIR, _OTHER_PAIR = np.sqrt(0.7), np.sqrt(0.3)  # of fm: segment × category, device × format


@dataclass(frozen=True)
class Pairs:
    """n pairs of a user in a context and an ad, as one flat array a column."""

    segment: np.ndarray
    age: np.ndarray
    user_effect_n2: np.ndarray
    device: np.ndarray
    hour: np.ndarray
    day: np.ndarray
    scenario: np.ndarray
    ad: np.ndarray
    category: np.ndarray
    format: np.ndarray
    price: np.ndarray
    match: np.ndarray


def interaction(seed: int, stream: str, *shape: int) -> np.ndarray:
    """Σ_k of a product of one latent vector a field: a table that is centred along every axis, of standard deviation
    1 (all zeros where a field has one value: there is nothing to interact with)."""
    table = np.ones((*(1,) * len(shape), RANK))
    for axis, values in enumerate(shape):
        latent = normals(seed, f"{stream} {axis}", values, RANK)
        others = tuple(np.newaxis if other != axis else slice(None) for other in range(len(shape)))
        table = table * latent[(*others, slice(None))]
    return standard(table.sum(axis=-1))


def standard(table: np.ndarray) -> np.ndarray:
    """Centred along every axis, then of standard deviation 1."""
    for axis in range(table.ndim):
        table = table - table.mean(axis=axis, keepdims=True)
    spread = table.std()
    return table / spread if spread > 1e-9 else np.zeros_like(table)


def turned(first: np.ndarray, own: np.ndarray, angle: float) -> np.ndarray:
    """cos · first + sin · own, `own` being made orthogonal to `first` before: their correlation is cos(angle)."""
    square = (first * first).sum()
    if square > 0:
        own = standard(own - (own * first).sum() / square * first)
    return np.cos(angle) * first + np.sin(angle) * own


class StaticEffects:
    """Contributions of one task. Keeps tables over field values and four numbers an ad (of the ads asked for)."""

    def __init__(self, config: SimulatorConfig, task: str, ads: int) -> None:
        self._config, self._ads = config, ads
        self._angle = np.pi * config.task_conflict if task == "conversion" else 0.0
        self.strengths = config.click if task == "click" else config.conversion
        self.constant = config.click_logit if task == "click" else config.conversion_logit
        rates = normals(config.seed, f"{task} rate", config.scenarios) if config.scenarios > 1 else np.zeros(1)
        self._rate = 0.5 * rates

    def contributions(self, pairs: Pairs) -> dict[str, np.ndarray]:
        """What each effect that is there adds to the logit at strength 1; all have [n]."""
        return {name: getattr(self, f"_{name}")(pairs) for name in STATIC if getattr(self.strengths, name)}

    def logit(self, pairs: Pairs) -> np.ndarray:
        """Constant, base rate of the scenario and all static effects."""
        logit = self.constant + self._rate[pairs.scenario]
        for name, contribution in self.contributions(pairs).items():
            logit = logit + getattr(self.strengths, name) * contribution
        return logit

    def _table(self, stream: str, *shape: int) -> np.ndarray:
        seed = self._config.seed
        first = interaction(seed, f"click {stream}", *shape)
        if not self._angle:
            return first
        return turned(first, interaction(seed, f"conversion {stream}", *shape), self._angle)

    # ---- one method an effect

    def _additive(self, pairs: Pairs) -> np.ndarray:
        cos, sin = np.cos(self._angle), np.sin(self._angle)
        devices, formats, of_ads = self._main
        ids = 0.55 * (cos * pairs.user_effect_n2[:, 0] + sin * pairs.user_effect_n2[:, 1]) + of_ads[pairs.ad]
        ids += devices[pairs.device] + formats[pairs.format]
        dear = np.where(np.isnan(pairs.price), 0.0, (np.log(pairs.price) - 3.0) / 1.2)
        wave = np.sqrt(2.0) * np.sin(2.0 * np.pi * pairs.hour / 24.0)
        return ids + cos * (0.25 * (pairs.age - _AGE) / _AGE_SPREAD + 0.2 * dear + 0.25 * wave)

    @cached_property
    def _main(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Main effects of devices, formats and ads; with the others' weights their squares sum to 1."""
        seed, sizes = self._config.seed, (("device", DEVICES, 0.3), ("format", FORMATS, 0.3))
        parts = [weight * self._table(f"main {name}", count) for name, count, weight in sizes]
        every = np.arange(self._ads)
        own = np.sin(self._angle) * normal(seed, "conversion main ad", every) if self._angle else 0.0
        return parts[0], parts[1], 0.6 * (np.cos(self._angle) * normal(seed, "click main ad", every) + own)

    def _match(self, pairs: Pairs) -> np.ndarray:
        return np.nan_to_num(pairs.match)

    def _fm(self, pairs: Pairs) -> np.ndarray:
        part = _OTHER_PAIR * self._device_format[pairs.device, pairs.format]
        return part + _PAIR * self.taste(pairs.day, pairs.scenario, pairs.segment, pairs.category)

    def taste(
        self, day: np.ndarray, scenario: np.ndarray, segment: np.ndarray, category: np.ndarray
    ) -> np.ndarray:
        """How a segment likes a category: two tables turned into each other by `drift` radians a day, so that taste
        changes and its spread does not."""
        tastes = self._tastes
        cell = (scenario * SEGMENTS + segment) * self._config.categories + category
        if not self._config.drift:
            return tastes[0].ravel()[cell]
        angle = self._config.drift * day
        return np.cos(angle) * tastes[0].ravel()[cell] + np.sin(angle) * tastes[1].ravel()[cell]

    @cached_property
    def _tastes(self) -> np.ndarray:
        """[old or new, scenario, segment, category]"""
        config, shape = self._config, (SEGMENTS, self._config.categories)
        own_share = config.scenario_own if config.scenarios > 1 else 0.0
        parts = []
        for age in ("old", "new"):
            shared = self._table(f"taste {age}", *shape)
            for scenario in range(config.scenarios):
                own = self._table(f"taste {age} {scenario}", *shape) if own_share else 0.0
                parts.append(np.sqrt(1.0 - own_share) * shared + np.sqrt(own_share) * own)
        return np.stack(parts).reshape(2, config.scenarios, *shape)

    @cached_property
    def _device_format(self) -> np.ndarray:
        return self._table("device format", DEVICES, FORMATS)

    def _item_taste(self, pairs: Pairs) -> np.ndarray:
        liking, of_ads = self._liking
        return (liking[pairs.segment] * of_ads[pairs.ad]).sum(axis=1)

    @cached_property
    def _liking(self) -> tuple[np.ndarray, np.ndarray]:
        """What segments like ([segment, RANK], centred, of mean square length 1), and the ads' latents, turned."""
        seed = self._config.seed
        liking = normals(seed, "liking", SEGMENTS, RANK)
        liking -= liking.mean(axis=0)
        liking /= np.sqrt((liking**2).sum(axis=1).mean())
        latents = np.cos(self._angle) * ad_latents(seed, "click", np.arange(self._ads))
        if self._angle:
            latents += np.sin(self._angle) * ad_latents(seed, "conversion", np.arange(self._ads))
        return liking, latents

    def _three_way(self, pairs: Pairs) -> np.ndarray:
        return self._triples[pairs.segment, pairs.category, pairs.device]

    @cached_property
    def _triples(self) -> np.ndarray:
        return self._table("triple", SEGMENTS, self._config.categories, DEVICES)

    def _gated(self, pairs: Pairs) -> np.ndarray:
        first, second, third = self._gates
        there = [first[pairs.segment, pairs.category], second[pairs.segment, pairs.format]]
        return np.choose(pairs.device, [*there, third[pairs.category, pairs.format]])

    @cached_property
    def _gates(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        categories = self._config.categories
        shapes = ((SEGMENTS, categories), (SEGMENTS, FORMATS), (categories, FORMATS))
        first, second, third = (self._table(f"gate {number}", *shape) for number, shape in enumerate(shapes))
        return first, second, third

    def _time_of_day(self, pairs: Pairs) -> np.ndarray:
        phase = self._phases[pairs.category]
        return np.sqrt(2.0) * np.cos(2.0 * np.pi * (pairs.hour - phase) / 24.0 + self._angle)

    @cached_property
    def _phases(self) -> np.ndarray:
        """The best hour of each category, evenly around the clock: no hour is better than another for all."""
        categories = self._config.categories
        rank = np.argsort(uniform(self._config.seed, "phase", np.arange(categories)))
        return 24.0 * rank / categories


def ad_latents(seed: int, task: str, ad: np.ndarray) -> np.ndarray:
    """[n, RANK] standard normal: what an ad is like, beside its category."""
    return normal(seed, f"{task} ad latent", ad[:, None] * RANK + np.arange(RANK))


def ad_vectors(config: SimulatorConfig, ad: np.ndarray) -> np.ndarray:
    """[n, vector_dim] float32: a random linear map of the ads' latents of click, with noise."""
    mix = normals(config.seed, "vector map", RANK, config.vector_dim) / np.sqrt(RANK)
    noise = normal(config.seed, "vector noise", ad[:, None] * config.vector_dim + np.arange(config.vector_dim))
    return (ad_latents(config.seed, "click", ad) @ mix + config.vector_noise * noise).astype(np.float32)
