"""The libFM format where every row has one feature of each field: a label, then `id:1` for field after field."""

# pyarrow.compute makes its functions when it is imported, where pyright does not see them:
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as csv

from fullrank.data.bundle import Bundle
from fullrank.data.columns import DataError
from fullrank.data.source import CHUNK_ROWS

_BLOCK_BYTES = 4 << 20


@dataclass(frozen=True)
class FieldKeys:
    """What ids mean: id i is the key `keys[i]` of field `field_of[i]` (an index into `fields`; -1: none of them)."""

    fields: tuple[str, ...]
    keys: pa.Array
    field_of: np.ndarray

    def columns(self, ids_BF: np.ndarray, where: str, first_row: int) -> dict[str, pa.Array]:
        """The keys of every field. An id that is none of its column's field is an error that names its row."""
        own_BF = (ids_BF >= 0) & (ids_BF < len(self.field_of))
        own_BF &= self.field_of[np.where(own_BF, ids_BF, 0)] == np.arange(len(self.fields))
        if not own_BF.all():
            row, column = np.argwhere(~own_BF)[0]
            raise DataError(
                f"{where}, row {first_row + row + 1}: expected an id of field {self.fields[column]!r}, got "
                f"{ids_BF[row, column]}. Are the rows and the map of ids of one set?"
            )
        return {field: self.keys.take(pa.array(ids_BF[:, column])) for column, field in enumerate(self.fields)}


def read_libfm(bundle: Bundle, name: str, num_fields: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(label int8 [B] of 0 and 1, ids int64 [B, num_fields]) of at most `CHUNK_ROWS` rows; -1 and 0 are both label 0.

    Every value must be 1. Not for rows that lack a field or have two of it.
    """
    line = 0
    for block in _blocks_of_lines(bundle, name):
        labels, ids_BF = _parsed(block, bundle.label(name), line, num_fields)
        line += block.count(b"\n")
        for start in range(0, len(labels), CHUNK_ROWS):
            yield labels[start : start + CHUNK_ROWS], ids_BF[start : start + CHUNK_ROWS]


def _blocks_of_lines(bundle: Bundle, name: str) -> Iterator[bytes]:
    """The file in pieces of whole lines, each ended by one newline."""
    rest = b""
    try:
        with bundle.open(name) as stream:
            while piece := stream.read(_BLOCK_BYTES):
                whole, newline, rest = (rest + piece).rpartition(b"\n")
                if whole:
                    yield (whole + newline).replace(b"\r\n", b"\n")
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{bundle.label(name)}: cannot be read ({error}). Get the file again.") from error
    if rest.strip():
        yield rest.rstrip() + b"\n"


def _parsed(block: bytes, where: str, line: int, num_fields: int) -> tuple[np.ndarray, np.ndarray]:
    """A block's labels and ids; every `:1` goes, and what is left is numbers with spaces between."""
    if block.count(b":") != block.count(b":1 ") + block.count(b":1\n"):
        raise _malformed(block, where, line, num_fields)
    numbers = block.replace(b":1 ", b" ").replace(b":1\n", b"\n")
    names = [str(column) for column in range(num_fields + 1)]
    try:
        table = csv.read_csv(
            pa.BufferReader(numbers),
            csv.ReadOptions(column_names=names, use_threads=False),
            csv.ParseOptions(delimiter=" ", quote_char=False),
            csv.ConvertOptions(column_types=dict.fromkeys(names, pa.int64()), null_values=[]),
        )
    except pa.ArrowInvalid:
        raise _malformed(block, where, line, num_fields) from None
    label, *ids = (column.to_numpy() for column in table.columns)
    if not np.isin(label, (-1, 0, 1)).all():
        raise _malformed(block, where, line, num_fields)
    return (label > 0).astype(np.int8), np.stack(ids, axis=1)


def _malformed(block: bytes, where: str, line: int, num_fields: int) -> DataError:
    """The error about the first line that is not as it should be."""
    good = re.compile(rb"(?:(?:-1|0|1)(?: \d+:1){%d})?" % num_fields)
    lines = block.split(b"\n")
    bad = next((at for at, text in enumerate(lines) if not good.fullmatch(text)), 0)
    text = lines[bad][:120].decode("utf-8", "replace")
    return DataError(
        f"{where}, line {line + bad + 1}: expected a label (-1, 0 or 1) and {num_fields} times `id:1`, got {text!r}. "
        "Mend the line, or get the file again."
    )


def field_keys(fields: Sequence[str], field_of_id: pa.Array, keys: pa.Array, ids: np.ndarray) -> FieldKeys:
    """`FieldKeys` of a table with one line an id; ids of other fields belong to none."""
    size = int(ids.max(initial=-1)) + 1
    number = pc.index_in(field_of_id, value_set=pa.array(list(fields))).fill_null(-1)
    field_numbers = np.full(size, -1)
    field_numbers[ids] = number.to_numpy()
    place = np.zeros(size, dtype=np.int64)
    place[ids] = np.arange(len(ids))
    return FieldKeys(tuple(fields), keys.take(pa.array(place)), field_numbers)
