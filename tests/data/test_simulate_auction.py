"""Who bids, who wins, what is paid, and that nobody spends what he has not."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fullrank.data.simulate import Auction, SimulatedLog, SimulatorConfig
from fullrank.data.simulate_auction import Purse, auction, bidders

CONFIG = SimulatorConfig(
    rows=18_000,
    users=300,
    ads=300,
    campaigns=10,
    categories=5,
    days=3,
    slots=3,
    seed=2,
    auction=Auction(bidders=5, budget=15.0, settle_requests=64),
)


def table(log: SimulatedLog) -> pa.Table:
    return pa.Table.from_batches([chunk.records for chunk in log.chunks()])


@given(st.integers(1, 60), st.integers(0, 3), st.integers(2, 12))
def test_bidders_are_different_ads_of_the_class(in_class, kind, count):
    row, slots = np.arange(50), 4
    there = np.full(50, kind + slots * (max(in_class, count) - 1) + 1)
    found = bidders(1, row, np.full(50, kind), there, slots, count)
    assert (found % slots == kind).all() and found.max() < there[0] and found.min() >= 0
    assert all(len(set(one)) == count for one in found.tolist())


def test_every_ad_of_the_class_bids_sooner_or_later():
    found = bidders(1, np.arange(4_000), np.full(4_000, 1), np.full(4_000, 42), 4, 3)
    assert set(found.ravel().tolist()) == set(range(1, 42, 4))


def drawn(rows: int, count: int, seed: int = 0) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    return {
        "row": np.arange(rows),
        "ad_nM": np.tile(np.arange(count), (rows, 1)),
        "bid_nM": np.exp(random.normal(size=(rows, count))),
        "logit_nM": random.normal(size=(rows, count)) - 2.0,
        "may_bid_nM": random.random((rows, count)) < 0.6,
    }


def test_the_highest_offer_wins_and_pays_what_it_had_to():
    given_ = drawn(2_000, 4)
    shown = auction(3, **given_, explore=0.0, noise=0.0)
    for i in range(2_000):
        p = 1 / (1 + np.exp(-given_["logit_nM"][i]))
        may = np.flatnonzero(given_["may_bid_nM"][i]).tolist()
        offers = sorted(((given_["bid_nM"][i, m] * p[m], m) for m in may), reverse=True)
        if not offers:
            assert shown.explored[i] and shown.paid[i] == 0 and shown.propensity[i] == 0.25
            continue
        second = offers[1][0] if len(offers) > 1 else 0.0
        assert shown.ad[i] == offers[0][1] and not shown.explored[i] and shown.propensity[i] == 1.0
        assert shown.paid[i] == pytest.approx(second / p[offers[0][1]])
        assert shown.paid[i] <= given_["bid_nM"][i, offers[0][1]]


def test_propensities_are_frequencies_given_the_bidders():
    one = {name: np.repeat(values[:1], 40_000, axis=0) for name, values in drawn(1, 3, seed=4).items()}
    one["row"], one["may_bid_nM"] = np.arange(40_000), np.ones((40_000, 3), dtype=bool)
    shown = auction(3, **one, explore=0.3, noise=0.0)
    for ad in range(3):
        mine = shown.ad == ad
        (propensity,) = set(shown.propensity[mine].tolist())
        assert abs(mine.mean() - propensity) < 4.5 * np.sqrt(propensity * (1 - propensity) / len(mine))
    assert sorted(set(np.round(shown.propensity, 9))) == [0.1, 0.8]
    assert (shown.paid[shown.explored] == 0).all() and (shown.paid[~shown.explored] > 0).all()


def test_who_looks_better_than_it_is_wins_more_often_with_a_worse_estimate():
    """The winner's curse: among winners, the estimate is above the truth, and more so with more noise."""
    given_ = drawn(20_000, 5) | {"may_bid_nM": np.ones((20_000, 5), dtype=bool)}
    value = given_["bid_nM"] / (1 + np.exp(-given_["logit_nM"]))
    worth = [
        value[np.arange(20_000), auction(3, **given_, explore=0.0, noise=noise).ad].mean() for noise in (0.0, 0.5, 2.0)
    ]
    assert worth[0] == pytest.approx(value.max(axis=1).mean()) and worth[0] > worth[1] > worth[2]


def test_campaigns_overspend_by_no_more_than_goes_between_two_settlements():
    log = SimulatedLog(CONFIG)
    rows = table(log)
    budget = Purse.of(CONFIG.seed, CONFIG.campaigns, CONFIG.auction.budget).budget
    campaign, request = rows["campaign"].to_numpy(), rows["request"].to_numpy()
    paid, cost = rows["paid"].to_numpy(), rows["paid"].to_numpy() * rows["click"].to_numpy()
    day = np.searchsorted(log._maker.bounds, request, side="right") - 1
    tick = (request - log._maker.bounds[day]) // CONFIG.auction.settle_requests
    exhausted = 0
    for number in range(CONFIG.days):
        for c in range(CONFIG.campaigns):
            mine = (day == number) & (campaign == c)
            by_tick = np.bincount(tick[mine], weights=cost[mine], minlength=tick.max() + 1)
            settled = np.concatenate([[0.0], np.cumsum(by_tick)[:-1]])  # before each tick
            out = settled >= budget[c]
            exhausted += out.any()
            assert by_tick[out].sum() == 0.0
            assert paid[mine & out[tick]].sum() == 0.0
            assert cost[mine].sum() <= budget[c] + by_tick.max()
    assert 5 < exhausted < CONFIG.days * CONFIG.campaigns
    assert (rows["paid"].to_numpy() <= rows["bid"].to_numpy()).all()


def test_without_budgets_nobody_stops_and_no_memory_is_needed():
    click = replace(CONFIG.click, sequence=0.0, repeated_exposure=0.0)
    config = replace(CONFIG, auction=Auction(bidders=5), click=click)
    assert not config.remembers()
    rows = table(SimulatedLog(config))
    assert abs(rows["explored"].to_numpy().mean() - config.explore) < 4.5 * np.sqrt(0.09 / config.rows)
    assert np.isnan(table(SimulatedLog(replace(config, auction=Auction()))).column("propensity").to_numpy()).sum() == 0


def test_means_of_budgets_are_as_said():
    budget = Purse.of(0, 20_000, 7.0).budget
    assert budget.mean() == pytest.approx(7.0, rel=4.5 * 0.54 / np.sqrt(20_000)) and budget.min() > 0
