"""From requests to the rows of the simulated log: who came, what was shown, what is true of it and what happened."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fullrank.data.simulate_auction import auction, bidders
from fullrank.data.simulate_config import DAY, SimulatorConfig
from fullrank.data.simulate_draws import below, sigmoid, uniform
from fullrank.data.simulate_effects import Pairs, StaticEffects
from fullrank.data.simulate_memory import Memory, Undecided
from fullrank.data.simulate_past import PastEffects
from fullrank.data.simulate_world import DEVICES, SEGMENTS, Ads, Shown, Users, World, match

START = 1_735_689_600  # 2025-01-01, UTC


@dataclass(frozen=True)
class Visits:
    """R requests: who came when, where from."""

    request: np.ndarray
    day: np.ndarray
    time: np.ndarray
    device: np.ndarray
    scenario: np.ndarray
    users: Users


@dataclass(frozen=True)
class Rows:
    """Rows of some requests with all that is true of them, the log's knowledge or not. `out` and `past` are what they
    owe to rows before them."""

    request: np.ndarray
    slot: np.ndarray
    time: np.ndarray
    users: Users
    ads: Ads
    pairs: Pairs
    shown: Shown
    out: np.ndarray
    past: PastEffects
    p_look: np.ndarray
    p_click: np.ndarray
    p_conversion: np.ndarray
    click: np.ndarray
    conversion: np.ndarray
    conversion_time: np.ndarray


class RowMaker:
    """Rows as a function of the config, their requests, and a memory of what was before them."""

    def __init__(self, config: SimulatorConfig) -> None:
        last = np.array(config.days - 1)
        self.config = config
        requests = -(-config.rows // config.slots)
        self.bounds = np.arange(config.days + 1) * requests // config.days  # the first request of each day
        self.all_users = int(active(config.users, config.new_keys_per_day, last))
        self.all_ads = int(active(config.ads, config.new_keys_per_day, last))
        self.world = World(
            seed=config.seed,
            slots=config.slots,
            campaigns=config.campaigns,
            categories=config.categories,
            explore=config.explore,
            all_ads=self.all_ads,
        )
        self.click = StaticEffects(config, "click", self.all_ads)
        self.conversion = StaticEffects(config, "conversion", self.all_ads)
        self._policy = _policy(self.click, config)

    def rows(self, request: np.ndarray, memory: Memory) -> Rows:
        config, seed = self.config, self.config.seed
        visits = self._visits(request)
        of = np.repeat(np.arange(len(request)), config.slots)
        slot = np.tile(np.arange(config.slots), len(request))
        within_log = request[of] * config.slots + slot < config.rows  # the last request may be short
        of, slot = of[within_log], slot[within_log]
        row = request[of] * config.slots + slot
        out, moment_R = memory.out(request, visits.day)
        shown = self._shown(visits, of, slot, row, out, moment_R)
        ads = self.world.ads(shown.ad)
        pairs = _pairs(visits, of, ads)
        click, conversion = config.click, config.conversion
        logit = self.click.logit(pairs)
        look = 1.0 / (1.0 + click.position * slot)
        draw = uniform(seed, "click", row)
        past = memory.past(Undecided(row, visits.users.index, ads.category, ads.format, logit, look, draw))
        p_click = look * sigmoid(logit + past.logit(click))
        p_conversion = sigmoid(self.conversion.logit(pairs) + past.logit(conversion))
        p_conversion = p_conversion / (1.0 + conversion.position * slot)
        if config.funnel:  # one draw for both: below p_conversion it clicks and converts, below p_click it clicks
            p_conversion, other = p_conversion * p_click, draw
        else:
            other = uniform(seed, "conversion", row)
        memory.settle(ads.campaign, np.where(draw < p_click, np.nan_to_num(shown.paid), 0.0))
        within = 1.0 - np.exp(-config.attribution_window / config.mean_delay)
        delay = -config.mean_delay * np.log1p(-within * uniform(seed, "delay", row))
        time = visits.time[of]
        return Rows(
            request=request[of],
            slot=slot,
            time=time,
            users=visits.users.take(of),
            ads=ads,
            pairs=pairs,
            shown=shown,
            out=out,
            past=past,
            p_look=look,
            p_click=p_click,
            p_conversion=p_conversion,
            click=draw < p_click,
            conversion=other < p_conversion,
            conversion_time=time + 1 + delay.astype(np.int64),
        )

    def _visits(self, request: np.ndarray) -> Visits:
        config, seed = self.config, self.config.seed
        day = np.searchsorted(self.bounds, request, side="right") - 1
        part = (request - self.bounds[day] + uniform(seed, "time", request)) / np.diff(self.bounds)[day]
        part = part - 0.6 * np.sin(2.0 * np.pi * part) / (2.0 * np.pi)  # few come at night
        user = self.world.visitor(request, active(config.users, config.new_keys_per_day, day))
        return Visits(
            request=request,
            day=day,
            time=START + DAY * day + (DAY * part).astype(np.int64),
            device=below(seed, "device", request, DEVICES),
            scenario=self.world.scenario(request, config.scenarios),
            users=self.world.users(user),
        )

    def _shown(
        self,
        visits: Visits,
        of: np.ndarray,
        slot: np.ndarray,
        row: np.ndarray,
        out: np.ndarray,
        moment_R: np.ndarray,
    ) -> Shown:
        config, world, request = self.config, self.world, visits.request[of]
        ads_there = active(config.ads, config.new_keys_per_day, visits.day[of])
        count = config.auction.bidders
        if not count:
            return world.shown(request, slot, visits.users.segment[of], ads_there, self._policy)
        kind = world.class_of(request, slot)
        ad_nM = bidders(config.seed, row, kind, ads_there, config.slots, count)
        ads = world.ads(ad_nM.ravel())
        logit = self.click.logit(_pairs(visits, np.repeat(of, count), ads))
        return auction(
            config.seed,
            row,
            ad_nM,
            ads.bid.reshape(ad_nM.shape),
            logit.reshape(ad_nM.shape),
            ~out[moment_R[of][:, None], ads.campaign.reshape(ad_nM.shape)],
            explore=config.explore,
            noise=config.auction.estimate_noise,
        )


def active(first: int, new_per_day: float, day: np.ndarray) -> np.ndarray:
    """How many keys there are on a day."""
    return first + np.round(first * new_per_day).astype(np.int64) * day


def _pairs(visits: Visits, of: np.ndarray, ads: Ads) -> Pairs:
    """The visits `of` with the ads, pair by pair."""
    users = visits.users
    return Pairs(
        segment=users.segment[of],
        age=users.age[of],
        user_effect_n2=users.effect_n2[of],
        device=visits.device[of],
        hour=visits.time[of] // 3600 % 24,
        day=visits.day[of],
        scenario=visits.scenario[of],
        ad=ads.index,
        category=ads.category,
        format=ads.format,
        price=ads.price,
        match=match(users.take(of), ads.category),
    )


def _policy(click: StaticEffects, config: SimulatorConfig) -> np.ndarray:
    """[segment, category]: the softmax of day 0's taste in the first scenario, whatever its strength on clicks, so
    that what is shown does not change with what is planted (the policy does not learn)."""
    segment, category = np.divmod(np.arange(SEGMENTS * config.categories), config.categories)
    zero = np.zeros(len(segment), dtype=np.int64)
    weight = np.exp(0.7 * click.taste(zero, zero, segment, category)).reshape(SEGMENTS, -1)
    return weight / weight.sum(axis=1, keepdims=True)
