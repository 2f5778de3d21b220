"""Columns between a record and a batch: what `encode` returns, a partition stores and `assemble` reads."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

NEVER = np.iinfo(np.int64).max  # `known_at` of a label that will not be known
Columns = dict[str, "np.ndarray | Ragged"]


class DataError(ValueError):
    """A record is not what the schema says. The message names file, column, row and value, and what to do."""


@dataclass(frozen=True)
class Ragged:
    """A list column: owner i holds `values[offsets[i]:offsets[i + 1]]`; `offsets` is int64, starts at 0."""

    values: np.ndarray
    offsets: np.ndarray

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def take(self, index: np.ndarray) -> Ragged:
        """The owners `index`, in that order (like `array[index]`)."""
        positions, offsets = span_positions(self.offsets[index], self.offsets[index + 1])
        return Ragged(self.values[positions], offsets)

    def cut(self, first: int, last: int) -> Ragged:
        """The owners `first` to `last - 1`, values not copied (like `array[first:last]`)."""
        offsets = self.offsets[first : last + 1]
        return Ragged(self.values[offsets[0] : offsets[-1]], offsets - offsets[0])


def span_positions(start: np.ndarray, end: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The positions `start[i] .. end[i] - 1` of every span one after another, and the offsets between spans."""
    lengths = end - start
    offsets = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths, out=offsets[1:])
    positions = np.arange(offsets[-1], dtype=np.int64)
    positions += np.repeat(np.asarray(start, dtype=np.int64) - offsets[:-1], lengths)
    return positions, offsets


def array(columns: Columns, name: str) -> np.ndarray:
    """The column `name`, which is not a list column."""
    column = columns[name]
    if isinstance(column, Ragged):
        raise TypeError(f"Column {name!r} is a list column, a flat one was expected.")
    return column


@dataclass(frozen=True)
class EncodedBlock:
    """Some requests and their rows, encoded. Columns are named as in docs/architecture.md, section 2;
    `rows["@request"]` (int32) is each row's request within this block, ascending."""

    requests: Columns
    rows: Columns
    num_requests: int
    num_rows: int


def to_arrow(columns: Columns) -> pa.RecordBatch:
    """Columns as one Arrow record batch: 1-D arrays, list columns for `Ragged`, fixed-size lists for 2-D arrays."""
    arrays = []
    for column in columns.values():
        if isinstance(column, Ragged):
            arrays.append(pa.LargeListArray.from_arrays(pa.array(column.offsets), pa.array(column.values)))
        elif column.ndim == 2:
            arrays.append(pa.FixedSizeListArray.from_arrays(pa.array(column.ravel()), column.shape[1]))
        else:
            arrays.append(pa.array(column))
    return pa.RecordBatch.from_arrays(arrays, names=list(columns))


def from_arrow(batch: pa.RecordBatch, names: list[str] | None = None) -> Columns:
    """The named columns (all if None) of an Arrow record batch written by `to_arrow`, without copying."""
    columns: Columns = {}
    for name in names if names is not None else batch.schema.names:
        array = batch.column(name)
        if pa.types.is_large_list(array.type):
            offsets = array.offsets.to_numpy()
            values = array.values.to_numpy(zero_copy_only=True)
            columns[name] = Ragged(values[offsets[0] : offsets[-1]], offsets - offsets[0])
        elif pa.types.is_fixed_size_list(array.type):
            width = array.type.list_size
            columns[name] = array.flatten().to_numpy(zero_copy_only=True).reshape(-1, width)
        else:
            columns[name] = array.to_numpy(zero_copy_only=True)
    return columns
