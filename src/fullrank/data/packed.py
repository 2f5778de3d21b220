"""Rows side by side, in numpy: what lies between columns on disk and tensors of a batch, and how it is cut and joined.

A record holds all that one owner (a request, a row) has, but for lists of any length: to take an owner is to read a few
cache lines that follow one another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from fullrank.data.columns import Ragged


@dataclass(frozen=True)
class PackedBag:
    ids: Ragged
    weights: Ragged | None


@dataclass(frozen=True)
class PackedBlock:
    """Fields of n owners. `records_n`: a structured array with `ids` (int32 `[F]`), `numbers` (float32), one
    `vector0`, `vector1` … a vector field, and what else the owners have; a part that is empty has no field."""

    records_n: np.ndarray
    bags: tuple[PackedBag, ...]

    def __len__(self) -> int:
        return len(self.records_n)

    @property
    def names(self) -> tuple[str, ...]:
        return self.records_n.dtype.names or ()

    def matrix(self, name: str, dtype: Any) -> np.ndarray:
        """A field as `[n, width]` of its own (width 0 if it is empty)."""
        if name not in self.names:
            return np.empty((len(self), 0), dtype=dtype)
        return self.records_n[name].astype(dtype, order="C")

    def column(self, name: str, otherwise: float, dtype: Any) -> np.ndarray:
        """A field of one value as `[n]` of its own, or n times `otherwise` where there is none."""
        if name not in self.names:
            return np.full(len(self), otherwise, dtype=dtype)
        return self.records_n[name][:, 0].astype(dtype, order="C")

    def cut(self, first: int, last: int) -> PackedBlock:
        bags = tuple(
            PackedBag(bag.ids.cut(first, last), bag.weights and bag.weights.cut(first, last)) for bag in self.bags
        )
        return PackedBlock(self.records_n[first:last], bags)

    def take(self, index: np.ndarray) -> PackedBlock:
        bags = tuple(PackedBag(bag.ids.take(index), bag.weights and bag.weights.take(index)) for bag in self.bags)
        return PackedBlock(self.records_n[index], bags)


@dataclass(frozen=True)
class Packed:
    """Some requests and their rows, ready for batches. `request_of_row` (int64) ascends: rows of a request stand
    together, in the order of the requests.

    Requests also have `number` (among those that were packed), `user`, `time` (each if the log has it), `store` (which
    of a history's sources they read) and of history h `end{h}`, `length{h}`. Rows have `values` and `known` (`[K]`) and
    those of LABEL_COLUMNS that the log has.
    """

    requests: PackedBlock
    rows: PackedBlock
    request_of_row: np.ndarray

    @property
    def num_rows(self) -> int:
        return len(self.request_of_row)

    def cut(self, first: int, last: int) -> Packed:
        """Rows `first` to `last - 1` and their requests; only offsets are copied."""
        request_of_row = self.request_of_row[first:last]
        low, high = (int(request_of_row[0]), int(request_of_row[-1]) + 1) if last > first else (0, 0)
        return Packed(self.requests.cut(low, high), self.rows.cut(first, last), request_of_row - low)

    def take(self, index: np.ndarray) -> Packed:
        """The rows `index`, in any order; requests come in order of their first row, each once.

        For a few rows here and there: what `pack` has put in order is `cut`, at a small part of the price.
        """
        unique, first, inverse = np.unique(self.request_of_row[index], return_index=True, return_inverse=True)
        by_first_row = np.argsort(first, kind="stable")
        rank = np.empty_like(by_first_row)
        rank[by_first_row] = np.arange(len(rank))
        return Packed(self.requests.take(unique[by_first_row]), self.rows.take(index), rank[inverse])


def join(parts: Sequence[Packed]) -> Packed:
    """Rows and requests of each part after those of the one before."""
    if len(parts) == 1:
        return parts[0]
    shift = np.cumsum([0] + [len(part.requests) for part in parts[:-1]])
    return Packed(
        _join([part.requests for part in parts]),
        _join([part.rows for part in parts]),
        np.concatenate([part.request_of_row + s for part, s in zip(parts, shift, strict=True)]),
    )


def _join(parts: list[PackedBlock]) -> PackedBlock:
    bags = []
    for same in zip(*(part.bags for part in parts), strict=True):
        weights = [bag.weights for bag in same if bag.weights]
        bags.append(PackedBag(join_ragged([bag.ids for bag in same]), join_ragged(weights) if weights else None))
    return PackedBlock(np.concatenate([part.records_n for part in parts]), tuple(bags))


def join_ragged(parts: Sequence[Ragged]) -> Ragged:
    """List columns end to end."""
    if len(parts) == 1:
        return parts[0]
    offsets = np.zeros(1 + sum(map(len, parts)), dtype=np.int64)
    ends = np.cumsum([0, *map(len, parts)])
    for part, (low, high) in zip(parts, pairwise(ends), strict=True):
        np.add(part.offsets[1:], offsets[low], out=offsets[low + 1 : high + 1])
    return Ragged(np.concatenate([part.values for part in parts]), offsets)
