"""What the MovieLens readers share: text tables, titles with years, the schema, and ratings joined with attributes."""

# pyarrow.compute makes its functions when it is imported, where pyright does not see them:
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as csv

from fullrank.data.bundle import Bundle
from fullrank.data.columns import DataError
from fullrank.data.source import CHUNK_ROWS, LogChunk, LogSource, fingerprint_of
from fullrank.data.splits import ByTime, PerUserOrder, Split
from fullrank.schema import EventFeature, Feature, History, Roles, Schema, Task

_YEAR = re.compile(r"^(.*?)\s*\((\d{4})(?:[-–]\d{0,4})?\)\s*(?:\([^)]*\)\s*)?$")


def split_title(title: str) -> tuple[str, int | None]:
    """`Toy Story (1995)` → `Toy Story`, 1995; a mark after the year, as in `(1995) (V)`, goes with it."""
    match = _YEAR.match(title)
    return (match.group(1), int(match.group(2))) if match else (title.strip(), None)


def read_table(
    bundle: Bundle,
    name: str,
    columns: Mapping[str, pa.DataType],
    *,
    delimiter: str,
    skip: int = 0,
    encoding: str = "utf-8",
) -> pa.Table:
    """A whole text file, plain or gzipped, with these columns in this order; `::` is a delimiter too (no field holds
    a tab)."""
    data = bundle.read(name)
    try:
        if name.endswith(".gz"):
            data = gzip.decompress(data)
        if delimiter == "::":
            data, delimiter = data.replace(b"::", b"\t"), "\t"
        return csv.read_csv(
            pa.BufferReader(data),
            csv.ReadOptions(column_names=list(columns), skip_rows=skip, encoding=encoding, use_threads=False),
            csv.ParseOptions(delimiter=delimiter, quote_char='"' if delimiter == "," else False),
            csv.ConvertOptions(column_types=dict(columns)),
        )
    except (pa.ArrowException, UnicodeDecodeError, OSError, EOFError, zlib.error) as error:
        raise DataError(
            f"{bundle.label(name)}: expected the columns {list(columns)} ({error}). Is this the set's own file? "
            "Get it again."
        ) from error


def items_table(item: pa.ChunkedArray, titles: Sequence[str], genres: pa.Array) -> pa.Table:
    """Items by id, with `title` and `year` out of the full titles."""
    parts = [split_title(title) for title in titles]
    return pa.table(
        {
            "item": item,
            "title": pa.array([title for title, _ in parts], pa.string()),
            "year": pa.array([year for _, year in parts], pa.int32()),
            "genres": genres,
        }
    )


def genre_lists(texts: pa.Array | pa.ChunkedArray, separator: str) -> pa.Array:
    """`Action|Drama` as a list; what the files write for none is an empty list."""
    if isinstance(texts, pa.ChunkedArray):
        texts = texts.combine_chunks()
    lists = pc.split_pattern(texts, separator)
    none = pc.is_in(texts, value_set=pa.array(["", "(no genres listed)"]))
    return pc.if_else(none, pa.scalar([], lists.type), lists)


def movielens_schema(
    name: str, profile: tuple[Feature, ...], *, clock: bool = True, rating_column: str = "rating"
) -> Schema:
    """Tasks `liked` (rating >= 4) and `loved` (rating 5), history `rated` with each event's rating as a key."""
    return Schema(
        name=name,
        roles=Roles(user="user", item="item", time="time" if clock else "", order="" if clock else "position"),
        time_unit="s" if clock else "position",
        features=(
            *profile,
            Feature(name="genres", kind="multi", of="item"),
            Feature(name="year", kind="numeric", of="item"),
            Feature(name="title", kind="text", of="item"),
        ),
        histories=(History(name="rated", features=(EventFeature(name="rating", column=rating_column),)),),
        tasks=(Task(name="liked"), Task(name="loved")),
    )


class MovieLensSource:
    """Ratings (columns user, item, rating and a time or position) as log rows, in file order, joined with the
    attributes of their user and item; what the tables do not know is missing. Ratings are held whole in memory
    (32 bytes each), rows are joined a chunk at a time. `notes` says what was left out.

    `zip` (about one user each) is in the records but is no feature of the schema.
    """

    def __init__(
        self,
        schema: Schema,
        bundle: Bundle,
        files: Sequence[str],
        ratings: pa.Table,
        items: pa.Table,
        users: pa.Table | None = None,
        notes: tuple[str, ...] = (),
    ) -> None:
        self.name = schema.name
        self.schema = schema
        self.events: Mapping[str, LogSource] = {}
        self.notes = notes
        self.split: Split = ByTime() if schema.roles.time else PerUserOrder()
        self.as_of: int | None = None
        self._bundle = bundle
        self._files = files
        self._ratings = ratings.combine_chunks()
        self._joined = [("item", items.combine_chunks())]
        if users is not None:
            self._joined.append(("user", users.combine_chunks()))

    def chunks(self) -> Iterator[LogChunk]:
        for start in range(0, self._ratings.num_rows, CHUNK_ROWS):
            part = self._ratings.slice(start, CHUNK_ROWS)
            columns: dict[str, pa.Array | pa.ChunkedArray] = {name: part[name] for name in part.column_names}
            columns["liked"] = pc.cast(pc.greater_equal(part["rating"], 4), pa.int8())
            columns["loved"] = pc.cast(pc.greater_equal(part["rating"], 5), pa.int8())
            for key, table in self._joined:
                index = index_in(part[key].to_numpy(), table[key].to_numpy())
                for name in table.column_names:
                    if name != key:
                        columns[name] = table[name].take(index)
            (records,) = pa.table(columns).combine_chunks().to_batches()
            yield LogChunk(records, self._bundle.label(self._files[0]), start)

    def fingerprint(self) -> str:
        return fingerprint_of(self._bundle.read(name) for name in self._files)


def index_in(wanted: np.ndarray, keys: np.ndarray) -> pa.Array:
    """Where each wanted key stands in `keys` (no order, no doubles); null where it does not."""
    order = np.argsort(keys, kind="stable")
    place = np.minimum(np.searchsorted(keys, wanted, sorter=order), len(keys) - 1)
    index = order[place]
    return pa.array(index, mask=keys[index] != wanted)
