"""Counting keys: against a plain dictionary, whatever the order, the cuts and the budget."""

from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fullrank.data.key_counter import NO_TIME, Counts, KeyCounter
from fullrank.data.keys import code_of_key, codes_of_array
from fullrank.kernels.bodies import Bodies, bodies

rows = st.lists(st.tuples(st.one_of(st.none(), st.sampled_from("abcdefgh"), st.integers(0, 30)), st.integers(0, 99)))
chunks = st.lists(rows, max_size=6)


def as_texts(chunk: list[tuple]) -> pa.Array:
    return pa.array([None if key is None else str(key) for key, _ in chunk], pa.string())


def assert_counts(counts: Counts, expected: dict[str, tuple[int, int]]) -> None:
    ordered = sorted(expected, key=code_of_key)
    assert counts.codes.dtype == np.uint64 and counts.counts.dtype == counts.last_seen.dtype == np.int64
    assert counts.codes.tolist() == [code_of_key(key) for key in ordered]
    assert counts.texts.to_pylist() == ordered
    assert counts.counts.tolist() == [expected[key][0] for key in ordered]
    assert counts.last_seen.tolist() == [expected[key][1] for key in ordered]


@settings(max_examples=60, deadline=None)
@given(chunks, st.integers(1, 40), st.booleans(), st.randoms(use_true_random=False))
def test_agrees_with_a_dictionary(chunks: list, budget: int, timed: bool, random) -> None:
    total, last = Counter(), {}
    for key, time in (row for chunk in chunks for row in chunk if row[0] is not None):
        total[str(key)] += 1
        last[str(key)] = max(last.get(str(key), NO_TIME), time) if timed else NO_TIME
    shuffled = random.sample(chunks, len(chunks))
    with TemporaryDirectory() as folder:
        counter = KeyCounter(Path(folder) / "spill", budget)
        for chunk in shuffled:
            times = np.array([time for _, time in chunk], dtype=np.int64) if timed else None
            counter.add(codes_of_array(as_texts(chunk)), times=times)
        assert_counts(counter.finish(), {key: (total[key], last[key]) for key in total})
        assert not list(Path(folder).rglob("*.arrow"))
        assert len(counter.finish()) == 0


@settings(max_examples=30, deadline=None)
@given(chunks, st.integers(1, 20), st.randoms(use_true_random=False))
def test_a_selection_of_rows(chunks: list, budget: int, random) -> None:
    total, last = Counter(), {}
    with TemporaryDirectory() as folder:
        counter = KeyCounter(Path(folder), budget)
        for chunk in chunks:
            keys = codes_of_array(as_texts(chunk))
            kept = [row for row in range(len(chunk)) if random.random() < 0.5]
            for key, time in (chunk[row] for row in kept):
                if key is not None:
                    total[str(key)] += 1
                    last[str(key)] = max(last.get(str(key), NO_TIME), time)
            index = np.array(kept, dtype=np.int64)
            counter.add(keys, keys.codes[index], np.array([chunk[row][1] for row in kept], dtype=np.int64))
        assert_counts(counter.finish(), {key: (total[key], last[key]) for key in total})


def test_it_spills_and_two_counters_share_a_folder(tmp_path: Path) -> None:
    first, second = KeyCounter(tmp_path, 100), KeyCounter(tmp_path, 100)
    values = np.random.default_rng(0).integers(0, 500, 4000)
    for start in range(0, 4000, 200):
        first.add(codes_of_array(pa.array(values[start : start + 200])))
        second.add(codes_of_array(pa.array(values[start : start + 200] + 1000)))
    assert len(list(tmp_path.glob("*.arrow"))) > 10
    expected = Counter(values.tolist())
    assert_counts(first.finish(), {str(key): (count, NO_TIME) for key, count in expected.items()})
    assert_counts(second.finish(), {str(key + 1000): (count, NO_TIME) for key, count in expected.items()})
    assert not list(tmp_path.iterdir())


def test_few_keys_stay_in_memory(tmp_path: Path) -> None:
    counter = KeyCounter(tmp_path / "never", 50)
    for _ in range(100):
        counter.add(codes_of_array(pa.array(np.arange(20))))
    assert counter.finish().counts.tolist() == [100] * 20
    assert not (tmp_path / "never").exists()


def test_a_selected_code_that_is_not_in_the_keys_is_an_error(tmp_path: Path) -> None:
    keys = codes_of_array(pa.array([1, 2]))
    with pytest.raises(ValueError, match="Expected selected codes that occur in the keys, got 0x"):
        KeyCounter(tmp_path).add(keys, np.array([code_of_key(3)], dtype=np.uint64))


@pytest.mark.parametrize("which", ["reference", "compiled"])
@pytest.mark.parametrize("budget", [10_000, 300])
def test_keys_that_come_too_seldom_are_left_out_whatever_runs(which: Bodies, budget: int, tmp_path: Path) -> None:
    values = np.random.default_rng(1).integers(0, 800, 3000)
    counter = KeyCounter(tmp_path, budget)
    with bodies(which):
        for start in range(0, 3000, 300):
            counter.add(codes_of_array(pa.array([f"k{value}" for value in values[start : start + 300]])))
        counts = counter.finish(least=4)
    expected = {f"k{value}": (times, NO_TIME) for value, times in Counter(values.tolist()).items() if times >= 4}
    assert 0 < len(expected) < 800
    assert_counts(counts, expected)
