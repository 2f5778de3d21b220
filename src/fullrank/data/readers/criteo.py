"""The Criteo display advertising format: a label, 13 counts, 26 hashed categories; no user, no item, no clock."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from fullrank.data.readers.delimited import ColumnKind, read_delimited
from fullrank.data.source import LogChunk, LogSource, fingerprint_of_files
from fullrank.data.splits import ByTime, GivenFiles, Split
from fullrank.schema import Feature, KeySpace, Roles, Schema, Task

NUMBERS = tuple(f"I{number}" for number in range(1, 14))
CATEGORIES = tuple(f"C{number}" for number in range(1, 27))
FILES = ("train.txt", "train_examples.txt.gz")


def criteo_schema(*, min_count: int = 10) -> Schema:
    """All 39 columns as features of the pair of an unknown user and an unknown ad.

    A category value seen fewer than `min_count` times in training has no id of its own (10: our choice; the full log
    has tens of millions of such values). Counts are heavy-tailed and reach below zero, so their scale is `log`, which
    is signed. `row` (the row's number over all files) is the order, as the competition's file is in time order, and
    the name of the impression, by which a split by hash can draw.
    """
    return Schema(
        name="criteo",
        roles=Roles(impression="row", order="row"),
        time_unit="position",
        features=(
            *(Feature(name=name, kind="numeric", of="pair", scale="log") for name in NUMBERS),
            *(Feature(name=name, kind="categorical", of="pair") for name in CATEGORIES),
        ),
        tasks=(Task(name="click"),),
        key_spaces=tuple(KeySpace(name=name, min_count=min_count) for name in CATEGORIES),
    )


class Criteo:
    """One or more tab-separated files without a header, plain or gzipped, in order; an empty field is missing.

    `splits` gives each file to `train`, `valid` or `test`.
    """

    NAME = "criteo"

    def __init__(
        self, *files: Path | str, splits: Sequence[str] | None = None, schema: Schema | None = None
    ) -> None:
        self.name = self.NAME
        self.schema = schema or criteo_schema()
        self.events: Mapping[str, LogSource] = {}
        self.split: Split = GivenFiles() if splits else ByTime()
        self.as_of: int | None = None
        self._files = [_log_file(Path(file)) for file in files]
        self._splits = splits or [""] * len(files)

    def chunks(self) -> Iterator[LogChunk]:
        kinds: dict[str, ColumnKind] = {"click": "number"}
        kinds |= dict.fromkeys(NUMBERS, "number")
        kinds |= dict.fromkeys(CATEGORIES, "text")
        row = 0
        for file, split in zip(self._files, self._splits, strict=True):
            first_row = 0
            for records in read_delimited(file, kinds, delimiter="\t", header=list(kinds)):
                count = records.num_rows
                numbered = records.append_column("row", pa.array(np.arange(row, row + count)))
                yield LogChunk(numbered, str(file), first_row, split)
                first_row, row = first_row + count, row + count

    def fingerprint(self) -> str:
        return fingerprint_of_files(self._files)


def _log_file(path: Path) -> Path:
    """The file itself, or the log in a folder that a set was found in."""
    if path.is_dir():
        return next((path / name for name in FILES if (path / name).is_file()), path / FILES[0])
    return path
