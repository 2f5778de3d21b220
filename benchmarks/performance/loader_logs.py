"""The logs that loaders read: 39 categories and a label, and fewer categories with a history of 50 events."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fullrank.data.partitions import PreparedData
from fullrank.data.prepare import prepare
from fullrank.data.readers.tabular import TabularSource
from fullrank.data.splits import AllTrain
from fullrank.schema import EventFeature, EventOutcome, Feature, History, Roles, Schema, Task

NAMES = tuple(f"C{number}" for number in range(1, 40))
VALUES = (100, 1_000, 10_000, 30_000)  # of the columns, in turn
PARTS = 4  # files that the same rows are also written as
FLAT = Schema(
    roles=Roles(order="row"),
    time_unit="position",
    features=tuple(Feature(name=name, kind="categorical", of="pair") for name in NAMES),
    tasks=(Task(name="click"),),
)
PAST = Schema(
    roles=Roles(user="user", item="item", time="time"),
    features=(
        Feature(name="brand", kind="categorical", of="item"),
        *(Feature(name=name, kind="categorical", of="pair") for name in NAMES[:8]),
    ),
    histories=(
        History(
            name="seen", max_length=50, features=(EventFeature(name="page"),), outcomes=(EventOutcome(name="click"),)
        ),
    ),
    tasks=(Task(name="click"),),
)


def write(folder: Path, rows: int) -> tuple[PreparedData, PreparedData]:
    """`flat.parquet` and the same as `parts/*.parquet`, and both logs prepared: `flat`, and `past` with half the
    rows."""
    random = np.random.default_rng(0)
    flat = draw(rows, random)
    (folder / "parts").mkdir(parents=True)
    pq.write_table(flat, folder / "flat.parquet")
    for part in range(PARTS):
        first, last = rows * part // PARTS, rows * (part + 1) // PARTS
        pq.write_table(flat.slice(first, last - first), folder / "parts" / f"part-{part}.parquet")
    pq.write_table(with_users(flat.slice(0, rows // 2), random), folder / "past.parquet")
    for name, schema in (("flat", FLAT), ("past", PAST)):
        prepare(TabularSource([folder / f"{name}.parquet"], schema), folder / name, split=AllTrain())
    return PreparedData.open(folder / "flat"), PreparedData.open(folder / "past")


def draw(rows: int, random: np.random.Generator) -> pa.Table:
    """Ids of a long tail; what both logs have."""
    columns = {
        name: random.pareto(1.05, rows).astype(np.int64) % VALUES[at % len(VALUES)] for at, name in enumerate(NAMES)
    }
    return pa.table(columns | {"click": (random.random(rows) < 0.25).astype(np.float32), "row": np.arange(rows)})


def with_users(flat: pa.Table, random: np.random.Generator) -> pa.Table:
    """The same rows of 50 impressions a user."""
    rows = flat.num_rows
    item = random.pareto(1.05, rows).astype(np.int64) % 50_000
    columns = {
        "user": random.integers(0, max(rows // 50, 1), rows),
        "item": item,
        "brand": item % 997,
        "page": random.integers(0, 20, rows),
        "time": np.sort(random.integers(0, 30 * 86_400, rows)),
    }
    return pa.table(columns | {name: flat[name] for name in (*NAMES[:8], "click")})
