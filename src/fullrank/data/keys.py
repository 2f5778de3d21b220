"""From a key (what the log holds: an integer or a text) to its code (64 bits, the same everywhere and for ever).

    canonical text   an integer in decimal; a text as it is, byte for byte (no Unicode normalisation, no trimming)
    integer key      any int64, or a text that is the canonical decimal of one: 0 or -?[1-9][0-9]*
    code             splitmix64(integer) or blake2b-8(UTF-8 of the text); 0 means missing, so a key that gets 0 gets 1

So 1, "1", 1.0 and true are one key, and "007", "1 ", "+1", "-0" and "1e3" are five texts. With a hash key the canonical
text goes through keyed blake2b-8 first, and the int64 that comes out is the key: the raw key is never stored.

Two keys may share a code (about n^2 / 2^65 for n keys: 3 % for a billion); they are then one key. Our choices: false
and true are 0 and 1; an empty text is missing (CSV has no other null); a float key must lie where floats still tell
neighbouring integers apart (|x| < 2^53, float32: 2^24), since beyond it different keys have already become one.

splitmix64: Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014. BLAKE2: RFC 7693.
"""

# pyright: reportAttributeAccessIssue=false
# (pyarrow.compute makes its functions when it is imported: a type checker can't see them)
from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fullrank.kernels.texts import INTEGER, blake2b_8, distinct, integers

MISSING = np.uint64(0)
EXPECTED = "an integer, a text or an integral float as key"

_GOLDEN, _MIX_1, _MIX_2 = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
_ALL_BITS = (1 << 64) - 1
_INT64_MIN, _INT64_MAX = -(1 << 63), (1 << 63) - 1
_CANONICAL_INTEGER = re.compile(INTEGER)
_FIRST_INEXACT = {pa.float16(): 2**11, pa.float32(): 2**24, pa.float64(): 2**53}


class BadKey(ValueError):
    """A value that is no key. `row` is its place in the array (-1: the whole column), `value` and `expected` are for
    the message of whoever knows the file and the column."""

    def __init__(self, row: int, value: object, expected: str = EXPECTED) -> None:
        super().__init__(f"Expected {expected}, got {value!r}" + (f" at row {row}." if row >= 0 else "."))
        self.row = row
        self.value = value
        self.expected = expected


@dataclass(frozen=True)
class Keys:
    """One column of keys. `codes`: uint64, one a row, 0 where missing. `entries`: codes and texts (large_string) that
    cover every code (and perhaps more), in any order; None if all keys are integers: their texts follow from the codes.

    The distinct keys are worked out when first asked for: reading data for a model only needs the codes.
    """

    codes: np.ndarray
    entries: tuple[np.ndarray, pa.Array] | None = None

    @cached_property
    def unique_codes(self) -> np.ndarray:
        """The distinct codes, without missing, ascending."""
        unique = np.unique(self.codes)
        return unique[int(len(unique) > 0 and unique[0] == MISSING) :]

    @cached_property
    def unique_texts(self) -> pa.Array:
        """The canonical text of each of `unique_codes`, Arrow large_string."""
        if self.entries is None:
            return texts_of_integers(self.unique_codes)
        codes, texts = self.entries
        order = np.argsort(codes)
        return texts.take(pa.array(order[np.searchsorted(codes, self.unique_codes, sorter=order)]))


def codes_of_array(array: pa.Array | pa.ChunkedArray, hash_key: bytes | None = None) -> Keys:
    """The keys of an Arrow array: any integer type, bool, float, text, or a dictionary of those. Null, NaN and "" are
    missing. Raises `BadKey` for a float that is no integer (or too large to be exact) and for other types."""
    if isinstance(array, pa.ChunkedArray):
        array = _one_array(array)
    kind = array.type
    if pa.types.is_dictionary(kind):
        return _of_dictionary(array, hash_key)
    if pa.types.is_null(kind):
        array = array.cast(pa.int64())
    elif pa.types.is_floating(kind):
        array = _integers_of_floats(array)
    elif pa.types.is_boolean(kind):
        array = array.cast(pa.int64())
    elif pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return _of_texts(array.cast(pa.large_string()), hash_key)
    elif not pa.types.is_integer(kind):
        raise BadKey(-1, str(kind), "a column of integers, texts or integral floats as keys")
    too_large = kind == pa.uint64() and (pc.max(array).as_py() or 0) > _INT64_MAX
    if hash_key is not None or too_large:
        return _of_texts(array.cast(pa.large_string()), hash_key)
    return _of_integers(array.cast(pa.int64()))


def code_of_key(key: int | float | str, hash_key: bytes | None = None) -> int:
    """The code of one key: what `codes_of_array` gives for it. Raises `BadKey` (row 0) for a float like 1.5."""
    text = canonical_text(key)
    if not text:
        return int(MISSING)
    if hash_key is not None:
        text = str(_blake(text.encode(), hash_key, signed=True))
    if _CANONICAL_INTEGER.fullmatch(text) and _INT64_MIN <= int(text) <= _INT64_MAX:
        return int(_never_zero(splitmix64(np.array([int(text)], dtype=np.int64).view(np.uint64)))[0])
    return _blake(text.encode(), b"") or 1


def canonical_text(key: int | float | str) -> str:
    """The text that stands for a key: decimal for numbers, a text as it is."""
    if isinstance(key, str):
        return key
    if isinstance(key, float) and not (key.is_integer() and abs(key) < _FIRST_INEXACT[pa.float64()]):
        raise BadKey(0, key)
    return str(int(key))


def read_hash_key(path: str | Path) -> bytes:
    """The secret of `--hash-ids`: 16 to 64 bytes of any kind; one line end at the end of the file does not count.

    Keep it: without the same secret, new data does not meet the old keys. It is never printed or stored.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"Expected a file of 16 to 64 random bytes at {path}, found none. Write the secret there.")
    secret = path.read_bytes()
    secret = secret.removesuffix(b"\n").removesuffix(b"\r") if secret.endswith(b"\n") else secret
    if not 16 <= len(secret) <= 64:
        raise ValueError(f"Expected 16 to 64 bytes in hash key file {path}, got {len(secret)}.")
    return secret


def splitmix64(values: np.ndarray) -> np.ndarray:
    """A bijection of 64 bits (uint64 array in, uint64 array out) whose output bits all depend on all input bits."""
    z = values + np.uint64(_GOLDEN)
    z ^= z >> np.uint64(30)
    z *= np.uint64(_MIX_1)
    z ^= z >> np.uint64(27)
    z *= np.uint64(_MIX_2)
    z ^= z >> np.uint64(31)
    return z


def inverse_splitmix64(mixed: np.ndarray) -> np.ndarray:
    """`inverse_splitmix64(splitmix64(x)) == x`."""
    z = mixed ^ (mixed >> np.uint64(31)) ^ (mixed >> np.uint64(62))
    z *= np.uint64(pow(_MIX_2, -1, 1 << 64))
    z ^= (z >> np.uint64(27)) ^ (z >> np.uint64(54))
    z *= np.uint64(pow(_MIX_1, -1, 1 << 64))
    z ^= (z >> np.uint64(30)) ^ (z >> np.uint64(60))
    z -= np.uint64(_GOLDEN)
    return z


def texts_of_integers(codes: np.ndarray) -> pa.Array:
    """The canonical texts of integer keys, Arrow large_string, from their codes."""
    return pa.array(inverse_splitmix64(codes).view(np.int64)).cast(pa.large_string())


def bucket(codes: np.ndarray, buckets: int, which: int = 0) -> np.ndarray:
    """The key's bucket under hash function number `which`: `splitmix64(code + which * odd) % buckets`, int32 from 0."""
    shift = np.uint64(which * _MIX_2 & _ALL_BITS)
    return (splitmix64(codes + shift) % np.uint64(buckets)).astype(np.int32)


def _one_array(chunked: pa.ChunkedArray) -> pa.Array:
    """The chunks as one array; texts get 64-bit offsets first, so that their bytes may exceed 2 GiB."""
    if pa.types.is_string(chunked.type):
        chunked = chunked.cast(pa.large_string())
    whole = chunked.unify_dictionaries().combine_chunks()
    return whole if isinstance(whole, pa.Array) else pa.concat_arrays(whole.chunks)


def _integers_of_floats(array: pa.Array) -> pa.Array:
    values = array.cast(pa.float64()).to_numpy(zero_copy_only=False)
    missing = np.isnan(values)
    with np.errstate(invalid="ignore"):  # inf is refused two lines on
        bad = ~missing & ((np.abs(values) >= _FIRST_INEXACT[array.type]) | (values != np.floor(values)))
    if bad.any():
        row = int(bad.argmax())
        value = float(values[row])
        if not value.is_integer():
            raise BadKey(row, value)
        raise BadKey(
            row, value, f"a {array.type} key below {_FIRST_INEXACT[array.type]} (beyond it floats skip integers)"
        )
    return pa.array(np.where(missing, 0, values).astype(np.int64), mask=missing)


def _of_integers(array: pa.Array) -> Keys:
    values = np.ascontiguousarray(array.fill_null(0).to_numpy(), dtype=np.int64).view(np.uint64)
    codes = splitmix64(values)
    if not codes.all():  # the one integer that gets another's code: its text does not follow from it
        return _of_texts(array.cast(pa.large_string()), None)
    if array.null_count:
        codes[array.is_null().to_numpy(zero_copy_only=False)] = MISSING
    return Keys(codes)


def _of_texts(array: pa.Array, hash_key: bytes | None) -> Keys:
    index, texts = distinct(array)
    if hash_key is not None:
        digests = blake2b_8(texts, hash_key, rows=len(array)).view(np.int64)
        codes, texts = _never_zero(splitmix64(digests.view(np.uint64))), _hashed_texts(texts, digests)
    else:
        codes = _codes_of_distinct(texts, rows=len(array))
    empty = pc.equal(texts, "").to_numpy(zero_copy_only=False)
    codes[empty] = MISSING
    return Keys(np.append(codes, MISSING)[index], (codes, texts))  # a null's index is -1: the last one


def _of_dictionary(array: pa.DictionaryArray, hash_key: bytes | None) -> Keys:
    """Only entries that some row uses are looked at: a dictionary may be shared by many chunks."""
    indices = array.indices.fill_null(-1).to_numpy().astype(np.int64)
    used = np.zeros(len(array.dictionary) + 1, dtype=bool)
    used[indices] = True
    entries = np.flatnonzero(used[:-1])
    try:
        keys = codes_of_array(array.dictionary.take(pa.array(entries)), hash_key)
    except BadKey as error:
        if error.row < 0:
            raise
        row = int((indices == entries[error.row]).argmax())
        raise BadKey(row, error.value, error.expected) from None
    codes = np.zeros(len(used), dtype=np.uint64)  # the last one is what a null points at
    codes[entries] = keys.codes
    return Keys(codes[indices], keys.entries or (keys.unique_codes, keys.unique_texts))


def _codes_of_distinct(texts: pa.Array, rows: int) -> np.ndarray:
    """Codes of large_string texts: integers for canonical decimals of an int64, else hashes."""
    is_integer, integer = integers(texts, rows)
    codes = splitmix64(integer.view(np.uint64))
    if not is_integer.all():
        others = texts.filter(pa.array(~is_integer)) if is_integer.any() else texts
        codes[~is_integer] = blake2b_8(others, b"", rows)
    return _never_zero(codes)


def _hashed_texts(texts: pa.Array, digests: np.ndarray) -> pa.Array:
    return pc.if_else(pc.equal(texts, ""), texts, pa.array(digests).cast(pa.large_string()))


def _blake(text: bytes, hash_key: bytes, signed: bool = False) -> int:
    return int.from_bytes(hashlib.blake2b(text, digest_size=8, key=hash_key).digest(), "little", signed=signed)


def _never_zero(codes: np.ndarray) -> np.ndarray:
    codes[codes == 0] = 1
    return codes
