"""Where rows come from: a source streams Arrow record batches and can say what they mean and what they are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Protocol

import pyarrow as pa

from fullrank.schema import Schema

CHUNK_ROWS = 65_536


@dataclass(frozen=True)
class LogChunk:
    """Up to `CHUNK_ROWS` consecutive rows of one file.

    `first_row` counts the file's rows before them: an error names `file` and row `first_row + i + 1` (rows count from
    1, headers not). `split` is `train`, `valid` or `test` where files were given as splits.
    """

    records: pa.RecordBatch
    file: str
    first_row: int
    split: str = ""


class LogSource(Protocol):
    """A log that can be read again and again, a chunk at a time, in memory that does not grow with its rows.

    `schema` says what the columns mean; records may hold more columns than it names. `events` holds the event files of
    histories with `source = "file"`, by history name; an event source's own schema types its columns.
    """

    @property
    def name(self) -> str: ...

    @property
    def schema(self) -> Schema: ...

    @property
    def events(self) -> Mapping[str, LogSource]: ...

    def chunks(self) -> Iterator[LogChunk]:
        """The rows from the first to the last; every call starts anew and yields the same."""
        ...

    def fingerprint(self) -> str:
        """A hash of the contents: equal exactly when the rows are (names and places of files do not count)."""
        ...


def fingerprint_of(contents: Iterable[bytes]) -> str:
    """One hash of several byte strings; where one ends and the next begins counts."""
    whole = blake2b(digest_size=16)
    for content in contents:
        whole.update(blake2b(content, digest_size=16).digest())
    return whole.hexdigest()


def fingerprint_of_files(files: Iterable[Path]) -> str:
    """`fingerprint_of` the files' contents, read a piece at a time."""
    whole = blake2b(digest_size=16)
    for path in files:
        one = blake2b(digest_size=16)
        with path.open("rb") as file:
            while piece := file.read(1 << 20):
                one.update(piece)
        whole.update(one.digest())
    return whole.hexdigest()


def write_parquet(source: LogSource, path: Path) -> Path:
    """The rows of `source` as one Parquet file, one row group a chunk (an empty source cannot be written)."""
    import pyarrow.parquet as pq

    writer = None
    try:
        for chunk in source.chunks():
            writer = writer or pq.ParquetWriter(path, chunk.records.schema)
            writer.write_batch(chunk.records)
    finally:
        if writer is not None:
            writer.close()
    if writer is None:
        raise ValueError(f"Expected {source.name} to have rows, got none: {path} was not written.")
    return path
