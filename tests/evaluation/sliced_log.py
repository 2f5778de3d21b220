"""A small log with a truth of its own for slices: days, pages, cities, prices, users that training has not met."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn

from fullrank.data.batch import Batch
from fullrank.data.partitions import PreparedData
from fullrank.data.prepare import Budget, prepare
from fullrank.data.source import LogChunk, LogSource, fingerprint_of
from fullrank.data.splits import ByTime
from fullrank.schema import Feature, History, KeySpace, Roles, Schema, Task

DAY = 86_400
START = 1_704_067_200  # 2024-01-01, UTC
SCHEMA = Schema(
    roles=Roles(
        user="user_id",
        item="item_id",
        request="request_id",
        impression="imp",
        time="ts",
        scenario="page",
        position="slot",
        campaign="campaign",
    ),
    features=(
        Feature(name="city", kind="categorical", of="user"),
        Feature(name="friend", kind="categorical", of="user", key_space="user"),
        Feature(name="genres", kind="multi", of="item"),
        Feature(name="price", kind="numeric", of="item", scale="log"),
        Feature(name="match", kind="numeric", of="pair", scale="none"),
    ),
    histories=(History(name="clicks", max_length=20, where="clicked"),),
    tasks=(Task(name="clicked"), Task(name="dwell", kind="regression"), Task(name="bought", scenarios=("home",))),
    key_spaces=(KeySpace(name="user", min_count=4),),
)


@dataclass
class Table:
    """A log in memory."""

    table: pa.Table
    schema: Schema = SCHEMA
    events: Mapping[str, LogSource] = field(default_factory=dict)
    name: str = "table"

    def chunks(self) -> Iterator[LogChunk]:
        for batch in self.table.combine_chunks().to_batches():
            yield LogChunk(batch, f"{self.name}.parquet", 0)

    def fingerprint(self) -> str:
        return fingerprint_of([str(self.table.to_pydict()).encode()])


def log(seed: int = 0, requests: int = 700, first_day: int = 0, days: int = 10, users: int = 90) -> pa.Table:
    """Rows in time order, three a request; users come and go: the later the row, the higher the user's number."""
    rng = np.random.default_rng(seed)
    request = np.repeat(np.arange(requests), 3)
    rows = len(request)
    time = START + first_day * DAY + np.sort(rng.integers(0, days * DAY, requests))[request]
    user = (rng.integers(0, users // 2, requests) + (np.arange(requests) * users // (2 * requests)))[request]
    item = rng.integers(0, 40, rows)
    price = np.round(np.exp(rng.normal(size=40)), 3)
    price[:4] = np.nan
    match = rng.normal(size=rows).astype(np.float32)
    return pa.table(
        {
            "imp": 1_000_000 * first_day + np.arange(rows),
            "request_id": 1_000_000 * first_day + request,
            "user_id": [f"person-{u}" for u in user],
            "friend": [f"person-{u // 2}" for u in user],
            "item_id": item,
            "ts": time,
            "page": np.where(request % 3 == 0, "home", "search"),
            "campaign": item % 5 + 100,
            "slot": np.tile([0, 1, 2], requests),
            "city": [f"city-{u % 13}" for u in user],
            "genres": [["a", "b"]] * rows,
            "price": pa.array(price[item], from_pandas=True),
            "match": match,
            "clicked": (rng.random(rows) < 1 / (1 + np.exp(-match))).astype(int),
            "dwell": rng.exponential(size=rows),
            "bought": (rng.random(rows) < 0.3).astype(int),
        }
    )


def prepared(folder: Path, *tables: pa.Table) -> PreparedData:
    """One partition a table, in blocks of a few dozen rows."""
    for number, table in enumerate(tables):
        split, small = ByTime(valid=0.2, test=0.3), Budget(block_rows=50)
        prepare(Table(table), folder, split=split, append=number > 0, budget=small)
    return PreparedData.open(folder)


@dataclass
class Output:
    logits: dict[str, Tensor]


class Match(nn.Module):
    """Says what the row's `match` is, for every task: a prediction that can be found again in the log."""

    def __init__(self, place: int) -> None:
        super().__init__()
        self.place = place

    def forward(self, batch: Batch) -> Output:
        match_B = torch.nan_to_num(batch.candidates.features.numbers_nF[:, self.place])
        return Output({task.name: match_B for task in SCHEMA.tasks})
