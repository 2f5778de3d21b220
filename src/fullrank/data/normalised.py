"""What normalising gives: typed columns in row terms, and how they are spilled, read back and picked from."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from fullrank.data.columns import Columns, Ragged
from fullrank.data.keys import Keys


@dataclass(frozen=True)
class Normalised:
    """Checked records as typed columns, one entry per log row (or per event, from `normalise_events`).

    `columns`, for a log:

    * categorical feature: uint64 codes · multi: `Ragged` codes, and `name@weights` float32 · numeric: float32 before
      its scaler, NaN missing · vector: float32 [n, dim], a row of NaN missing
    * `@user` `@request` `@impression` `@item` `@scenario` `@campaign` `@advertiser`: uint64 codes
    * `@time`: int64 µs, or position
    * `@label.TASK` float32, `@known_at.TASK` int64 (`NEVER`: not known, and the label is then 0)
    * `@weight` `@sample_rate` `@propensity` `@exploration` `@position` `@bid` `@price`: float32
    * inline history: `@history.NAME.item`, `.time`, `.available`, `.FEATURE`, `.OUTCOME`, `.OUTCOME@known_at`: `Ragged`
      with the same offsets, oldest first, every event of the list (`Transform.encode_events` drops those that are not
      past at the request's time)
    * by_user history of the log: the same names, but one value a row (what the row is as an event), and
      `@history.NAME.where` bool: whether the row is an event

    For events of a file: `@user`, `item`, `time`, `available`, features, outcomes and `OUTCOME@known_at`.

    `texts`: text features, large_string. `keys`: for every column that holds codes, the distinct keys and their texts.
    """

    num_rows: int
    columns: Columns
    texts: dict[str, pa.Array] = field(default_factory=dict)
    keys: dict[str, Keys] = field(default_factory=dict)

    def array(self, name: str) -> np.ndarray:
        """A column that is not a list column."""
        column = self.columns[name]
        assert isinstance(column, np.ndarray)
        return column

    def ragged(self, name: str) -> Ragged:
        """A list column."""
        column = self.columns[name]
        assert isinstance(column, Ragged)
        return column

    @property
    def first_time(self) -> int:
        """Time of the first row: where rows are promised in time order, not before the batch before's last."""
        return int(self.array("@time")[0])

    @property
    def last_time(self) -> int:
        """Time of the last row."""
        return int(self.array("@time")[-1])

    @cached_property
    def num_bytes(self) -> int:
        """Bytes of the columns, an array that two names share counted once; without texts and keys."""
        parts = {}
        for column in self.columns.values():
            for part in (column.values, column.offsets) if isinstance(column, Ragged) else (column,):
                parts[id(part)] = part.nbytes
        return sum(parts.values())

    def take(self, index: np.ndarray) -> Normalised:
        """The rows `index` (positions, or a bool mask), in that order, with the keys that these rows hold."""
        index = np.flatnonzero(index) if index.dtype == bool else index

        def rows(column: np.ndarray) -> np.ndarray:
            return column[index]

        def spans(offsets: np.ndarray) -> Ragged:
            return Ragged(np.arange(offsets[-1]), offsets).take(index)

        rows, spans = _once(rows), _once(spans)
        values = _once(lambda values, offsets: values[spans(offsets).values])
        columns: Columns = {}
        for name, column in self.columns.items():
            if isinstance(column, Ragged):
                columns[name] = Ragged(values(column.values, column.offsets), spans(column.offsets).offsets)
            else:
                columns[name] = rows(column)
        texts = {name: text.take(pa.array(index)) for name, text in self.texts.items()}
        within = _once(keys_within)
        keys = {name: within(self.keys[name], codes_of(columns[name])) for name in self.keys}
        return Normalised(len(index), columns, texts, keys)

    def to_arrow(self) -> pa.RecordBatch:
        """One record batch of one row whose cells are whole columns, so that columns of any length share it.

        Arrays that several columns share (offsets of one history, `user` and `@user`) are written once. All batches of
        one schema and one source have the same Arrow schema, so one IPC file holds them; it can be memory-mapped.
        """
        parts: dict[str, pa.Array] = {"rows": pa.array([self.num_rows], type=pa.int64())}
        written: dict[int, str] = {}

        def write(place: str, array: np.ndarray) -> str:
            if id(array) not in written:
                written[id(array)] = place
                parts[place] = _one_cell(_to_cells(array))
            return written[id(array)]

        places = {}
        for name, column in self.columns.items():
            if isinstance(column, Ragged):
                places[name] = [write(f"values {name}", column.values), write(f"offsets {name}", column.offsets)]
            else:
                places[name] = [write(f"values {name}", column)]
        for name, text in self.texts.items():
            parts[f"text {name}"] = _one_cell(text)
        first_of: dict[int, str] = {}
        key_places = {name: first_of.setdefault(id(keys), name) for name, keys in self.keys.items()}
        for name in first_of.values():
            codes, texts = self.keys[name].entries or (None, None)
            parts[f"entries {name}"] = _one_cell(None if codes is None else pa.array(codes), pa.uint64())
            parts[f"names {name}"] = _one_cell(texts, pa.large_string())
        fields = [pa.field(name, array.type) for name, array in parts.items()]
        schema = pa.schema(fields, metadata={"columns": json.dumps(places), "keys": json.dumps(key_places)})
        return pa.RecordBatch.from_arrays(list(parts.values()), schema=schema)

    @staticmethod
    def from_arrow(batch: pa.RecordBatch) -> Normalised:
        """What `to_arrow` wrote; columns are views of the batch's memory."""
        arrays: dict[str, np.ndarray] = {}

        def read(place: str) -> np.ndarray:
            if place not in arrays:
                arrays[place] = _from_cells(batch.column(place)[0].values)
            return arrays[place]

        columns: Columns = {}
        for name, places in json.loads(batch.schema.metadata[b"columns"]).items():
            parts = [read(place) for place in places]
            columns[name] = Ragged(parts[0], parts[1]) if len(parts) == 2 else parts[0]
        keys: dict[str, Keys] = {}
        for name, place in json.loads(batch.schema.metadata[b"keys"]).items():
            if place == name:
                codes, names = batch.column(f"entries {name}")[0], batch.column(f"names {name}")[0]
                entries = (codes.values.to_numpy(), names.values) if codes.is_valid else None
                keys[name] = Keys(codes_of(columns[name]), entries)
            else:
                keys[name] = keys[place]
        text_names = [part.removeprefix("text ") for part in batch.schema.names if part.startswith("text ")]
        texts = {name: batch.column(f"text {name}")[0].values for name in text_names}
        return Normalised(batch.column("rows")[0].as_py(), columns, texts, keys)

    @staticmethod
    def concat(parts: list[Normalised]) -> Normalised:
        """The rows of all parts (at least one) one after another; they are of one schema and source."""
        join_arrays, join_offsets, joined_keys = _once(_join_arrays), _once(_join_offsets), _once(join_keys)
        columns: Columns = {}
        for name in parts[0].columns:
            pieces = [part.columns[name] for part in parts]
            ragged = [piece for piece in pieces if isinstance(piece, Ragged)]
            if ragged:
                values = join_arrays(*(piece.values for piece in ragged))
                columns[name] = Ragged(values, join_offsets(*(piece.offsets for piece in ragged)))
            else:
                columns[name] = join_arrays(*pieces)
        texts = {name: pa.concat_arrays([part.texts[name] for part in parts]) for name in parts[0].texts}
        keys = {
            name: joined_keys(codes_of(columns[name]), *(part.keys[name] for part in parts)) for name in parts[0].keys
        }
        return Normalised(sum(part.num_rows for part in parts), columns, texts, keys)

    def only(self, columns: list[str], texts: list[str]) -> Normalised:
        """The same rows with only these columns (and their keys) and texts."""
        return replace(
            self,
            columns={name: self.columns[name] for name in columns},
            texts={name: self.texts[name] for name in texts},
            keys={name: keys for name, keys in self.keys.items() if name in columns},
        )


def codes_of(column: np.ndarray | Ragged) -> np.ndarray:
    """All codes of a column of keys, list or not."""
    return column.values if isinstance(column, Ragged) else column


def keys_within(keys: Keys, codes: np.ndarray) -> Keys:
    """`keys` for a column that holds only `codes`."""
    if keys.entries is None:
        return Keys(codes)
    used = np.isin(keys.entries[0], codes)
    return Keys(codes, (keys.entries[0][used], keys.entries[1].filter(pa.array(used))))


def join_keys(codes: np.ndarray, *parts: Keys) -> Keys:
    """Keys of a column that was made of several."""
    if all(keys.entries is None for keys in parts):
        return Keys(codes)
    entries = [keys.entries or (keys.unique_codes, keys.unique_texts) for keys in parts]
    return Keys(codes, (np.concatenate([e[0] for e in entries]), pa.concat_arrays([e[1] for e in entries])))


def concat_column(parts: Sequence[np.ndarray | Ragged]) -> np.ndarray | Ragged:
    """Columns (all of one kind) one after another."""
    ragged = [part for part in parts if isinstance(part, Ragged)]
    if ragged:
        return Ragged(np.concatenate([part.values for part in ragged]), _join_offsets(*(p.offsets for p in ragged)))
    return np.concatenate([part for part in parts if not isinstance(part, Ragged)])


def _once(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function`, computed once for the same objects, so that names that shared an array share the new one too."""
    made: dict[tuple[int, ...], Any] = {}

    def call(*parts: Any) -> Any:
        key = tuple(map(id, parts))
        if key not in made:
            made[key] = function(*parts)
        return made[key]

    return call


def _join_arrays(*parts: np.ndarray) -> np.ndarray:
    return np.concatenate(parts)


def _join_offsets(*parts: np.ndarray) -> np.ndarray:
    lengths = np.concatenate([np.diff(part) for part in parts])
    return np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])


def _to_cells(array: np.ndarray) -> pa.Array:
    if array.ndim == 2:
        return pa.FixedSizeListArray.from_arrays(pa.array(array.ravel()), array.shape[1])
    return pa.array(array)


def _from_cells(array: pa.Array) -> np.ndarray:
    if pa.types.is_fixed_size_list(array.type):
        return array.flatten().to_numpy().reshape(-1, array.type.list_size)
    return array.to_numpy(zero_copy_only=not pa.types.is_boolean(array.type))


def _one_cell(values: pa.Array | None, kind: pa.DataType | None = None) -> pa.Array:
    """A list array of one list, or of one null."""
    if values is None:
        return pa.array([None], type=pa.large_list(kind))
    return pa.LargeListArray.from_arrays(pa.array([0, len(values)], type=pa.int64()), values)
