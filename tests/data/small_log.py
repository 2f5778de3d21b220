"""A small log for tests of preparing: in memory, every feature kind, two tasks, a history, several rows a request."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from fullrank.data.source import LogChunk, LogSource, fingerprint_of
from fullrank.schema import EventFeature, EventOutcome, Feature, History, KeySpace, Roles, Schema, Task

DAY = 86_400
SCHEMA = Schema(
    roles=Roles(
        user="user_id", item="item_id", request="request_id", impression="imp", time="ts", scenario="page"
    ),
    features=(
        Feature(name="city", kind="categorical", of="user"),
        Feature(name="hour", kind="numeric", scale="standard"),
        Feature(name="genres", kind="multi", of="item"),
        Feature(name="campaign", kind="categorical", of="item", mutable=True),
        Feature(name="title", kind="text", of="item"),
        Feature(name="match", kind="numeric", of="pair", scale="none"),
    ),
    histories=(
        History(
            name="clicks",
            max_length=4,
            lag=10,
            where="clicked",
            features=(EventFeature(name="page"),),
            outcomes=(EventOutcome(name="bought", time="bought_at", window=DAY),),
        ),
    ),
    tasks=(
        Task(name="clicked"),
        Task(name="bought", label_time="bought_at", window=DAY, parent="clicked"),
    ),
    key_spaces=(KeySpace(name="user", policy="growing"),),
)


@dataclass
class Memory:
    """A log in memory. `chunk_rows` cuts it; `splits` names the split of each chunk."""

    table: pa.Table
    schema: Schema = SCHEMA
    chunk_rows: int = 50
    split: str = ""
    events: Mapping[str, LogSource] = field(default_factory=dict)
    name: str = "memory"

    def chunks(self) -> Iterator[LogChunk]:
        first = 0
        for batch in self.table.combine_chunks().to_batches(max_chunksize=self.chunk_rows):
            yield LogChunk(batch, f"{self.name}.parquet", first, self.split)
            first += batch.num_rows

    def fingerprint(self) -> str:
        text = [str(self.table.to_pydict()).encode(), self.split.encode()]
        return fingerprint_of(text)


def rows(
    seed: int = 0, requests: int = 120, users: int = 9, items: int = 20, start: int = 1_000_000
) -> pa.Table:
    """Requests of one to four rows in time order, with duplicate times, late purchases and missing values."""
    rng = np.random.default_rng(seed)
    size = rng.integers(1, 5, requests)
    request = np.repeat(np.arange(requests), size)
    time = start + np.sort(rng.integers(0, requests * 20, requests))[request]
    user = rng.integers(0, users, requests)[request]
    item = rng.integers(0, items, len(request))
    clicked = rng.random(len(request)) < 0.5
    bought = clicked & (rng.random(len(request)) < 0.5)
    bought_at = time + rng.integers(1, 600, len(request))
    return pa.table(
        {
            "user_id": pa.array([f"u{u}" if u else None for u in user.tolist()]),
            "item_id": item,
            "request_id": request + seed * 100_000,
            "imp": np.arange(len(request)) + seed * 1_000_000,
            "ts": time,
            "page": np.where(item % 2 == 0, "home", "feed"),
            "city": pa.array([f"c{u % 3}" if u % 4 else None for u in user.tolist()]),
            "hour": (time % DAY) / 3600,
            "genres": pa.array([[f"g{i % 3}", f"g{i % 5}"] if i % 7 else [] for i in item.tolist()]),
            "campaign": [f"k{i % 4}-{t // 500}" for i, t in zip(item.tolist(), time.tolist(), strict=True)],
            "title": [f"item {i}" for i in item.tolist()],
            "match": rng.random(len(request)).astype(np.float32),
            "clicked": clicked,
            "bought": bought,
            "bought_at": pa.array(bought_at, mask=~bought),
        }
    )
