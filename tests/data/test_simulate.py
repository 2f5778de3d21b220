from dataclasses import replace
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fullrank.data.normalise import Origin, normalise
from fullrank.data.readers.tabular import columns_read
from fullrank.data.simulate import DAY, SimulatedLog, SimulatorConfig
from fullrank.data.simulate_world import SEGMENTS, World, bits, normal, uniform
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


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 300), st.integers(1, 5), st.integers(1, 4))
def test_days_together_are_the_log_for_any_size(rows, days, slots):
    config = replace(SMALL, rows=rows, days=days, slots=slots, sorted_by_time=False)
    parts = [table_or_none(SimulatedLog(config, day)) for day in range(days)]
    impressions = [i for part in parts if part is not None for i in part["impression"].to_pylist()]
    assert sorted(impressions) == list(range(rows))
    assert sorted(table(SimulatedLog(config))["impression"].to_pylist()) == list(range(rows))


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
    config = replace(SMALL, rows=300_000, ads=30, days=1, new_keys_per_day=0.0)
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


def test_taste_turns_with_drift_and_keeps_its_spread():
    world = World(seed=3, slots=2, campaigns=200, categories=200, drift=0.2, explore=0.1)
    segment, category = np.divmod(np.arange(SEGMENTS * 200), 200)
    taste = [world.taste("click", np.full(len(segment), day), segment, category) for day in range(8)]
    against_first = [np.corrcoef(taste[0], later)[0, 1] for later in taste]
    assert np.allclose(against_first, np.cos(0.2 * np.arange(8)), atol=0.08)
    assert all(abs(part.std() - 1) < 0.1 for part in taste)
    still = replace(world, drift=0.0)
    assert np.array_equal(still.taste("click", np.full(len(segment), 7), segment, category), taste[0])


def test_lower_slots_are_clicked_less(small):
    by_slot = [column(small, "p_click")[column(small, "position") == slot].mean() for slot in range(3)]
    assert by_slot[1] / by_slot[0] == pytest.approx(1 / 1.35, rel=0.1)
    assert by_slot[2] / by_slot[0] == pytest.approx(1 / 1.7, rel=0.1)


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
        ({"explore": 1.5}, r"explore in \[0, 1\]"),
    ],
)
def test_a_world_that_cannot_be_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        replace(SMALL, **wrong)


def test_a_day_that_is_none_is_refused():
    with pytest.raises(ValueError, match="Expected a day in 0 … 3, got 4"):
        SimulatedLog(SMALL).day(4)
