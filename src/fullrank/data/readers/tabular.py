"""Any Parquet or delimited file, read through a schema: only the columns it names, a chunk at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pyarrow as pa

from fullrank.data.columns import DataError
from fullrank.data.readers.delimited import ColumnKind, check_columns, read_delimited
from fullrank.data.source import CHUNK_ROWS, LogChunk, LogSource, fingerprint_of_files
from fullrank.data.splits import SPLITS
from fullrank.schema import Schema, did_you_mean

_KEY_ROLES = ("user", "item", "request", "impression", "scenario", "campaign", "advertiser")
_DELIMITERS = {".csv": ",", ".tsv": "\t", ".csv.gz": ",", ".tsv.gz": "\t"}
_PARQUET = (".parquet", ".pq")
_KINDS: dict[str, ColumnKind] = {
    "categorical": "text",
    "text": "text",
    "numeric": "number",
    "multi": "list",
    "vector": "list",
}


def columns_read(schema: Schema) -> dict[str, ColumnKind]:
    """Every column of the log that the schema reads, and what it is in delimited text."""
    columns: dict[str, ColumnKind] = {}

    def read(column: str, kind: ColumnKind) -> None:
        if column:  # a column read as a key and as a number (a label that is a feature too) stays text
            columns[column] = "text" if "text" in (kind, columns.get(column)) else kind

    for role, column in schema.roles.columns().items():
        read(column, "text" if role in _KEY_ROLES else "number")
    for feature in schema.features:
        read(feature.column, _KINDS[feature.kind])
        read(feature.weights, "list")
    for task in schema.tasks:
        read(task.column, "number")
        read(task.label_time, "number")
    for history in schema.histories:
        if history.layout == "by_user" and history.source == "file":
            continue  # its columns are in the events' own source
        inline = history.layout == "inline"
        read(history.item, "list" if inline else "text")
        read(history.time, "list" if inline else "number")
        read(history.where, "number")
        for feature in history.features:
            read(feature.column, "list" if inline else _KINDS[feature.kind])
        for outcome in history.outcomes:
            read(outcome.column, "list" if inline else "number")
            read(outcome.time, "list" if inline else "number")
    return columns


class TabularSource:
    """Rows of `.parquet`, `.csv`, `.tsv` (also `.gz`) files, in the order given; a folder stands for its files by name.

    `splits` gives each of `files` to `train`, `valid` or `test`. Records hold just the columns the schema reads: from
    Parquet as they are, from delimited text as texts, a list (multi, vector, inline history) being written with
    `separator` between its values. `events` are the event files of `source = "file"` histories, each a source with a
    schema of its own.

    Every fault of a file is one `DataError` that names it. Not for files that grow while they are read.
    """

    def __init__(
        self,
        files: Sequence[Path | str],
        schema: Schema,
        splits: Sequence[str] | None = None,
        *,
        name: str = "",
        separator: str = "|",
        events: Mapping[str, LogSource] | None = None,
    ) -> None:
        if splits is not None and len(splits) != len(files):
            raise DataError(f"Expected one split for each of {len(files)} files, got {len(splits)}: {list(splits)}.")
        for split in splits or ():
            if split not in SPLITS:
                near = did_you_mean(split, SPLITS)
                raise DataError(f"Expected a split to be one of {list(SPLITS)}, got {split!r}.{near}")
        self._parts = [
            (file, split)
            for path, split in zip(files, splits or [""] * len(files), strict=True)
            for file in _files_in(Path(path))
        ]
        if not self._parts:
            raise DataError("Expected at least one file to read, got none.")
        self._separator = separator
        self.name = name or self._parts[0][0].name
        self.schema = schema
        self.events: Mapping[str, LogSource] = events or {}

    def chunks(self) -> Iterator[LogChunk]:
        columns = columns_read(self.schema)
        for file, split in self._parts:
            first_row = 0
            if _suffix(file) in _PARQUET:
                batches = read_parquet(file, list(columns))
            else:
                batches = read_delimited(
                    file, columns, delimiter=_DELIMITERS[_suffix(file)], separator=self._separator
                )
            for records in batches:
                yield LogChunk(records, str(file), first_row, split)
                first_row += records.num_rows

    def fingerprint(self) -> str:
        return fingerprint_of_files(file for file, _ in self._parts)


def read_parquet(file: Path, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """The named columns of a Parquet file, row group by row group, at most `CHUNK_ROWS` rows at a time.

    Memory-mapped and not buffered ahead: what is held is one batch and the pages it is decoded from.
    """
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(file, memory_map=True, pre_buffer=False) as parquet:
            check_columns(file, columns, parquet.schema_arrow.names)
            for group in range(parquet.num_row_groups):
                for batch in parquet.iter_batches(CHUNK_ROWS, [group], list(columns), use_threads=False):
                    if batch.num_rows:
                        yield _plain(batch.select(list(columns)))
    except (pa.ArrowException, OSError) as error:
        raise DataError(
            f"{file}: expected a whole Parquet file, got one that cannot be read ({error}). It may be truncated: "
            "write or fetch it again."
        ) from error


def _plain(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The batch with dictionary-encoded columns written out."""
    arrays = [a.dictionary_decode() if pa.types.is_dictionary(a.type) else a for a in batch.columns]
    return pa.RecordBatch.from_arrays(arrays, names=batch.schema.names)


def _suffix(file: Path) -> str:
    return "".join(file.suffixes[-2:]).lower() if file.suffix.lower() == ".gz" else file.suffix.lower()


def _files_in(path: Path) -> list[Path]:
    readable = (*_PARQUET, *_DELIMITERS)
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.is_file() and _suffix(file) in readable)
        if not files:
            raise DataError(f"{path}: expected a folder with files of {', '.join(readable)}, got none.")
        return files
    if not path.is_file():
        beside = [other.name for other in path.parent.iterdir()] if path.parent.is_dir() else []
        raise DataError(f"{path}: no such file.{did_you_mean(path.name, beside)}")
    if _suffix(path) not in readable:
        raise DataError(f"{path}: expected one of {', '.join(readable)}, got {_suffix(path) or 'no suffix'!r}.")
    return [path]
