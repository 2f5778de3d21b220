"""What readers of public logs have in common: a bundle of files, a schema, and how the set is usually split."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

import numpy as np
import pyarrow as pa

from fullrank.data.bundle import Bundle
from fullrank.data.readers.delimited import ColumnKind, read_delimited
from fullrank.data.source import LogChunk, LogSource
from fullrank.data.splits import Split
from fullrank.schema import Schema

ROW = "row"  # the column that numbers rows over all files; the impression of logs that have no name for one


class PublicSource(LogSource, Protocol):
    """A public set. `split` is how people who publish on it split it, and `as_of` (µs) the moment from which every
    label is known, where that is later than the last row (None: it is not)."""

    @property
    def split(self) -> Split: ...

    @property
    def as_of(self) -> int | None: ...


class PublicLog:
    """A `PublicSource` over files of a `Bundle`; a subclass gives the rows (`chunks`)."""

    NAME = ""

    def __init__(
        self, schema: Schema, bundle: Bundle, files: Sequence[str], split: Split, *, as_of: int | None = None
    ) -> None:
        self.name = schema.name
        self.schema = schema
        self.events: Mapping[str, LogSource] = {}
        self.split = split
        self.as_of = as_of
        self._bundle = bundle
        self._files = list(files)

    def chunks(self) -> Iterator[LogChunk]:
        raise NotImplementedError

    def fingerprint(self) -> str:
        return self._bundle.fingerprint(self._files)

    def _delimited(
        self, name: str, columns: Mapping[str, ColumnKind], *, header: Sequence[str] = (), skip: int = 0
    ) -> Iterator[pa.RecordBatch]:
        """The named columns of a file with commas."""
        return read_delimited(
            self._bundle.path / name if self._bundle.path.is_dir() else self._bundle.path,
            columns,
            delimiter=",",
            header=header,
            skip=skip,
            opened=lambda: self._bundle.open(name),
        )


def numbered(records: pa.RecordBatch, first: int) -> pa.RecordBatch:
    """The records with the column `ROW`: first, first + 1, …"""
    return records.append_column(ROW, pa.array(np.arange(first, first + records.num_rows)))


def with_columns(records: pa.RecordBatch, columns: Mapping[str, pa.Array]) -> pa.RecordBatch:
    """The records with these columns, in the place of those of the same name or after them."""
    every = dict(zip(records.schema.names, records.columns, strict=True)) | dict(columns)
    return pa.RecordBatch.from_arrays(list(every.values()), names=list(every))
