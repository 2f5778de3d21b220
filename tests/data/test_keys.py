"""Keys and codes: what is one key, what is an error, and constants that may never change."""

import hashlib

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fullrank.data import keys
from fullrank.data.keys import (
    BadKey,
    Keys,
    bucket,
    canonical_text,
    code_of_key,
    codes_of_array,
    read_hash_key,
)

SECRET = b"0123456789abcdef"
INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1
MASK = 2**64 - 1


def oracle(key: int | str, secret: bytes | None = None) -> int:
    """The definition, in plain Python integers."""
    text = str(key)
    if text == "":
        return 0
    if secret:
        digest = hashlib.blake2b(text.encode(), digest_size=8, key=secret).digest()
        text = str(int.from_bytes(digest, "little", signed=True))
    try:
        number = int(text)
    except ValueError:
        number = None
    if number is not None and str(number) == text and INT64_MIN <= number <= INT64_MAX:
        z = (number + 0x9E3779B97F4A7C15) & MASK
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
        return z ^ (z >> 31) or 1
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") or 1


@pytest.mark.parametrize(
    ("key", "code"),
    [
        (0, 0xE220A8397B1DCDAF),
        (1, 0x910A2DEC89025CC1),
        (-1, 0xE4D971771B652C20),
        (INT64_MAX, 0x2A67D7552E039EA7),
        (INT64_MIN, 0x481EC0A212A9F3DB),
        (2**63, 0xC26CE80D029A408A),
        ("a", 0x2F42665B399EF840),
        ("007", 0xBD81ECFC21802A49),
        ("é", 0x2F19F3EF8BBF1ACB),
    ],
)
def test_codes_never_change(key: int | str, code: int) -> None:
    assert code_of_key(key) == code
    assert codes_of_array(pa.array([str(key)])).codes.tolist() == [code]


def test_hashed_codes_never_change() -> None:
    assert code_of_key("user-1", SECRET) == 0x4EF6B49BA805CC25
    assert code_of_key(1, SECRET) == 0x4B17BD1531F263C3
    codes = np.array([1, 2, 0xE220A8397B1DCDAF], dtype=np.uint64)
    assert [bucket(codes, 1000, which).tolist() for which in (0, 1)] == [[465, 110, 55], [418, 217, 612]]


@pytest.mark.parametrize(
    "array",
    [
        pa.array([1, 0, None], pa.int8()),
        pa.array([1, 0, None], pa.uint64()),
        pa.array([1, 0, None], pa.int64()),
        pa.array([True, False, None]),
        pa.array([1.0, 0.0, float("nan")]),
        pa.array([1.0, -0.0, None], pa.float32()),
        pa.array(["1", "0", None]),
        pa.array(["1", "0", ""], pa.large_string()),
        pa.array(["1", "0", ""], pa.string_view()),
        pa.array(["1", "0", None]).dictionary_encode(),
        pa.array([1, 0, None]).dictionary_encode(),
        pa.array([1.0, 0.0, None]).dictionary_encode(),
        pa.array([7, 1, 0, None, 9])[1:4],
        pa.array(["7", "1", "0", None])[1:],
        pa.chunked_array([pa.array(["1"]), pa.array([], pa.string()), pa.array(["0", None])]),
        pa.chunked_array([pa.array(["1"]).dictionary_encode(), pa.array(["0", None]).dictionary_encode()]),
    ],
    ids=lambda array: str(array.type)[:24],
)
@pytest.mark.parametrize("secret", [None, SECRET], ids=["open", "secret"])
def test_one_key_whatever_the_type(array: pa.Array, secret: bytes | None) -> None:
    got = codes_of_array(array, secret)
    one, zero = oracle(1, secret), oracle(0, secret)
    assert got.codes.dtype == np.uint64
    assert got.codes.tolist() == [one, zero, 0]
    assert got.unique_codes.tolist() == sorted([one, zero])
    assert got.unique_texts.type == pa.large_string()
    if secret is None:
        assert got.unique_texts.to_pylist() == [t for _, t in sorted([(one, "1"), (zero, "0")])]
    else:
        assert not {"0", "1"} & set(got.unique_texts.to_pylist())


def test_texts_that_look_like_numbers_are_keys_of_their_own() -> None:
    texts = ["1", "007", "1 ", " 1", "+1", "-0", "1e3", "1000", "1.0", "1\n", "१", "é", "e\u0301", "\0", "NaN", "null"]
    got = codes_of_array(pa.array(texts))
    assert len(set(got.codes.tolist())) == len(texts)
    assert got.codes.tolist() == [oracle(text) for text in texts]
    assert sorted(got.unique_texts.to_pylist()) == sorted(texts)


def text_hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def test_extremes_of_64_bits() -> None:
    signed = [INT64_MIN, INT64_MIN + 1, -1, 0, INT64_MAX]
    as_text = codes_of_array(pa.array([str(value) for value in signed]))
    as_number = codes_of_array(pa.array(signed, pa.int64()))
    assert as_text.codes.tolist() == as_number.codes.tolist() == [oracle(value) for value in signed]
    over = [INT64_MAX, INT64_MAX + 1, 2**64 - 1, 5]
    unsigned = codes_of_array(pa.array(over, pa.uint64()))
    assert unsigned.codes.tolist() == codes_of_array(pa.array([str(v) for v in over])).codes.tolist()
    assert unsigned.codes.tolist() == [oracle(value) for value in over]
    outside = ["-9223372036854775809", "9223372036854775808", "99999999999999999999", "1" * 5000]
    assert codes_of_array(pa.array(outside)).codes.tolist() == [text_hash(text) for text in outside]
    assert [code_of_key(text) for text in outside] == [text_hash(text) for text in outside]


def test_no_key_has_the_code_of_missing() -> None:
    mixes_to_zero = INT64_MAX + 1 - (0x9E3779B97F4A7C15 - 2**63)  # -golden, modulo 2^64
    got = codes_of_array(pa.array([mixes_to_zero, 5, None, mixes_to_zero]))
    assert got.codes.tolist() == [1, oracle(5), 0, 1]
    assert got.unique_codes.tolist() == [1, oracle(5)]
    assert got.unique_texts.to_pylist() == [str(mixes_to_zero), "5"]
    assert code_of_key(mixes_to_zero) == 1


@pytest.mark.parametrize("dictionary", [False, True])
def test_a_float_that_is_no_integer_is_an_error(dictionary: bool) -> None:
    array = pa.array([1.0, None, 1.5, 2.5])
    array = array.dictionary_encode() if dictionary else array
    with pytest.raises(
        BadKey, match=r"Expected an integer, a text or an integral float as key, got 1\.5 at row 2\."
    ) as info:
        codes_of_array(array)
    assert (info.value.row, info.value.value) == (2, 1.5)
    with pytest.raises(BadKey, match=r"got 1\.5"):
        code_of_key(1.5)


@pytest.mark.parametrize(
    ("array", "value", "message"),
    [
        (pa.array([0.0, 2.0**53]), 2.0**53, "double key below 9007199254740992"),
        (pa.array([0.0, -(2.0**24)], pa.float32()), -(2.0**24), "float key below 16777216"),
        (pa.array([0.0, float("inf")]), float("inf"), "got inf at row 1"),
    ],
)
def test_a_float_that_lost_its_last_digit_is_an_error(array: pa.Array, value: float, message: str) -> None:
    with pytest.raises(BadKey, match=message) as info:
        codes_of_array(array)
    assert (info.value.row, info.value.value) == (1, value)


@pytest.mark.parametrize(
    "kind", [pa.binary(), pa.timestamp("s"), pa.list_(pa.int64()), pa.dictionary(pa.int8(), pa.binary())]
)
def test_other_types_are_errors(kind: pa.DataType) -> None:
    with pytest.raises(
        BadKey, match=r"a column of integers, texts or integral floats as keys, got '(binary|timestamp|list)"
    ):
        codes_of_array(pa.array([], kind))


def test_a_shared_dictionary_gives_only_what_is_used() -> None:
    array = pa.DictionaryArray.from_arrays(pa.array([2, None, 2, 3], pa.int8()), pa.array(["x", "y", "z", None, "z"]))
    got = codes_of_array(array)
    assert got.codes.tolist() == [oracle("z"), 0, oracle("z"), 0]
    assert got.unique_texts.to_pylist() == ["z"]
    floats = pa.DictionaryArray.from_arrays(pa.array([1], pa.int8()), pa.array([1.5, 2.0]))
    assert codes_of_array(floats).unique_texts.to_pylist() == ["2"]


@pytest.mark.parametrize(
    "kind", [pa.null(), pa.int64(), pa.string(), pa.float64(), pa.dictionary(pa.int32(), pa.string())]
)
def test_columns_without_a_key(kind: pa.DataType) -> None:
    for count in (0, 3):
        got = codes_of_array(pa.array([None] * count, kind))
        assert got.codes.tolist() == [0] * count
        assert len(got.unique_codes) == len(got.unique_texts) == 0


any_key = st.one_of(
    st.integers(INT64_MIN, 2**64 - 1),
    st.integers(-20, 20),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=4),
    st.from_regex(r"-?[0-9]{1,20}", fullmatch=True).filter(str.isascii),
)


@given(st.lists(any_key, max_size=20), st.sampled_from([None, SECRET]))
def test_arrays_agree_with_single_keys_and_the_definition(many: list[int | str], secret: bytes | None) -> None:
    texts = [canonical_text(key) for key in many]
    got = codes_of_array(pa.array(texts, pa.string()), secret)
    assert got.codes.tolist() == [code_of_key(key, secret) for key in many]
    assert got.codes.tolist() == [oracle(key, secret) for key in many]
    assert got.unique_codes.tolist() == sorted({code for code in got.codes.tolist() if code})
    if secret is None:
        assert set(got.unique_texts.to_pylist()) == {text for text in texts if text}
        assert [code_of_key(text) for text in got.unique_texts.to_pylist()] == got.unique_codes.tolist()


@given(st.lists(st.one_of(st.none(), st.integers(INT64_MIN, INT64_MAX), st.integers(-3, 3)), max_size=20))
def test_numbers_agree_with_texts(many: list[int | None]) -> None:
    number = codes_of_array(pa.array(many, pa.int64()))
    text = codes_of_array(pa.array([None if key is None else str(key) for key in many], pa.string()))
    assert number.codes.tolist() == text.codes.tolist()
    assert number.unique_codes.tolist() == text.unique_codes.tolist()
    assert number.unique_texts.equals(text.unique_texts)


@given(st.lists(st.integers(0, MASK), max_size=20))
def test_the_mix_is_a_bijection(many: list[int]) -> None:
    values = np.array(many, dtype=np.uint64)
    assert keys.inverse_splitmix64(keys.splitmix64(values)).tolist() == many


def test_buckets_spread_and_hash_functions_differ() -> None:
    codes = codes_of_array(pa.array(np.arange(20_000))).codes
    rows = [bucket(codes, 100, which) for which in range(3)]
    for row in rows:
        assert row.dtype == np.int32
        counts = np.bincount(row, minlength=100)
        assert len(counts) == 100 and ((counts - 200) ** 2 / 200).sum() < 160  # chi-square, 99 degrees: p < 1e-4
    assert abs((rows[0] == rows[1]).mean() - 0.01) < 0.005
    assert abs((rows[1] == rows[2]).mean() - 0.01) < 0.005


def test_the_hash_key_file(tmp_path) -> None:
    path = tmp_path / "secret"
    with pytest.raises(ValueError, match=r"Expected a file of 16 to 64 random bytes at .*secret, found none"):
        read_hash_key(path)
    path.write_bytes(b"x" * 16 + b"\n")
    assert read_hash_key(path) == b"x" * 16
    for size in (15, 65):
        path.write_bytes(b"y" * size)
        with pytest.raises(ValueError, match=rf"Expected 16 to 64 bytes in hash key file .*secret, got {size}") as info:
            read_hash_key(path)
        assert "yyy" not in str(info.value)


def test_another_secret_gives_other_keys_and_hides_the_text() -> None:
    array = pa.array(["ann", "bob"])
    first, second = codes_of_array(array, SECRET), codes_of_array(array, SECRET[::-1])
    assert not set(first.codes.tolist()) & set(second.codes.tolist())
    assert all(text.lstrip("-").isdigit() for text in first.unique_texts.to_pylist())
    # What is stored is a key itself: its text leads back to the same code.
    assert [code_of_key(text) for text in first.unique_texts.to_pylist()] == first.unique_codes.tolist()


def test_rows_chosen_from_a_column_have_their_own_distinct_keys() -> None:
    whole = codes_of_array(pa.array(["a", "b", None, "c", "b"]))
    some = Keys(whole.codes[[2, 4, 3, 4]], whole.entries)
    assert sorted(some.unique_texts.to_pylist()) == ["b", "c"]
    assert [code_of_key(text) for text in some.unique_texts.to_pylist()] == some.unique_codes.tolist()
