"""Distinct texts, canonical decimals and BLAKE2b, by both bodies against plain Python."""

from __future__ import annotations

import hashlib

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fullrank.kernels.bodies import bodies
from fullrank.kernels.texts import blake2b_8, distinct, integers

BODIES = pytest.mark.parametrize("which", ["reference", "compiled"])
text = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=10),
    st.text("ab\0", min_size=6, max_size=18),
    st.from_regex(r"-?[0-9]{1,20}", fullmatch=True).filter(str.isascii),
    st.sampled_from([0, 1, 7, 8, 9, 127, 128, 129, 255, 256, 257, 300]).flatmap(
        lambda length: st.sampled_from("xyé").map(lambda letter: letter * length)
    ),
)
texts = st.lists(st.one_of(st.none(), text), max_size=40)
column = st.tuples(texts, st.integers(0, 3), st.integers(0, 3))


def sliced(many: list[str | None], before: int, after: int) -> pa.Array:
    """The texts in the middle of a longer array, whose bytes begin elsewhere."""
    whole = pa.array([*["before"] * before, *many, *["after"] * after], pa.large_string())
    return whole.slice(before, len(many))


@BODIES
@settings(max_examples=60, deadline=None)
@given(column=column)
@example(column=(["a", "a\0", "", None, "\0", "", "a"], 1, 1))
def test_a_text_is_itself_and_no_other(which, column):
    with bodies(which):
        index_n, texts_U = distinct(sliced(*column))
    many = column[0]
    assert texts_U.to_pylist() == list(dict.fromkeys(text for text in many if text is not None))
    assert index_n.dtype == np.int32 and texts_U.type == pa.large_string()
    assert [None if at < 0 else texts_U[at].as_py() for at in index_n.tolist()] == many


def test_a_table_grows_and_long_texts_that_begin_alike_stay_apart():
    many = [f"{'same' * 4}{number % 5000}" for number in range(12_000)]
    with bodies("compiled"):
        index_n, texts_U = distinct(pa.array(many, pa.large_string()))
    assert texts_U.to_pylist() == many[:5000]
    assert index_n.tolist() == [number % 5000 for number in range(12_000)]


EDGES = ["0", "-0", "00", "-", "", "+1", "1 ", "/", ":", "1:", "9223372036854775807", "9223372036854775808"]
EDGES += ["-9223372036854775808", "-9223372036854775809", "99999999999999999999", "9999999999999999999", "-1", "१"]


@BODIES
@settings(max_examples=60, deadline=None)
@given(column=st.tuples(st.lists(text, max_size=40), st.integers(0, 3), st.integers(0, 3)))
@example(column=(EDGES, 2, 0))
def test_only_a_canonical_decimal_of_64_bits_is_an_integer(which, column):
    with bodies(which):
        is_integer_U, integer_U = integers(sliced(*column), rows=len(column[0]))
    expected = []
    for text in column[0]:
        try:
            number = int(text)
        except ValueError:
            number = None
        expected.append(number if number is not None and str(number) == text and -(2**63) <= number < 2**63 else None)
    assert is_integer_U.tolist() == [number is not None for number in expected]
    assert integer_U.tolist() == [number or 0 for number in expected]


@BODIES
@settings(max_examples=60, deadline=None)
@given(
    column=st.tuples(st.lists(text, max_size=40), st.integers(0, 3), st.integers(0, 3)),
    key=st.one_of(st.just(b""), st.binary(min_size=16, max_size=64)),
)
@example(column=(["é" * length for length in (0, 1, 63, 64, 65, 127, 128, 129, 300)], 1, 2), key=b"")
@example(column=(["x" * length for length in (0, 1, 127, 128, 129, 256, 257, 300)], 0, 0), key=b"k" * 16)
@example(column=(["x" * length for length in (0, 1, 127, 128, 129, 256, 257, 300)], 0, 0), key=b"k" * 64)
def test_a_digest_is_that_of_the_standard_library(which, column, key):
    with bodies(which):
        got = blake2b_8(sliced(*column), key, rows=len(column[0]))
    expected = [hashlib.blake2b(text.encode(), digest_size=8, key=key).digest() for text in column[0]]
    assert got.dtype == np.uint64
    assert got.tolist() == [int.from_bytes(digest, "little") for digest in expected]


def test_every_length_up_to_three_blocks_in_company_of_others():
    random = np.random.default_rng(0)
    many = [chr(97 + length % 26) * length for length in random.permutation(400).tolist()]
    for key in (b"", b"0123456789abcdef"):
        with bodies("compiled"):
            got = blake2b_8(pa.array(many, pa.large_string()), key, rows=len(many))
        with bodies("reference"):
            assert got.tolist() == blake2b_8(pa.array(many, pa.large_string()), key, rows=len(many)).tolist()
