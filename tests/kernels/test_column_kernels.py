"""Records of columns and spans of a column, by both bodies against loops over single values."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fullrank.kernels.bodies import bodies
from fullrank.kernels.records import scatter
from fullrank.kernels.spans import copy_spans

BODIES = pytest.mark.parametrize("which", ["reference", "compiled"])
DTYPES = {"code": np.uint64, "ids": np.int32, "numbers": np.float32, "known": np.bool_}


def columns_of(widths: dict[str, int], n: int, random: np.random.Generator):
    """Random bits of every type, and records of zeros that have a place for them."""
    columns = []
    for name, width in widths.items():
        for at in range(width):
            bits = random.integers(0, 256, n * np.dtype(DTYPES[name]).itemsize, dtype=np.uint8)
            values = bits.view(DTYPES[name]) if name != "known" else bits % 2 == 0
            columns.append((np.nan_to_num(values) if name == "numbers" else values, name, at))
    dtype = np.dtype([(name, DTYPES[name], (width,)) for name, width in widths.items() if width], align=True)
    return columns, dtype


@BODIES
@settings(max_examples=40)
@given(
    n=st.sampled_from([0, 1, 5, 127, 128, 129, 1100]),
    widths=st.fixed_dictionaries({name: st.integers(0, 3) for name in DTYPES}),
    seed=st.integers(0, 9),
    kept=st.sampled_from([0.0, 0.5, 1.0]),
)
def test_every_value_stands_in_the_record_of_its_owner(which, n, widths, seed, kept):
    random = np.random.default_rng(seed)
    columns, dtype = columns_of(widths, n, random)
    records = np.zeros(n + 3, dtype=dtype)
    place_n = np.where(random.random(n) < kept, random.permutation(n + 3)[:n], -1).astype(np.int32)
    with bodies(which):
        scatter(columns, place_n, records)
    expected = np.zeros(n + 3, dtype=dtype)
    for values, name, at in columns:
        for i, to in enumerate(place_n.tolist()):
            if to >= 0:
                expected[name][to, at] = values[i]
    assert all((records[name] == expected[name]).all() for name in dtype.names or ())


@BODIES
def test_as_they_stand_records_lie_in_a_slice_and_nothing_else_is_touched(which):
    columns, dtype = columns_of({"code": 1, "ids": 2, "known": 1}, 300, np.random.default_rng(0))
    records = np.zeros(400, dtype=dtype)
    with bodies(which):
        scatter(columns, slice(50, 350), records)
    assert (records["ids"][50:350, 1] == columns[2][0]).all() and (records["code"][50:350, 0] == columns[0][0]).all()
    assert not records[:50]["ids"].any() and not records[350:]["ids"].any()


@BODIES
@settings(max_examples=40)
@given(
    lengths=st.lists(st.integers(0, 6), max_size=300),
    stored=st.sampled_from([np.int32, np.int64, np.float32]),
    given_as=st.sampled_from([np.int64, np.float32]),
    outcome=st.booleans(),
    seed=st.integers(0, 9),
)
def test_spans_follow_each_other_where_they_are_asked_for(which, lengths, stored, given_as, outcome, seed):
    random = np.random.default_rng(seed)
    length_R = np.array(lengths, dtype=np.int64)
    values, known_at = random.integers(0, 100, 50).astype(stored), random.integers(0, 10, 50)
    start_R, before_R = random.integers(0, 44, len(lengths)), random.integers(0, 10, len(lengths))
    to_R = 2 + np.cumsum(length_R) - length_R
    outcome = outcome and given_as is np.float32
    told = {"known_at": known_at, "before_R": before_R} if outcome else {}
    out = np.full((int(length_R.sum()) + 4, 3), 7, dtype=given_as)
    with bodies(which):
        copy_spans(values, start_R, to_R, length_R, out[:, 1], **told)
    expected = np.full_like(out, 7)
    for r, length in enumerate(lengths):
        for i in range(length):
            known = not outcome or known_at[start_R[r] + i] < before_R[r]
            expected[to_R[r] + i, 1] = values[start_R[r] + i] if known else np.nan
    np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize("threads", [1, 2])
def test_the_number_of_threads_changes_no_bit(threads, monkeypatch):
    import torch

    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    columns, dtype = columns_of({"ids": 3, "numbers": 1}, 20_000, np.random.default_rng(1))
    place_n = np.random.default_rng(2).permutation(20_000).astype(np.int32)
    mine, theirs = np.zeros(20_000, dtype=dtype), np.zeros(20_000, dtype=dtype)
    with bodies("compiled"):
        scatter(columns, place_n, mine)
    with bodies("reference"):
        scatter(columns, place_n, theirs)
    assert mine.tobytes() == theirs.tobytes()
