from dataclasses import replace
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fullrank.data.normalise import Origin, normalise
from fullrank.data.readers.tabular import columns_read
from fullrank.data.simulate import DAY, Auction, Effects, SimulatedLog, SimulatorConfig
from fullrank.data.simulate_draws import bits, normal, sigmoid, uniform
from fullrank.data.simulate_world import SEGMENTS
from fullrank.data.source import CHUNK_ROWS

SMALL = SimulatorConfig(rows=20_001, users=300, ads=200, campaigns=20, categories=5, days=4, slots=3)


def table(log) -> pa.Table:
    return pa.Table.from_batches([chunk.records for chunk in log.chunks()])


def column(rows: pa.Table, name: str) -> np.ndarray:
    return rows[name].to_numpy()


@pytest.fixture(scope="module")
def small() -> pa.Table:
    return table(SimulatedLog(SMALL))


def test_the_same_config_is_the_same_log_and_another_seed_is_another(small):
    assert table(SimulatedLog(SMALL)).equals(small)
    other = SimulatedLog(replace(SMALL, seed=1))
    assert not table(other).equals(small)
    assert other.fingerprint() != SimulatedLog(SMALL).fingerprint() == SimulatedLog(SMALL).fingerprint()
    assert SimulatedLog(SMALL).day(0).fingerprint() != SimulatedLog(SMALL).day(1).fingerprint()


def test_chunks_are_bounded_hold_whole_requests_and_exactly_the_rows():
    log = SimulatedLog(replace(SMALL, rows=2 * CHUNK_ROWS + 5))
    chunks = list(log.chunks())
    assert max(chunk.records.num_rows for chunk in chunks) <= CHUNK_ROWS
    assert sum(chunk.records.num_rows for chunk in chunks) == log.config.rows
    assert [chunk.first_row for chunk in chunks] == np.cumsum([0, *(c.records.num_rows for c in chunks)])[:-1].tolist()
    ends = [(chunk.records["request"][0].as_py(), chunk.records["request"][-1].as_py()) for chunk in chunks]
    assert all(last < first for (_, last), (first, _) in pairwise(ends))


def test_every_chunk_is_what_its_schema_says(small):
    log = SimulatedLog(SMALL)
    assert set(columns_read(log.schema)) <= set(small.column_names)
    assert not {"p_click", "p_conversion"} & set(columns_read(log.schema))
    for chunk in log.chunks():
        assert normalise(log.schema, chunk.records, Origin(chunk.file, chunk.first_row)).num_rows == len(chunk.records)


def test_a_request_is_one_user_at_one_time_with_its_slots_and_no_ad_twice(small):
    request = column(small, "request")
    for name in ("user", "time", "segment", "device"):
        groups = {(r, v) for r, v in zip(request.tolist(), small[name].to_pylist(), strict=True)}
        assert len(groups) == len(set(request))
    assert (column(small, "position")[: 3 * 100].reshape(-1, 3) == np.arange(3)).all()
    assert len(set(zip(request.tolist(), small["ad"].to_pylist(), strict=True))) == small.num_rows
    assert len(set(small["impression"].to_pylist())) == small.num_rows


def test_times_are_sorted_and_an_unsorted_log_is_the_same_rows(small):
    assert (np.diff(column(small, "time")) >= 0).all()
    log = SimulatedLog(replace(SMALL, sorted_by_time=False))
    shuffled = table(log)
    assert (np.diff(column(shuffled, "time")) < 0).mean() > 0.1 and not log.schema.time_sorted
    assert shuffled.sort_by("impression").equals(small)
    assert table(log.day(2)).sort_by("impression").equals(table(SimulatedLog(SMALL).day(2)))


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 300), st.integers(1, 5), st.integers(1, 4))
def test_days_together_are_the_log_for_any_size(rows, days, slots):
    config = replace(SMALL, rows=rows, days=days, slots=slots, sorted_by_time=False)
    log = SimulatedLog(config)
    parts = [table_or_none(log.day(day)) for day in range(days)]
    impressions = [i for part in parts if part is not None for i in part["impression"].to_pylist()]
    assert sorted(impressions) == list(range(rows))
    assert sorted(table(log)["impression"].to_pylist()) == list(range(rows))


def table_or_none(log) -> pa.Table | None:
    batches = [chunk.records for chunk in log.chunks()]
    return pa.Table.from_batches(batches) if batches else None


def test_a_day_knows_only_what_had_come_and_late_labels_are_the_rest(small):
    log = SimulatedLog(SMALL)
    truth = {row["impression"]: row["conversion_time"] for row in small.to_pylist() if row["conversion"]}
    found = {}
    for day in range(SMALL.days):
        end = log.end_of(day)
        today = table(log.day(day))
        assert ((column(today, "time") >= end - DAY) & (column(today, "time") < end)).all()
        at_once = {row["impression"]: row["conversion_time"] for row in today.to_pylist() if row["conversion"]}
        late = table(log.late_labels(day)).to_pylist()
        assert late and at_once
        assert all(time < end for time in at_once.values()) and all(row["time"] >= end for row in late)
        assert {(row["task"], row["label"]) for row in late} == {("conversion", 1)}
        found |= at_once | {row["impression"]: row["time"] for row in late}
        of_day = small.filter(pa.array((column(small, "time") >= end - DAY) & (column(small, "time") < end)))
        for name in set(small.column_names) - {"conversion", "conversion_time"}:
            assert today[name].equals(of_day[name]), name
    assert found == truth


def test_conversions_follow_clicks_within_the_window(small):
    converted = small.filter(pa.array(column(small, "conversion") == 1))
    assert converted.num_rows > 100 and column(converted, "click").all()
    delay = column(converted, "conversion_time") - column(converted, "time")
    assert delay.min() > 0 and delay.max() <= SMALL.attribution_window
    scale, within = SMALL.mean_delay, SMALL.attribution_window / SMALL.mean_delay
    expected = scale * (1 - within * np.exp(-within) / (1 - np.exp(-within)))  # mean of a cut exponential
    assert abs(delay.mean() - expected) < 5 * scale / np.sqrt(len(delay))


def test_labels_are_draws_of_the_true_probabilities():
    rows = table(SimulatedLog(replace(SMALL, rows=200_000)))
    for label in ("click", "conversion"):
        p, y = column(rows, f"p_{label}"), column(rows, label).astype(float)
        slices = {f"decile {d}": part for d, part in enumerate(np.array_split(np.argsort(p, kind="stable"), 10))}
        slices |= {f"slot {s}": np.flatnonzero(column(rows, "position") == s) for s in range(3)}
        for name, index in slices.items():
            spread = np.sqrt((p[index] * (1 - p[index])).sum())
            assert abs((y[index] - p[index]).sum()) < 4.5 * spread, (label, name)


def test_propensities_are_the_frequencies_of_the_policy():
    config = replace(SMALL, rows=150_000, ads=30, days=1, new_keys_per_day=0.0)
    rows = table(SimulatedLog(config))
    keys = list(zip(rows["segment"].to_pylist(), rows["position"].to_pylist(), rows["ad"].to_pylist(), strict=True))
    cells, index, count = np.unique(np.array(keys), axis=0, return_inverse=True, return_counts=True)
    propensity = np.zeros(len(cells))
    propensity[index.ravel()] = column(rows, "propensity")
    assert np.array_equal(propensity[index.ravel()], column(rows, "propensity"))
    shown = {}
    for (segment, slot, _), p, n in zip(cells.tolist(), propensity, count, strict=True):
        total = shown.setdefault((segment, slot), [0.0, 0])
        total[0] += p
        total[1] += n
    assert len(cells) == SEGMENTS * 3 * 30  # every ad in every slot, thanks to exploring
    assert all(abs(total - 1.0) < 1e-12 for total, _ in shown.values())
    trials = np.array([shown[segment, slot][1] for segment, slot, _ in cells.tolist()])
    z = (count - trials * propensity) / np.sqrt(trials * propensity * (1 - propensity))
    assert np.abs(z).max() < 5 and 0.9 < z.std() < 1.1
    assert abs(column(rows, "explored").mean() - config.explore) < 0.005


def test_new_keys_come_every_day_and_none_without_growth():
    log = SimulatedLog(replace(SMALL, rows=40_000, new_keys_per_day=0.3))
    for name in ("user", "ad"):
        seen: set = set()
        new = []
        for day in range(SMALL.days):
            today = set(table(log.day(day))[name].to_pylist())
            new.append(len(today - seen))
            seen |= today
        assert all(count > 30 for count in new[1:]), (name, new)
    still = SimulatedLog(replace(SMALL, rows=40_000, new_keys_per_day=0.0))
    assert len(set(table(still)["user"].to_pylist())) <= SMALL.users
    assert len(set(table(still)["ad"].to_pylist())) <= SMALL.ads


def test_lower_slots_are_looked_at_less_and_else_like_the_first():
    log = SimulatedLog(replace(SMALL, rows=120_000))
    rows = table(log)
    slot, look = column(rows, "position"), column(rows, "p_look")
    assert np.array_equal(look, 1.0 / (1.0 + 0.35 * slot))
    assert_slots_are_alike(column(rows, "p_click") / look, slot)
    unbiased = table(SimulatedLog(replace(log.config, click=replace(SMALL.click, position=0.0))))
    assert (column(unbiased, "p_look") == 1.0).all()
    assert_slots_are_alike(column(unbiased, "p_click"), column(unbiased, "position"))
    assert_slots_are_alike(column(unbiased, "click").astype(float), column(unbiased, "position"))


def assert_slots_are_alike(values: np.ndarray, slot: np.ndarray) -> None:
    """The turn of ad classes is drawn anew in every request, so that no slot has the better ads."""
    for other in (1, 2):
        one, two = values[slot == 0], values[slot == other]
        assert abs(one.mean() - two.mean()) < 4.5 * np.sqrt(one.var() / len(one) + two.var() / len(two))


def test_features_have_what_features_of_logs_have(small):
    assert 0.05 < small["age"].null_count / small.num_rows < 0.3
    assert small["price"].null_count and small["match"].null_count
    lengths = [len(values) for values in small["interests"].to_pylist()]
    assert lengths == [len(values) for values in small["interest_weights"].to_pylist()]
    assert set(lengths) == {0, 1, 2, 3, 4}
    for row in small.slice(0, 500).to_pylist():
        own = zip(row["interests"], row["interest_weights"], strict=True)
        match = sum(weight for interest, weight in own if interest == row["category"])
        assert row["match"] == (pytest.approx(match, abs=1e-6) if row["interests"] else None)


def test_random_numbers_are_functions_of_their_index():
    index = np.arange(100_000)
    draws = uniform(7, "a", index)
    assert np.array_equal(draws[::-7], uniform(7, "a", index[::-7]))
    assert draws.min() > 0 and draws.max() < 1
    for other in (uniform(7, "b", index), uniform(8, "a", index), uniform(7, "a", index + 1)):
        assert abs(np.corrcoef(draws, other)[0, 1]) < 0.02
    assert np.abs(np.histogram(draws, 100, (0, 1))[0] - 1000).max() < 160
    z = normal(7, "a", index)
    assert abs(z.mean()) < 0.02 and abs(z.std() - 1) < 0.02 and abs((z**4).mean() - 3) < 0.15
    assert len(np.unique(bits(0, "user key", index))) == len(index)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"rows": 0}, "rows >= 1, got 0"),
        ({"campaigns": 21}, r"multiple of categories \(5\), got 21"),
        ({"ads": 14}, "ads >= slots x categories = 15, got 14"),
        ({"ads": 119, "auction": Auction(bidders=40)}, "ads >= slots x bidders = 120, got 119"),
        ({"explore": 1.5}, r"explore in \[0, 1\], got 1.5"),
        ({"task_conflict": -0.1}, r"task_conflict in \[0, 1\], got -0.1"),
        ({"scenarios": 0}, "scenarios >= 1, got 0"),
        ({"vector_noise": -1.0}, "vector_noise >= 0, got -1.0"),
    ],
)
def test_a_world_that_cannot_be_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        replace(SMALL, **wrong)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: Effects(gated=-1.0), "effect gated >= 0 .* got -1.0"),
        (lambda: Effects(fm=float("nan")), "effect fm >= 0 .* got nan"),
        (lambda: Auction(bidders=1), "2 or more bidders, or 0 for no auction, got 1"),
        (lambda: Auction(bidders=3, settle_requests=0), "settle_requests >= 1, got 0"),
        (lambda: Auction(bidders=3, budget=-1.0), "budget >= 0, got 0.5 and -1.0"),
        (lambda: Auction(budget=2.0), r"bidders where campaigns have budgets \(2.0\)"),
    ],
)
def test_effects_and_auctions_that_cannot_be_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        wrong()


def test_a_task_that_has_no_contributions_is_named():
    with pytest.raises(ValueError, match="'click' or 'conversion', got 'like'"):
        next(SimulatedLog(SMALL).contributions("like"))


def test_the_sum_of_the_contributions_is_the_true_logit(small):
    log = SimulatedLog(SMALL)
    for task, of in (("click", column(small, "p_look")), ("conversion", column(small, "p_click"))):
        parts = pa.concat_tables([pa.table(part) for part in log.contributions(task)])
        effects = getattr(SMALL, task)
        planted = sum(getattr(effects, name) * column(parts, name) for name in parts.column_names)
        logit = getattr(SMALL, f"{task}_logit") + planted
        assert np.allclose(column(small, f"p_{task}"), of * sigmoid(logit), atol=1e-6)


def test_without_a_funnel_conversions_need_no_click():
    log = SimulatedLog(replace(SMALL, funnel=False, rows=60_000))
    rows = table(log)
    click, converted = column(rows, "click") == 1, column(rows, "conversion") == 1
    assert log.schema.tasks[1].parent == "" and SimulatedLog(SMALL).schema.tasks[1].parent == "click"
    p = column(rows, "p_conversion")
    for part in (click, ~click):  # given all that is planted, the two are independent
        spread = np.sqrt((p[part] * (1 - p[part])).sum())
        assert abs(converted[part].sum() - p[part].sum()) < 4.5 * spread


def test_scenarios_vectors_and_prices_are_columns_where_they_are_asked_for(small):
    config = replace(SMALL, scenarios=3, vector_dim=6, auction=Auction(bidders=4))
    log = SimulatedLog(config)
    rows = table(log)
    assert not {"scenario", "vector", "paid"} & set(small.column_names)
    assert (log.schema.roles.scenario, log.schema.roles.price) == ("scenario", "paid")
    assert rows["vector"].type == pa.list_(pa.float32(), 6) and rows["vector"].null_count == 0
    assert set(rows["scenario"].to_pylist()) == {"scenario-0000", "scenario-0001", "scenario-0002"}
    for chunk in log.chunks():
        assert normalise(log.schema, chunk.records, Origin(chunk.file, chunk.first_row)).num_rows == len(chunk.records)


def test_a_day_that_is_none_is_refused():
    with pytest.raises(ValueError, match="Expected a day in 0 … 3, got 4"):
        SimulatedLog(SMALL).day(4)
