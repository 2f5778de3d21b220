"""Counting, finding and adding without rounding, by both bodies against plain Python."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fullrank.data.code_index import CodeIndex
from fullrank.kernels.bodies import bodies
from fullrank.kernels.codes import NEVER, count, shared_where_unknown
from fullrank.kernels.exact_sums import add_exactly

BODIES = pytest.mark.parametrize("which", ["reference", "compiled"])
LARGEST = 2**64 - 1
code = st.one_of(st.integers(0, 6), st.sampled_from([LARGEST, LARGEST - 1, 1 << 63, 1 << 32]), st.integers(0, LARGEST))
rows = st.lists(st.tuples(code, st.integers(0, 5), st.integers(-9, 9)), max_size=60)


@BODIES
@settings(max_examples=60, deadline=None)
@given(rows=rows, weighted=st.booleans(), timed=st.booleans())
def test_every_code_is_counted_in_the_order_they_come(which, rows, weighted, timed):
    codes, weights, times = (np.array([row[at] for row in rows], dtype=kind) for at, kind in enumerate("Qqq"))
    with bodies(which):
        got = count(codes, weights_n=weights if weighted else None, times_n=times if timed else None)
    expected: dict[int, list[int]] = {}
    for at, (key, weight, time) in enumerate(rows):
        if key:
            found = expected.setdefault(key, [at, 0, int(NEVER)])
            found[1] += weight if weighted else 1
            found[2] = max(found[2], time) if timed else found[2]
    assert all(part.dtype == np.int64 for part in got)
    assert np.stack(got, axis=1).tolist() == list(expected.values())


@BODIES
def test_more_codes_than_there_is_room_for_at_first(which):
    codes = np.random.default_rng(0).integers(0, LARGEST, 5000, dtype=np.uint64, endpoint=True)
    with bodies(which):
        first, counts, _ = count(np.concatenate([codes, codes[::-1], codes]))
    assert first.tolist() == list(range(5000)) and set(counts.tolist()) == {3}


@BODIES
@settings(max_examples=60, deadline=None)
@given(known=st.sets(st.one_of(code, st.integers(0, LARGEST)).filter(bool), max_size=40), asked=st.lists(code))
@example(known={LARGEST}, asked=[LARGEST, LARGEST - 1, 0])
@example(known=set(), asked=[LARGEST, 0, 1])
def test_a_code_is_found_where_it_is(which, known, asked):
    asked = [*asked, *known]
    index = CodeIndex(np.array(list(known), dtype=np.uint64), np.arange(len(known), dtype=np.int32))
    with bodies(which):
        got = index.find(np.array(asked, dtype=np.uint64))
    place = {key: at for at, key in enumerate(known)}
    assert got.dtype == np.int32
    assert got.tolist() == [place.get(key, -1) for key in asked]


@BODIES
@settings(max_examples=60, deadline=None)
@given(rows=st.lists(st.tuples(st.integers(-1, 9), code)), shared=st.integers(1, 9))
def test_an_unknown_code_has_a_shared_id(which, rows, shared):
    rows = [(found if key else -1, key) for found, key in rows]
    ids, codes = (np.array([row[at] for row in rows], dtype=kind) for at, kind in enumerate("iQ"))
    with bodies(which):
        shared_where_unknown(ids, codes, own=2 + shared, unknown=2, shared=shared, missing=1)
    expected = [(2 + shared + found if found >= 0 else 2 + key % shared) if key else 1 for found, key in rows]
    assert ids.dtype == np.int32 and ids.tolist() == expected


@BODIES
@settings(max_examples=60, deadline=None)
@given(numbers=st.lists(st.floats(width=32, allow_infinity=False), max_size=30))
@example(numbers=[0.0, -0.0, float("nan"), 2.0**-149, -(2.0**-126), 3.4028234663852886e38])
def test_sums_are_those_of_fractions(which, numbers):
    sums = np.zeros((3, 256), dtype=np.int64)
    with bodies(which):
        num = add_exactly(np.array(numbers, dtype=np.float32), sums)
    there = [Fraction(number) for number in numbers if number == number]
    unit = [Fraction(2) ** (exponent - 150) for exponent in range(256)]
    assert num == len(there) and not sums[:, 0].any()
    assert sum(int(part) * u for part, u in zip(sums[0], unit, strict=True)) == sum(there)
    squares = ((int(high) << 24) + int(low) for high, low in zip(sums[1], sums[2], strict=True))
    assert sum(part * u * u for part, u in zip(squares, unit, strict=True)) == sum(x * x for x in there)
