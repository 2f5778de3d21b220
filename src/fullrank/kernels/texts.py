"""Texts of a column: which are the same, which are integers, and the hash of each. n rows · U distinct texts.

In Arrow's large_string, as a log's columns are; no gradient passes here. The results are those of the definitions,
whatever runs: ids of prepared data rest on them.
"""

# pyarrow.compute makes its functions when it is imported; a type checker cannot see them.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import hashlib

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fullrank.kernels.bodies import worth_compiling

LEAST = 16_384  # rows: a request's candidates never wait for a compiler
INTEGER = "0|-?[1-9][0-9]{0,18}"  # and within 64 bits
_LEAST_INT64, _GREATEST_INT64 = str(-(1 << 63)), str((1 << 63) - 1)


def distinct(texts: pa.Array) -> tuple[np.ndarray, pa.Array]:
    """`(index_n, texts_U)`: the distinct texts in the order they first come in, and which one each row has (int32,
    -1 where null)."""
    if worth_compiling(len(texts), LEAST):
        from fullrank.kernels.cpu.distinct import distinct_on_cpu

        index_n, first_U = distinct_on_cpu(*buffers(texts), validity(texts))
        return index_n, texts.take(pa.array(first_U))
    encoded = texts.dictionary_encode()
    return encoded.indices.fill_null(-1).to_numpy(), encoded.dictionary


def integers(texts_U: pa.Array, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """`(is_integer_U, integer_U)`: whether a text is the canonical decimal of an int64 (0 or -?[1-9][0-9]*), and which
    (0 where not). `rows`: of the column that the texts are from, which decide what runs."""
    if worth_compiling(rows, LEAST):
        from fullrank.kernels.cpu.integers import integers_on_cpu

        return integers_on_cpu(*buffers(texts_U))
    integral = pc.match_substring_regex(texts_U, rf"\A(?:{INTEGER})\z")
    length = pc.binary_length(texts_U)
    negative = pc.starts_with(texts_U, "-")
    # Decimals of equal length are ordered like their texts, so the range check needs no parsing.
    over = pc.and_(pc.equal(length, 19), pc.and_not(pc.greater(texts_U, _GREATEST_INT64), negative))
    under = pc.and_(pc.equal(length, 20), pc.greater(texts_U, _LEAST_INT64))
    chosen = pc.and_not(integral, pc.or_(over, under))
    is_integer_U, integer_U = chosen.to_numpy(zero_copy_only=False), np.zeros(len(texts_U), dtype=np.int64)
    integer_U[is_integer_U] = texts_U.filter(chosen).cast(pa.int64()).to_numpy()
    return is_integer_U, integer_U


def blake2b_8(texts_U: pa.Array, key: bytes, rows: int) -> np.ndarray:
    """BLAKE2b of each text's UTF-8 with a digest of 8 bytes, read as a little-endian uint64; keyed unless `key` (at
    most 64 bytes) is empty. RFC 7693. `rows`: see `integers`."""
    if worth_compiling(rows, LEAST):
        from fullrank.kernels.cpu.blake2b import blake2b_on_cpu

        return blake2b_on_cpu(*buffers(texts_U), key)
    blake2b = hashlib.blake2b
    digests = [blake2b(text, digest_size=8, key=key).digest() for text in texts_U.cast(pa.large_binary()).to_pylist()]
    return np.frombuffer(b"".join(digests), dtype="<u8").astype(np.uint64)


def buffers(texts: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """Offsets (int64) and bytes of a large_string array: text i is `data[offsets[i]:offsets[i + 1]]`."""
    if not len(texts):
        return np.zeros(1, dtype=np.int64), np.empty(0, dtype=np.uint8)
    _, offsets, data = texts.buffers()
    return (
        np.frombuffer(offsets, np.int64, len(texts) + 1, texts.offset * 8),
        np.frombuffer(data or b"", np.uint8),
    )


def validity(texts: pa.Array) -> np.ndarray:
    """Whether each row is not null, bool; empty where none is."""
    return texts.is_valid().to_numpy(zero_copy_only=False) if texts.null_count else np.empty(0, dtype=bool)
