"""The catalogue: every item's attributes as first seen in time, reached from history events by item id.

"First" is the least (time, row number) of the first append that brings the item; a log without a clock goes by row
number. An item keeps those attributes: an append adds items it brings for the first time. An item whose key has no own
id yet still has a row in the catalogue (its id is the unknown row it shares), but no history event can tell it from
others, so it is not reached by id. Once its key gets an id, the item comes again with that id and the same attributes,
in ids of that version: the catalogue keeps the codes of attributes whose ids may change (growing key spaces, but for
those of users, whose keys must be forgettable). In a `hashed` key space items share ids: give `attributes` the codes
too, without them the item that came first into a bucket stands for it (our choice).

Lists and files of events can show an item before any row of the log does. Where the log has a clock, `attributes` gives
a request only those of items first seen strictly before it: what was not known yet is missing. Positions may be each
user's own, so where the log has only those there is nothing to compare.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa

from fullrank.data.code_index import CodeIndex
from fullrank.data.columns import Columns, Ragged, from_arrow, to_arrow
from fullrank.data.encode_columns import encode_feature, take_rows
from fullrank.data.id_map import MISSING_ID, IdMap
from fullrank.data.normalise_values import ALWAYS
from fullrank.data.normalised import Normalised, codes_of, concat_column
from fullrank.data.scalers import Scalers
from fullrank.schema import Schema

_OWN = ("@code", "@id", "@reached", "@time")  # columns of a segment beside the attributes
_CODE, _TEXT = "@code.", "@text."


@dataclass(frozen=True, eq=False)
class ItemTable:
    """n items, oldest segment first. `code` uint64, `id` int32 (key space of the role item), `reached` bool (whether
    that id leads here), `time` int64 µs (when it was first seen; the least int64 in a log without a clock), `key`
    large_string; `columns`: encoded item features, `codes`: what some of them were encoded from; `texts`: text
    features. `num_saved` items came with earlier versions; the rest are this version's segment.
    """

    code: np.ndarray
    id: np.ndarray
    reached: np.ndarray
    time: np.ndarray
    key: pa.Array
    columns: Columns
    codes: Columns
    texts: dict[str, pa.Array]
    num_saved: int = 0

    def __len__(self) -> int:
        return len(self.code)

    @cached_property
    def _row_of_id(self) -> np.ndarray:
        """The catalogue row that an id leads to, or -1; ids beyond the end lead nowhere."""
        rows = np.flatnonzero(self.reached)[::-1]  # of several in one bucket the first is written last
        row_of_id = np.full(int(self.id.max(initial=0)) + 2, -1, dtype=np.int64)
        row_of_id[self.id[rows]] = rows
        return row_of_id

    def rows_of_ids(self, ids: np.ndarray) -> np.ndarray:
        """The catalogue row of each item id, -1 where there is none; int64."""
        return self._row_of_id[np.minimum(ids, len(self._row_of_id) - 1)]

    @cached_property
    def _row_of_code(self) -> CodeIndex:
        return CodeIndex(self.code, np.arange(len(self), dtype=np.int32))

    def attributes(
        self,
        name: str,
        item_ids: np.ndarray,
        before_E: np.ndarray | None = None,
        codes_E: np.ndarray | None = None,
    ) -> np.ndarray | Ragged:
        """Encoded attribute `name` by item id. An id without attributes gets id 1 (missing), NaN, or an empty bag; so
        does, with `before_E` (the moment each is asked at), an item that was not yet seen before that moment, and with
        `codes_E` (the items' codes) one that the table has not got, though another of its bucket is there."""
        rows = self.rows_of_ids(item_ids)
        if codes_E is not None and len(self):
            other = np.flatnonzero((rows >= 0) & (self.code[rows] != codes_E))
            if len(other):
                rows[other] = self._row_of_code.find(codes_E[other])
        if before_E is not None and len(self):
            rows = np.where(self.time[rows] < before_E, rows, -1)
        column = self.columns[name]
        if isinstance(column, Ragged):
            with_empty = Ragged(column.values, np.append(column.offsets, column.offsets[-1]))
            return with_empty.take(rows % len(with_empty))  # -1 is the last: the empty one
        nothing = MISSING_ID if column.dtype == np.int32 else np.nan
        if not len(column):
            return np.full((len(rows), *column.shape[1:]), nothing, dtype=column.dtype)
        taken = column[rows]
        taken[rows < 0] = nothing
        return taken

    def keys_of_ids(self, ids: np.ndarray) -> pa.Array:
        """The keys of items as text, null where an id leads to none."""
        return self._take(self.key, ids)

    def text(self, name: str, ids: np.ndarray) -> pa.Array:
        """Text feature `name` by item id, null where there is none."""
        return self._take(self.texts[name], ids)

    def _take(self, array: pa.Array, ids: np.ndarray) -> pa.Array:
        rows = self.rows_of_ids(ids)
        return array.take(pa.array(rows, mask=rows < 0))

    def save(self, folder: Path, version: int) -> Path | None:
        """Write the items that are new in this version as an immutable segment `VERSION.arrow` (by rename); None and
        no file if there are none."""
        if self.num_saved == len(self):
            return None
        index = np.arange(self.num_saved, len(self))
        reached = self.reached[index].view(np.uint8)
        columns: Columns = {"@code": self.code[index], "@id": self.id[index], "@reached": reached}
        columns["@time"] = self.time[index]
        columns |= {name: take_rows(column, index) for name, column in self.columns.items()}
        columns |= {_CODE + name: take_rows(column, index) for name, column in self.codes.items()}
        batch = to_arrow(columns).append_column("@key", self.key.slice(self.num_saved))
        for name, text in self.texts.items():
            batch = batch.append_column(_TEXT + name, text.slice(self.num_saved))
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{version:03d}.arrow"
        partial = path.with_suffix(f".{os.getpid()}.partial")
        with pa.OSFile(str(partial), "wb") as sink, pa.ipc.new_file(sink, batch.schema) as writer:
            writer.write_batch(batch)
        os.replace(partial, path)
        return path

    @staticmethod
    def load(folder: Path, versions: list[int] | None = None) -> ItemTable:
        """The catalogue of these versions' segments, ascending (all in the folder if None), memory-mapped. A version
        without a file added no items."""
        found = sorted(int(path.stem) for path in folder.glob("*.arrow"))
        chosen = found if versions is None else [version for version in sorted(versions) if version in found]
        if not chosen:
            raise FileNotFoundError(f"Expected segments of the item table in {folder}, found {found} of {versions}.")
        tables = []
        for version in chosen:
            batch = pa.ipc.open_file(pa.memory_map(str(folder / f"{version:03d}.arrow"))).get_batch(0)
            text_names = [name for name in batch.schema.names if name.startswith(_TEXT)]
            columns = from_arrow(batch, [n for n in batch.schema.names if n not in (*text_names, "@key")])
            code, id, reached, time = (codes_of(columns.pop(name)) for name in _OWN)
            codes = {n.removeprefix(_CODE): columns.pop(n) for n in list(columns) if n.startswith(_CODE)}
            texts = {name.removeprefix(_TEXT): batch.column(name) for name in text_names}
            tables.append(ItemTable(code, id, reached.view(bool), time, batch.column("@key"), columns, codes, texts))
        table = tables[0]
        for newer in tables[1:]:
            table = table.append(newer)
        return table.saved()

    def saved(self) -> ItemTable:
        """The same table, all of it in files."""
        return replace(self, num_saved=len(self))

    def append(self, newer: ItemTable) -> ItemTable:
        """The table with another one's items after its own; an item of both is the newer one's from now on (it got
        another id)."""
        kept = np.flatnonzero(~np.isin(self.code, newer.code))
        own = self if len(kept) == len(self) else self._rows(kept)
        return ItemTable(
            np.concatenate([own.code, newer.code]),
            np.concatenate([own.id, newer.id]),
            np.concatenate([own.reached, newer.reached]),
            np.concatenate([own.time, newer.time]),
            pa.concat_arrays([own.key, newer.key]),
            {name: concat_column([column, newer.columns[name]]) for name, column in own.columns.items()},
            {name: concat_column([column, newer.codes[name]]) for name, column in own.codes.items()},
            {name: pa.concat_arrays([text, newer.texts[name]]) for name, text in own.texts.items()},
            len(own),
        )

    def _rows(self, index: np.ndarray) -> ItemTable:
        at = pa.array(index)
        return ItemTable(
            self.code[index],
            self.id[index],
            self.reached[index],
            self.time[index],
            self.key.take(at),
            {name: take_rows(column, index) for name, column in self.columns.items()},
            {name: take_rows(column, index) for name, column in self.codes.items()},
            {name: text.take(at) for name, text in self.texts.items()},
        )


class ItemTableBuilder:
    """Collects the first row of every item; memory is that of the distinct items. `known`: the table so far."""

    PENDING = 65_536  # rows that wait, at least, before they are merged (then: as many as there are items)

    def __init__(self, schema: Schema, known: ItemTable | None = None):
        features = [f for f in schema.all_features() if f.of == "item" and f.name != "item"]
        self.schema = schema
        self.features = [f for f in features if f.kind != "text"]
        self.texts = [f.name for f in features if f.kind == "text"]
        self.known = known
        self._there = np.empty(0, np.uint64) if known is None else np.sort(known.code)
        of_users = {f.key_space for f in schema.all_features() if f.column == schema.roles.user}
        growing = [f for f in self.features if f.key_space and schema.key_space(f.key_space).policy == "growing"]
        self._kept_codes = [f for f in growing if f.key_space not in of_users]
        self._first: Normalised | None = None  # with the columns @time and @ordinal, one row an item, by code
        self._pending: list[Normalised] = []

    def add(self, rows: Normalised, ordinals: np.ndarray) -> None:
        """Rows of the log and their numbers in it (int64); any order, the rows of one item may come in many calls."""
        names = ["item", *(name for f in self.features for name in (f.name, f"{f.name}@weights"))]
        columns = [name for name in names if name in rows.columns]
        time = rows.columns.get("@time", np.zeros(rows.num_rows, dtype=np.int64))
        part = rows.only(columns, self.texts)
        part = Normalised(
            rows.num_rows,
            {**part.columns, "@time": time, "@ordinal": ordinals.astype(np.int64)},
            part.texts,
            {"item": part.keys["item"]},
        )
        firsts = _first_rows(part)
        codes = part.array("item")[firsts]
        firsts = firsts[(codes != 0) & ~_is_in(codes, self._there)]
        if self._first is not None:
            firsts = firsts[self._is_earlier(part, firsts)]
        if len(firsts):
            self._pending.append(part.take(firsts))
        if sum(p.num_rows for p in self._pending) > max(self.PENDING, self._first.num_rows if self._first else 0):
            self._merge()

    def _is_earlier(self, part: Normalised, index: np.ndarray) -> np.ndarray:
        """Whether rows `index` are new items or earlier than what is held."""
        assert self._first is not None
        held, codes = self._first.array("item"), part.array("item")[index]
        place = np.minimum(np.searchsorted(held, codes), len(held) - 1)
        time, ordinal = self._first.array("@time")[place], self._first.array("@ordinal")[place]
        mine, number = part.array("@time")[index], part.array("@ordinal")[index]
        return (held[place] != codes) | (mine < time) | ((mine == time) & (number < ordinal))

    def _merge(self) -> None:
        parts = self._pending if self._first is None else [self._first, *self._pending]
        if parts:
            joined = Normalised.concat(parts)
            self._first = joined.take(_first_rows(joined))
        self._pending = []

    def finish(self, id_maps: Mapping[str, IdMap], scalers: Scalers) -> ItemTable | None:
        """The table with the new items encoded, and those that got another id; None if there is no item at all."""
        table = self.known
        moved, new = self._moved(id_maps), self._new(id_maps, scalers)
        newer = moved.append(new) if moved and new else moved or new
        return table.append(newer) if table and newer else table or newer

    def _moved(self, id_maps: Mapping[str, IdMap]) -> ItemTable | None:
        """Known items whose key has another id of its own by now: it was admitted, or came back after its eviction."""
        known, id_map = self.known, id_maps["item"]
        if known is None:
            return None
        ids = id_map.ids(known.code)
        at = np.flatnonzero((ids >= id_map.first_key_id) & (ids != known.id))
        if not len(at):
            return None
        rows = known._rows(at)
        columns = dict(rows.columns)
        for feature in self._kept_codes:
            code = rows.codes[feature.name]
            encoded = id_maps[feature.key_space].ids(codes_of(code))
            columns[feature.name] = Ragged(encoded, code.offsets) if isinstance(code, Ragged) else encoded
        return replace(rows, id=ids[at], reached=np.ones(len(at), dtype=bool), columns=columns)

    def _new(self, id_maps: Mapping[str, IdMap], scalers: Scalers) -> ItemTable | None:
        self._merge()
        rows, id_map = self._first, id_maps["item"]
        if rows is None:
            return None
        rows = rows.take(np.lexsort((rows.array("@ordinal"), rows.array("@time"))))
        columns: Columns = {}
        for feature in self.features:
            columns |= encode_feature(feature, rows.columns, None, id_maps, scalers)
        code = rows.array("item")
        ids = id_map.ids(code)
        reached = np.full(len(ids), True) if id_map.space.policy == "hashed" else ids >= id_map.first_key_id
        keys = rows.keys["item"]
        place = np.searchsorted(keys.unique_codes, code)
        time = rows.array("@time") if self.schema.roles.time else np.full(len(code), ALWAYS)
        texts = keys.unique_texts.take(pa.array(place))
        codes = {f.name: rows.columns[f.name] for f in self._kept_codes}
        return ItemTable(code, ids, reached, time, texts, columns, codes, rows.texts)


def _first_rows(rows: Normalised) -> np.ndarray:
    """For every item the row of least (time, ordinal), by item code."""
    codes = rows.array("item")
    order = np.lexsort((rows.array("@ordinal"), rows.array("@time"), codes))
    starts = np.ones(len(order), dtype=bool)
    starts[1:] = np.diff(codes[order]) != 0
    return order[starts]


def _is_in(codes: np.ndarray, ascending: np.ndarray) -> np.ndarray:
    if not len(ascending):
        return np.zeros(len(codes), dtype=bool)
    return ascending[np.minimum(np.searchsorted(ascending, codes), len(ascending) - 1)] == codes
