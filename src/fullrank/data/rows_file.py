"""Rows to predict, from a file: the columns of the log that are there, a chunk of whole requests at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from fullrank.data.ask import columns_asked
from fullrank.data.columns import DataError
from fullrank.data.readers.delimited import ColumnKind, check_columns, read_delimited
from fullrank.data.readers.tabular import read_parquet
from fullrank.data.source import LogChunk
from fullrank.schema import Schema, did_you_mean

PIECE_ROWS = 8_192  # each with a history of its own: their events are what takes memory
_DELIMITERS = {".csv": ",", ".csv.gz": ",", ".tsv": "\t", ".tsv.gz": "\t"}
_PARQUET = (".parquet", ".pq")


def read_rows(file: Path, schema: Schema, *, keep: Sequence[str] = ()) -> Iterator[LogChunk]:
    """The columns of a Parquet, CSV or TSV file (also `.gz`) that `schema` reads and the file has, and `keep`.

    Chunks have about `PIECE_ROWS` rows. Consecutive rows of one request are never parted between two of them (unless
    one request fills a chunk). A file that
    has none of the schema's columns, or lacks one of `keep`, is a `DataError`.
    """
    suffix = "".join(file.suffixes[-2:]).lower() if file.suffix.lower() == ".gz" else file.suffix.lower()
    if not file.is_file():
        beside = [other.name for other in file.parent.iterdir()] if file.parent.is_dir() else []
        raise DataError(f"{file}: expected a file of rows, found none.{did_you_mean(file.name, beside)}")
    if suffix not in (*_PARQUET, *_DELIMITERS):
        readable = ", ".join((*_PARQUET, *_DELIMITERS))
        raise DataError(f"{file}: expected one of {readable}, got {suffix or 'no suffix'!r}.")
    wanted = columns_asked(schema)
    found = _names(file, suffix)
    there: dict[str, ColumnKind] = {name: kind for name, kind in wanted.items() if name in found}
    if not there:
        raise DataError(f"{file}: expected some of the columns {list(wanted)}, which the run reads; it has {found}.")
    check_columns(file, keep, found)
    for name in keep:
        there.setdefault(name, "text")
    if suffix in _PARQUET:
        batches = read_parquet(file, list(there))
    else:
        batches = read_delimited(file, there, delimiter=_DELIMITERS[suffix])
    pieces = (batch.slice(at, PIECE_ROWS) for batch in batches for at in range(0, batch.num_rows, PIECE_ROWS))
    yield from _whole_requests(pieces, str(file), schema.roles.request)


def _names(file: Path, suffix: str) -> list[str]:
    try:
        if suffix in _PARQUET:
            import pyarrow.parquet as pq

            return pq.read_schema(file).names
        import pyarrow.csv as csv

        parse = csv.ParseOptions(delimiter=_DELIMITERS[suffix], quote_char=False if "tsv" in suffix else '"')
        with pa.input_stream(str(file)) as stream, csv.open_csv(stream, parse_options=parse) as reader:
            return reader.schema.names
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{file}: expected a readable {suffix} file, got: {error}") from error


def _whole_requests(batches: Iterator[pa.RecordBatch], file: str, request: str) -> Iterator[LogChunk]:
    """The batches, each cut where its last request begins; what is cut off comes with the next."""
    rest: pa.RecordBatch | None = None
    first_row = 0
    for batch in batches:
        if rest is not None:
            (batch,) = pa.Table.from_batches([rest, batch]).combine_chunks().to_batches()
            rest = None
        end = batch.num_rows
        if request in batch.schema.names:
            codes = batch.column(request).dictionary_encode().indices.fill_null(-1).to_numpy()
            same = np.flatnonzero(codes != codes[-1])
            cut = int(same[-1]) + 1 if len(same) else 0
            if cut:  # else the whole chunk is one request
                rest, end = batch.slice(cut), cut
        yield LogChunk(batch.slice(0, end), file, first_row)
        first_row += end
    if rest is not None:
        yield LogChunk(rest, file, first_row)
