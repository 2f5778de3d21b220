"""The first rows of a log, and what each of its columns looks like: the evidence that `infer.py` guesses from."""

# pyright: reportAttributeAccessIssue=false
# (pyarrow.compute makes its functions when it is imported: a type checker can't see them)
from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as csv
import pyarrow.parquet as pq

from fullrank.data.columns import DataError
from fullrank.data.normalise_cells import Cells, Origin, plain
from fullrank.data.normalise_lists import are_json, parsed
from fullrank.schema import TimeUnit, did_you_mean

SAMPLE_ROWS = 200_000
SAMPLE_BYTES = 256 << 20
TICKS: dict[TimeUnit, int] = {"s": 1, "ms": 1_000, "us": 1_000_000}
_BATCH = 16_384
_DELIMITERS = {".csv": ",", ".csv.gz": ",", ".tsv": "\t", ".tsv.gz": "\t"}
_PARQUET = (".parquet", ".pq")
_ZERO = frozenset({"0", "0.0", "false", "no", "n"})
_ONE = frozenset({"1", "1.0", "true", "yes", "y"})
_NO_NUMBER = ["", "NaN", "nan", "NA", "N/A", "null", "NULL", "None", "-"]

Type = Literal["integer", "number", "bool", "text", "time", "integers", "numbers", "texts", "empty", "other"]


@dataclass(frozen=True)
class Column:
    """One column of the sample. `words` is its name taken apart: `userId` and `USER_ID` are both (user, id)."""

    name: str
    array: pa.Array
    type: Type
    is_json: bool = False  # the log holds texts, JSON arrays, which were read as lists

    @cached_property
    def words(self) -> tuple[str, ...]:
        apart = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", self.name)
        return tuple(re.findall(r"[^\W_]+", apart.lower()))

    @property
    def rows(self) -> int:
        return len(self.array)

    @property
    def is_list(self) -> bool:
        return self.type in ("integers", "numbers", "texts")

    @property
    def present(self) -> int:
        return self.rows - self.array.null_count

    @cached_property
    def codes(self) -> np.ndarray:
        """int64 [rows]: equal values (or lists), equal codes; -1 where missing (or empty)."""
        flat = pc.fill_null(self.flat.dictionary_encode().indices, -1)
        codes = flat.to_numpy(zero_copy_only=False).astype(np.int64)
        if not self.is_list:
            return codes
        # A list's code: a sum of its values' codes, each times a number of its own for every place in the list.
        ends = np.cumsum(self.lengths)
        place = np.arange(len(codes)) - np.repeat(ends - self.lengths, self.lengths)
        weight = np.random.default_rng(0).integers(1, 2**62, int(self.lengths.max(initial=1)))
        sums = np.concatenate([[0], np.cumsum((codes + 2) * weight[place])])  # int64 wraps around: still a function
        codes = np.unique(sums[ends] - sums[ends - self.lengths], return_inverse=True)[1]
        return np.where(self.lengths > 0, codes, -1)

    @cached_property
    def distinct(self) -> int:
        """Distinct values, or distinct values within lists."""
        return len(pc.unique(self.flat.drop_null()))

    @cached_property
    def flat(self) -> pa.Array:
        """The values, or those of all lists one after another."""
        return self.array.flatten() if self.is_list else self.array

    @cached_property
    def lengths(self) -> np.ndarray:
        """int64 [rows]: the length of each list, 0 where missing."""
        return pc.fill_null(pc.list_value_length(self.array), 0).to_numpy(zero_copy_only=False).astype(np.int64)

    @cached_property
    def numbers(self) -> np.ndarray:
        """float64: the values that are not missing (of lists: all of them), as numbers."""
        return self.flat.drop_null().cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)

    @cached_property
    def values(self) -> frozenset[str]:
        """The distinct values as lower-case text; empty when they are more than 100."""
        if self.distinct > 100:
            return frozenset()
        return frozenset(str(value).strip().lower() for value in pc.unique(self.flat.drop_null()).to_pylist())

    @property
    def is_binary(self) -> bool:
        """Only 0 and 1, as numbers, bools or words."""
        return bool(self.values) and self.values <= _ZERO | _ONE

    def positive(self) -> np.ndarray:
        """bool [rows] of a binary column: where it is 1."""
        words = pc.utf8_lower(pc.utf8_trim_whitespace(self.array.cast(pa.string())))
        one = pc.is_in(words, value_set=pa.array(sorted(_ONE)))
        return pc.fill_null(one, False).to_numpy(zero_copy_only=False)

    def seconds(self, unit: TimeUnit) -> np.ndarray:
        """float64 [rows] of a column of times: seconds, NaN where missing. Numbers are in `unit`."""
        if self.type == "time":
            array = self.array.cast(pa.int64()).cast(pa.float64(), safe=False)
            return array.to_numpy(zero_copy_only=False) / 1_000_000
        return self.array.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False) / TICKS[unit]


@dataclass(frozen=True)
class Sample:
    """The first rows of one file. `total_rows` is None where only reading the whole file could tell."""

    file: str
    columns: tuple[Column, ...]
    rows: int
    total_rows: int | None


def read_sample(path: Path, rows: int = SAMPLE_ROWS) -> Sample:
    """The first `rows` rows (fewer if they are wide) of a Parquet, CSV or TSV file, plain or gzipped.

    Raises `DataError` where the file is none of those, has no rows, or no names in its first line.
    """
    suffix = "".join(path.suffixes[-2:]).lower() if path.suffix.lower() == ".gz" else path.suffix.lower()
    if not path.is_file():
        beside = [other.name for other in path.parent.iterdir()] if path.parent.is_dir() else []
        raise DataError(f"{path}: expected a file, found none.{did_you_mean(path.name, beside)}")
    try:
        if suffix in _PARQUET:
            table, total = _first_of_parquet(path, rows)
        elif suffix in _DELIMITERS:
            table, total = _first_of_text(path, _DELIMITERS[suffix], rows), None
        else:
            endings = ", ".join((*_PARQUET, *_DELIMITERS))
            raise DataError(f"{path}: expected a file ending in {endings}, got {suffix or 'no ending'!r}.")
    except pa.ArrowInvalid as error:
        raise DataError(f"{path}: expected a readable {suffix} file, got: {error}.{_way_out(path, suffix)}") from None
    names = table.column_names
    for name in names:
        if not name.strip() or names.count(name) > 1:
            nameless = "a column without a name (row numbers, perhaps, that were written with the rows)"
            found = f"{name!r} {names.count(name)} times" if name.strip() else nameless
            raise DataError(f"{path}: expected every column to have a name of its own, got {found} in {names}.")
    if len(names) == 1 and ";" in names[0]:
        raise DataError(f"{path}: expected several columns, got one.{_way_out(path, suffix)}")
    if not table.num_rows:
        raise DataError(f"{path}: expected at least one row, got the columns {names} and no rows.")
    is_text = suffix in _DELIMITERS
    columns = tuple(_column(name, table[name].combine_chunks(), is_text) for name in names)
    whole = total is not None and total <= table.num_rows
    known = total if total is not None else (table.num_rows if table.num_rows < rows else None)
    return Sample(path.name, columns, table.num_rows, table.num_rows if whole else known)


def _first_of_parquet(path: Path, rows: int) -> tuple[pa.Table, int]:
    with pq.ParquetFile(path) as file:
        batches, count, size = [], 0, 0
        for batch in file.iter_batches(_BATCH):
            batches.append(batch.slice(0, rows - count))
            count, size = count + len(batches[-1]), size + batch.nbytes
            if count >= rows or size >= SAMPLE_BYTES:
                break
        return pa.Table.from_batches(batches, schema=file.schema_arrow), file.metadata.num_rows


def _first_of_text(path: Path, delimiter: str, rows: int) -> pa.Table:
    """All columns as text: what a column holds is decided from its whole sample, not from its first block."""
    parse = csv.ParseOptions(
        delimiter=delimiter, quote_char=False if delimiter == "\t" else '"', newlines_in_values=delimiter != "\t"
    )
    with pa.input_stream(str(path)) as stream, csv.open_csv(stream, parse_options=parse) as reader:
        names = reader.schema.names
    if names and all(re.fullmatch(r"-?[0-9.]*", name) for name in names):
        raise DataError(
            f"{path}: expected column names in the first line, got {names}. Add a line of names above the rows."
        )
    convert = csv.ConvertOptions(
        column_types={name: pa.string() for name in names}, strings_can_be_null=True, null_values=[""]
    )
    batches, count, size = [], 0, 0
    with (
        pa.input_stream(str(path)) as stream,
        csv.open_csv(stream, parse_options=parse, convert_options=convert) as reader,
    ):
        for batch in reader:
            batches.append(batch.slice(0, rows - count))
            count, size = count + len(batches[-1]), size + batch.nbytes
            if count >= rows or size >= SAMPLE_BYTES:
                break
        return pa.Table.from_batches(batches, schema=reader.schema)


def _column(name: str, array: pa.Array, is_text: bool) -> Column:
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if lists := _json_lists(name, array):
        return Column(name, *_typed(lists), is_json=True)
    array, kind = _typed_text(array) if is_text else _typed(array)
    return Column(name, array, "empty" if array.null_count == len(array) else kind)


def _json_lists(name: str, array: pa.Array) -> pa.Array | None:
    """The lists that a column of texts spells as JSON arrays; None where it does not."""
    array = plain(array)
    if not (pa.types.is_large_string(array.type) and are_json(array)):
        return None
    try:
        return parsed(Cells(Origin("sample"), name, array), array)
    except DataError:
        return None


def _typed(array: pa.Array) -> tuple[pa.Array, Type]:
    kind = array.type
    if pa.types.is_integer(kind):
        return array, "integer"
    if pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return _numbers(array.cast(pa.float64(), safe=False))
    if pa.types.is_boolean(kind):
        return array, "bool"
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        return array.cast(pa.timestamp("us"), safe=False), "time"
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        array = array.cast(pa.string())
        return _iso_times(array) or (array, "text")
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        array = array.cast(pa.large_list(kind.value_type))
        inner = _typed(array.flatten())[1]
        lists: dict[Type, Type] = {"integer": "integers", "number": "numbers", "text": "texts", "empty": "empty"}
        return array, lists.get(inner, "other")
    return array, "empty" if pa.types.is_null(kind) else "other"


def _numbers(array: pa.Array) -> tuple[pa.Array, Type]:
    """NaN is missing; numbers that are all integral are integers (a column with a missing value often comes so)."""
    array = pc.if_else(pc.is_nan(array), pa.scalar(None, pa.float64()), array)
    values = array.drop_null().to_numpy(zero_copy_only=False)
    whole = len(values) > 0 and bool(np.all((values == np.floor(values)) & (np.abs(values) < 2**53)))
    return (array.cast(pa.int64()), "integer") if whole else (array, "number")


def _typed_text(array: pa.Array) -> tuple[pa.Array, Type]:
    """Text of CSV as what it spells: integers, numbers, true/false, times, else text."""
    trimmed = pc.utf8_trim_whitespace(array)
    blank = pc.is_in(trimmed, value_set=pa.array(_NO_NUMBER))
    present = pc.if_else(blank, pa.scalar(None, pa.string()), trimmed)
    if present.null_count == len(array):
        return array, "text"
    if pc.any(pc.match_substring_regex(present, r"^-?0[0-9]")).as_py():
        return array, "text"  # 007 is not 7: a key
    if pc.all(pc.is_in(pc.utf8_lower(present), value_set=pa.array(["true", "false", None]))).as_py():
        return pc.equal(pc.utf8_lower(present), "true"), "bool"
    if pc.all(pc.is_in(pc.utf8_lower(present), value_set=pa.array([*_ZERO, *_ONE, None]))).as_py():
        return _zero_one(present)
    for kind in (pa.int64(), pa.uint64()):
        try:
            return present.cast(kind), "integer"
        except pa.ArrowInvalid:
            continue
    try:
        return _numbers(present.cast(pa.float64()))
    except pa.ArrowInvalid:
        return _iso_times(present) or (array, "text")


def _zero_one(array: pa.Array) -> tuple[pa.Array, Type]:
    """Texts of 0 and 1: integers where they are numbers, else the words, with null for `NA` and the like."""
    try:
        return array.cast(pa.float64()).cast(pa.int64()), "integer"
    except pa.ArrowInvalid:
        return array, "text"


def _iso_times(array: pa.Array) -> tuple[pa.Array, Type] | None:
    for kind in (pa.timestamp("us"), pa.timestamp("us", "UTC")):
        try:
            return array.cast(kind).cast(pa.timestamp("us")), "time"
        except pa.ArrowInvalid:
            continue
    return None


def _way_out(path: Path, suffix: str) -> str:
    """What to do about a text file that is not one, where its first line tells."""
    if suffix not in _DELIMITERS or suffix.endswith(".gz"):
        return ""
    with path.open("rb") as file:
        first = file.readline(1 << 16)
    delimiter = _DELIMITERS[suffix]
    for other, name, to_do in (
        (b";", "semicolons", "write the file again with commas and decimal points"),
        (b"\t", "tabs", "name the file .tsv"),
        (b",", "commas", "name the file .csv"),
    ):
        if other in first and delimiter.encode() not in first:
            return f" Its first line is separated by {name}: {to_do}."
    return ""
