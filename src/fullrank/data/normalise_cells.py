"""Reading one Arrow column under its name, and the one way a bad value is reported.

Rows are counted from 1 within their file, without a header: row 1 is the first record.
"""

# pyarrow.compute makes its functions when it is imported; a type checker cannot see them.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fullrank.data.columns import DataError
from fullrank.data.normalise_lists import are_json, lists_of_texts
from fullrank.schema import did_you_mean

SHOWN = 80  # characters of a bad value that a message repeats


@dataclass(frozen=True)
class Origin:
    """Where a record batch comes from, for messages: its file, and how many rows of it came before this batch."""

    file: str
    first_row: int = 0

    def row(self, index: int) -> int:
        """The number of the batch's row `index` (from 0) in its file (from 1, without a header)."""
        return self.first_row + index + 1


@dataclass(frozen=True)
class Cells:
    """The values of one column, or of a list column all its values one after another, and where each came from.

    `offsets` (int64) is None for a plain column; row i of a list column holds `[offsets[i], offsets[i + 1])`.
    """

    origin: Origin
    column: str
    array: pa.Array
    offsets: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.array)

    def row_of(self, index: int) -> int:
        """The row (in the batch, from 0) of value `index`."""
        if self.offsets is None:
            return index
        return int(np.searchsorted(self.offsets, index, side="right")) - 1

    def error(self, index: int, expected: str, todo: str = "") -> DataError:
        """The error for value `index`."""
        return row_error(self.origin, self.column, self.row_of(index), self.array[index].as_py(), expected, todo)

    def first_bad(self, bad: np.ndarray, expected: str, todo: str = "") -> None:
        """Raise for the first value where `bad` holds, if there is one."""
        if bad.any():
            raise self.error(int(np.argmax(bad)), expected, todo)

    def wrong_type(self, accepted: str, todo: str = "") -> DataError:
        """The error for a column whose Arrow type means nothing here."""
        kind = f"list of {self.array.type}" if self.offsets is not None else str(self.array.type)
        return DataError(
            f"{self.origin.file}: column {self.column!r} has type {kind}; expected {accepted}."
            + (f" {todo}" if todo else "")
        )


def row_error(origin: Origin, column: str, index: int, value: Any, expected: str, todo: str = "") -> DataError:
    """The error for column `column` of the batch's row `index` (from 0)."""
    text = repr(value)
    text = text if len(text) <= SHOWN else text[:SHOWN] + "…"
    place = f"{origin.file}: row {origin.row(index)}, column {column!r}"
    return DataError(f"{place}: expected {expected}, got {text}." + (f" {todo}" if todo else ""))


@dataclass(frozen=True)
class Reader:
    """The columns of one record batch by name. Dictionaries are decoded, every text type becomes large_string."""

    records: pa.RecordBatch
    origin: Origin

    @property
    def num_rows(self) -> int:
        return self.records.num_rows

    def has(self, name: str) -> bool:
        return name in self.records.schema.names

    def cells(self, name: str, use: str) -> Cells:
        """A plain column; `use` says in a message what the schema wants it for."""
        return Cells(self.origin, name, self._column(name, use))

    def lists(self, name: str, use: str, todo: str = "") -> tuple[Cells, np.ndarray]:
        """A list column: its values one after another, and its offsets; a null list is an empty one. Texts that spell
        lists are read as such (`normalise_lists.py`)."""
        array = self._column(name, use)
        if pa.types.is_null(array.type):
            offsets = np.zeros(len(array) + 1, dtype=np.int64)
            return Cells(self.origin, name, pa.nulls(0), offsets), offsets
        if pa.types.is_large_string(array.type):
            array = lists_of_texts(Cells(self.origin, name, array))
        elif is_list(array.type) and pa.types.is_string(array.type.value_type):
            array = self._not_split(name, array)
        if not is_list(array.type):
            raise Cells(self.origin, name, array).wrong_type(f"lists ({use})", todo)
        offsets = np.zeros(len(array) + 1, dtype=np.int64)
        np.cumsum(pc.list_value_length(array).fill_null(0).to_numpy(zero_copy_only=False), out=offsets[1:])
        return Cells(self.origin, name, plain(array.flatten()), offsets), offsets

    def _not_split(self, name: str, array: pa.Array) -> pa.Array:
        """Delimited text splits every cell; where each is one piece and a JSON array, it is a text again."""
        if not len(array) or (pc.max(pc.list_value_length(array)).as_py() or 0) != 1:
            return array
        texts = pc.list_element(pc.if_else(pc.equal(pc.list_value_length(array), 1), array, None), 0)
        if not are_json(texts):
            return array
        return lists_of_texts(Cells(self.origin, name, texts.cast(pa.large_string())))

    def _column(self, name: str, use: str) -> pa.Array:
        places = self.records.schema.get_all_field_indices(name)
        if len(places) == 1:
            return plain(self.records.column(places[0]))
        names = self.records.schema.names
        if places:
            raise DataError(f"{self.origin.file}: expected column {name!r} ({use}) once, found it {len(places)} times.")
        raise DataError(
            f"{self.origin.file}: expected column {name!r} ({use}), found {names}.{did_you_mean(name, names)}"
        )


def plain(array: pa.Array) -> pa.Array:
    """The array without a dictionary, and text as large_string whatever text type it had."""
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if pa.types.is_string(array.type) or pa.types.is_string_view(array.type):
        array = array.cast(pa.large_string())
    return array


def is_list(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


def first_failing(array: pa.Array, convert: Callable[[pa.Array], Any]) -> int:
    """The first index whose value makes `convert` raise; at least one does. Only errors come this way."""
    low, high = 0, len(array)
    while high - low > 1:
        middle = (low + high) // 2
        try:
            convert(array.slice(low, middle - low))
        except pa.ArrowInvalid:
            high = middle
        else:
            low = middle
    return low
