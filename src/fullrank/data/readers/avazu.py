"""Avazu click-through rate: 40.4 M impressions of ten days of October 2014 with 22 hashed or numbered fields.

Kaggle, Avazu click-through rate prediction, 2014.
"""

# pyarrow.compute makes its functions when it is imported, where pyright does not see them:
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fullrank.data.bundle import Bundle
from fullrank.data.columns import DataError
from fullrank.data.readers.delimited import ColumnKind
from fullrank.data.readers.public import PublicLog, with_columns
from fullrank.data.source import LogChunk
from fullrank.data.splits import ByTime, GivenFiles
from fullrank.schema import Feature, KeySpace, Roles, Schema, Task

REQUEST = (
    "site_id", "site_domain", "site_category", "app_id", "app_domain", "app_category",
    "device_id", "device_ip", "device_model", "device_type", "device_conn_type", "banner_pos", "C1",
)  # fmt: skip
AD = ("C14", "C15", "C16", "C17", "C18", "C19", "C20", "C21")
COLUMNS = ("id", "click", "hour", "C1", "banner_pos", *REQUEST[:11], *AD)  # all 24, as the files have them
CLOCK = ("hour_of_day", "weekday")
_DAYS = pa.array(["Thursday", "Friday", "Saturday", "Sunday", "Monday", "Tuesday", "Wednesday"])  # 1970 began so


def avazu_schema(*, min_count: int = 2) -> Schema:
    """22 fields and two of the clock (`hour_of_day`, `weekday`: our choice), all categorical; task `click`.

    What C14 to C21 mean was not told; they are given to the pair, the others to the context. A value seen fewer than
    `min_count` times in training has no id of its own. The log names no user: `device_id` is one constant for most
    rows, `device_ip` an address. Its hours have no zone and are read as UTC (our choice).
    """
    names = (*REQUEST, *CLOCK, *AD)
    return Schema(
        name="avazu",
        roles=Roles(impression="id", time="time"),
        features=(
            *(Feature(name=name, kind="categorical") for name in (*REQUEST, *CLOCK)),
            *(Feature(name=name, kind="categorical", of="pair") for name in AD),
        ),
        tasks=(Task(name="click"),),
        key_spaces=tuple(KeySpace(name=name, min_count=min_count) for name in names),
    )


class Avazu(PublicLog):
    """The competition's training file (`train.gz`, `train.csv` or `train`), split by time; or `train.csv`, `dev.csv`
    and `test.csv` with labels, split as the files say. Files begin with a line of names or with a row. The
    competition's own test file has no labels and is not read."""

    NAME = "avazu"

    def __init__(self, path: Path | str, *, schema: Schema | None = None) -> None:
        bundle = Bundle(path)
        if bundle.has(("train.csv", "dev.csv", "test.csv")):
            parts, split = {"train.csv": "train", "dev.csv": "valid", "test.csv": "test"}, GivenFiles()
        else:
            found = next((name for name in ("train.gz", "train.csv", "train") if bundle.has([name])), "train.csv")
            parts, split = {found: ""}, ByTime()
        super().__init__(schema or avazu_schema(), bundle, list(parts), split)
        self._parts = parts

    def chunks(self) -> Iterator[LogChunk]:
        kinds: dict[str, ColumnKind] = dict.fromkeys(COLUMNS, "text")
        for name, split in self._parts.items():
            with self._bundle.open(name) as stream:
                has_names = stream.read(3) == b"id,"
            first_row = 0
            for records in self._delimited(name, kinds, header=() if has_names else COLUMNS):
                where = self._bundle.label(name)
                yield LogChunk(_with_times(records, where, first_row), where, first_row, split)
                first_row += records.num_rows


def _with_times(records: pa.RecordBatch, where: str, first_row: int) -> pa.RecordBatch:
    """`hour`, written YYMMDDHH, as a time and as the fields of the clock."""
    hours = pc.fill_null(records["hour"], "")
    form = pc.match_substring_regex(hours, "^[0-9]{2}(0[1-9]|1[0-2])(0[1-9]|[12][0-9]|3[01])([01][0-9]|2[0-3])$")
    if not pc.all(form, min_count=0).as_py():
        bad = int(np.argmin(form.to_numpy(zero_copy_only=False)))
        raise DataError(
            f"{where}, column 'hour', row {first_row + bad + 1}: expected an hour written YYMMDDHH, got "
            f"{records['hour'][bad].as_py()!r}. Mend the row, or get the file again."
        )
    different = hours.dictionary_encode()
    moments = pc.strptime(different.dictionary, format="%y%m%d%H", unit="s").cast(pa.int64()).to_numpy()
    time = moments[different.indices.to_numpy()]
    return with_columns(
        records,
        {
            "time": pa.array(time),
            "hour_of_day": pa.array((time // 3600 % 24).astype(np.int8)),
            "weekday": _DAYS.take(pa.array(time // 86_400 % 7)),
        },
    )
