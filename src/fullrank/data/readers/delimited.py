# pyarrow.compute makes its functions when it is imported, where pyright does not see them:
# pyright: reportAttributeAccessIssue=false
"""Delimited text (CSV, TSV, plain or gzipped) as record batches of texts and of lists of texts.

Nothing is typed here: `007` stays a text, and whether `1.5x` is a number is asked where the schema is known
(`normalise`), which names its row. Types inferred from a file's first block would fail only later, and elsewhere.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as csv

from fullrank.data.columns import DataError
from fullrank.data.source import CHUNK_ROWS
from fullrank.schema import did_you_mean

# A number is a text too, but `NA` means nothing in it. `double` is parsed here: for many columns of plain numbers.
ColumnKind = Literal["text", "number", "list", "double"]

_MISSING_NUMBERS = ["NaN", "nan", "NA", "N/A", "n/a", "null", "NULL", "None"]
_BLOCK_BYTES = 4 << 20  # the longest line that can be read


def read_delimited(
    file: Path,
    columns: Mapping[str, ColumnKind],
    *,
    delimiter: str,
    header: Sequence[str] = (),
    separator: str = "|",
    skip: int = 0,
    opened: Callable[[], pa.NativeFile] | None = None,
) -> Iterator[pa.RecordBatch]:
    """The named columns of `file`, at most `CHUNK_ROWS` rows at a time.

    `header` names the columns of a file that has no first line of names. A `list` is written with `separator` between
    its values. An empty field is missing (a list cannot be told from an empty one); so are `NA`, `NaN`, `null` and the
    like where a number is due, and only there. Quotes mean something in CSV, nothing in tab-separated text. `skip`:
    how many lines come before the first row (or the names). `opened` streams the content where it is not `file` itself
    (`Bundle.open`).
    """
    read = csv.ReadOptions(
        column_names=list(header) or None, skip_rows=skip, block_size=_BLOCK_BYTES, use_threads=False
    )
    opened = opened or (lambda: pa.input_stream(str(file)))
    options = {
        "read_options": read,
        "parse_options": csv.ParseOptions(
            delimiter=delimiter,
            quote_char=False if delimiter == "\t" else '"',
            newlines_in_values=delimiter != "\t",
        ),
    }
    try:
        with opened() as stream, csv.open_csv(stream, **options) as reader:
            check_columns(file, columns, reader.schema.names)
        convert = csv.ConvertOptions(
            column_types={name: pa.float64() if kind == "double" else pa.string() for name, kind in columns.items()},
            include_columns=list(columns),
            strings_can_be_null=True,
            null_values=[""],
        )
        with opened() as stream, csv.open_csv(stream, convert_options=convert, **options) as reader:
            for block in reader:
                for start in range(0, block.num_rows, CHUNK_ROWS):
                    yield _cells(block.slice(start, CHUNK_ROWS), columns, separator)
    except (pa.ArrowException, OSError) as error:
        raise DataError(_explain(file, str(error))) from error


def check_columns(file: Path, wanted: Mapping[str, object] | Sequence[str], found: Sequence[str]) -> None:
    """Every wanted column is there, or one error that names the nearest."""
    for name in wanted:
        if name not in found:
            near = did_you_mean(name, list(found))
            raise DataError(
                f"{file}: expected column {name!r}, which the schema names; the file has {list(found)}.{near} "
                "Rename it in the schema, or take it out."
            )
        if list(found).count(name) > 1:
            raise DataError(f"{file}: expected one column {name!r}, got {list(found).count(name)}. Rename all but one.")


def _explain(file: Path, problem: str) -> str:
    line = re.search(r"Row #(\d+)", problem)
    where = f"{file}, line {line.group(1)}" if line else str(file)
    if ragged := re.search(r"Expected (\d+) columns, got (\d+): (.*)", problem, re.DOTALL):
        expected, got, text = ragged.groups()
        return (
            f"{where}: expected {expected} fields, got {got}: {text[:120]!r}. "
            "Mend the line, or quote the field that holds the delimiter."
        )
    if wrong := re.search(r"error to double: invalid value '(.*)'", problem, re.DOTALL):
        return f"{where}: expected a number, got {wrong.group(1)[:120]!r}. Mend the line."
    if "invalid UTF8" in problem:
        return f"{where}: expected UTF-8, got bytes that are none. Save the file as UTF-8 (e.g. `iconv -t UTF-8`)."
    if "Truncated" in problem or "inflate" in problem:
        return f"{where}: expected a whole gzip file, got a broken one ({problem}). Fetch or write it again."
    if "straddl" in problem or "Empty CSV" in problem:
        wrong = "no line at all" if "Empty" in problem else "a quote that never closes or a line over 4 MB"
        return f"{where}: expected delimited text, got {wrong}. Look at the file, or leave it out."
    return f"{where}: cannot be read as delimited text ({problem}). Look at the file, or leave it out."


def _cells(batch: pa.RecordBatch, columns: Mapping[str, ColumnKind], separator: str) -> pa.RecordBatch:
    arrays = []
    for name, kind in columns.items():
        array = batch.column(name)
        if kind == "list":
            array = pc.split_pattern(array, separator)
        elif kind == "number":
            missing = pc.is_in(array, value_set=pa.array(_MISSING_NUMBERS))
            array = pc.if_else(missing, pa.scalar(None, pa.string()), array)
        arrays.append(array)
    return pa.RecordBatch.from_arrays(arrays, names=list(columns))
