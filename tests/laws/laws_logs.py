"""The logs that the laws of the data side hold on, each in every layout.

* a MovieLens log: unsorted in time, many ratings of a user in one second (a drawn one; the real one too if it is there)
* a log in the shape of TAAC-2026: four domains, weighted lists, vectors
* an ad log of two days: late conversions, a funnel, new users and ads on the second day
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from math import ceil, floor
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np
import pyarrow as pa

from fullrank.data.keys import code_of_key
from fullrank.data.readers.movielens import movielens_schema
from fullrank.data.readers.movielens_100k import MovieLens100K
from fullrank.data.simulate import SimulatedLog, SimulatorConfig
from fullrank.data.simulate_taac import write
from fullrank.data.source import LogChunk, LogSource, fingerprint_of
from fullrank.data.splits import SPLITS, ByHash, ByTime, GivenFiles, PerUserOrder, Split, by_hash
from fullrank.schema import Feature, History, Schema

ADS = SimulatorConfig(
    rows=640,
    users=40,
    ads=60,
    campaigns=10,
    categories=5,
    days=2,
    slots=4,
    seed=3,
    new_keys_per_day=0.5,
    mean_delay=20_000,
    attribution_window=40_000,
    sorted_by_time=False,
)


@dataclass(frozen=True)
class Memory:
    """A log in memory. `splits`: the split of each row, for `GivenFiles` (rows of one split that follow each other are
    a chunk); otherwise chunks have `chunk_rows` rows."""

    schema: Schema
    table: pa.Table
    events: Mapping[str, LogSource] = field(default_factory=dict)
    splits: tuple[str, ...] = ()
    chunk_rows: int = 100
    name: str = "memory"

    def chunks(self) -> Iterator[LogChunk]:
        n = self.table.num_rows
        edges = set(range(0, n, self.chunk_rows)) | {n}
        edges |= {i for i in range(1, n) if self.splits and self.splits[i] != self.splits[i - 1]}
        for start, end in zip(sorted(edges), sorted(edges)[1:], strict=False):
            (records,) = self.table.slice(start, end - start).combine_chunks().to_batches()
            yield LogChunk(records, self.name, start, self.splits[start] if self.splits else "")

    def fingerprint(self) -> str:
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, self.table.schema) as writer:
            writer.write_table(self.table)
        return fingerprint_of([sink.getvalue().to_pybytes(), repr(self.splits).encode()])


Log = dict[str, Memory]
"""One log in several layouts, `log` (its rows are the events), `file` (events in a file) and `inline` (lists in the
rows), all with the same rows in the same order."""


def read_all(source: LogSource) -> Memory:
    """A source's rows and events, in memory."""
    table = pa.Table.from_batches([chunk.records for chunk in source.chunks()])
    events = {name: read_all(events) for name, events in source.events.items()}
    return Memory(source.schema, table, events)


def names() -> list[str]:
    """The logs there are on this machine."""
    real = os.environ.get("FULLRANK_DATA")
    there = bool(real) and (Path(real) / "movielens_100k" / "u.data").is_file()
    return ["movielens", "taac", "ads", *(["movielens-100k"] if there else [])]


@cache
def log(name: str) -> Log:
    if name == "taac":
        inline, by_user = write(mkdtemp(), 240, users=40, items=60, max_values=40, max_length=7, events_per_user=12)
        return {"file": read_all(by_user), "inline": read_all(inline)}
    if name == "ads":
        whole = read_all(SimulatedLog(ADS))
        random, table = np.random.default_rng(1), whole.table
        time = table["time"].to_numpy() + random.integers(0, 4, table.num_rows)  # rows of a request: not at one time,
        table = table.set_column(table.column_names.index("time"), "time", pa.array(time))
        return layouts(replace(whole, table=table.take(pa.array(random.permutation(len(time))))))  # all over the log
    if name == "movielens-100k":
        whole = read_all(MovieLens100K(Path(os.environ["FULLRANK_DATA"]) / "movielens_100k"))
        some = np.isin(whole.table["user"].to_numpy(), np.arange(3, 943, 47))
        return layouts(replace(whole, table=whole.table.filter(pa.array(some))))
    return layouts(_drawn_movielens())


def _drawn_movielens(rows: int = 300, users: int = 15, items: int = 50, seconds: int = 90) -> Memory:
    """Ratings as MovieLens-100K has them: no order in the file, and a user rates several films in one second."""
    random = np.random.default_rng(7)
    profile = (
        Feature(name="age", kind="numeric", of="user"),
        Feature(name="gender", kind="categorical", of="user"),
        Feature(name="occupation", kind="categorical", of="user"),
    )
    user, item = random.integers(0, users, rows), random.integers(0, items, rows)
    rating = random.integers(1, 6, rows)
    kinds = ["Drama", "Comedy", "War", "Noir"]
    genres = [[kind for kind in kinds if random.random() < 0.3] for _ in range(items)]
    table = pa.table(
        {
            "user": user,
            "item": item,
            "rating": rating,
            "time": 880_000_000 + random.integers(0, seconds, rows),
            "liked": (rating >= 4).astype(np.int8),
            "loved": (rating == 5).astype(np.int8),
            "year": pa.array([None if i % 9 == 4 else 1950 + i for i in item.tolist()], pa.int32()),
            "title": pa.array([f"Film {i}" for i in item]),
            "genres": pa.array([genres[i] for i in item.tolist()], pa.list_(pa.string())),
            "age": pa.array([None if u == 5 else 20 + u for u in user.tolist()], pa.int64()),
            "gender": pa.array(["F" if u % 3 else "M" for u in user]),
            "occupation": pa.array([None if u == 2 else f"job {u % 4}" for u in user.tolist()]),
        }
    )
    schema = movielens_schema("movielens", profile)
    histories = (replace(schema.histories[0], max_length=12), replace(schema.histories[0], name="later", lag=7))
    return Memory(replace(schema, histories=histories), table)


# ---- the same log in other layouts


def layouts(source: Memory) -> Log:
    """A log whose rows are the events of its histories, in every layout."""
    return {"log": source, "file": filed(source), "inline": inline_of(source)}


def filed(source: Memory) -> Memory:
    """The same events, in a file beside the log."""
    schema, roles = source.schema, source.schema.roles
    histories, events = [], {}
    for history in schema.histories:
        table = source.table
        if history.where:
            table = table.filter(pa.array(table[history.where].to_numpy() == 1))
        columns = list(dict.fromkeys([roles.user, *_event_columns(history, schema)]))
        events[history.name] = Memory(schema, table.select(columns), chunk_rows=30)
        histories.append(
            replace(history, source="file", where="", user=roles.user, item=roles.item, time=roles.time)
        )
    return replace(source, schema=replace(schema, histories=tuple(histories)), events=events)


def inline_of(source: Memory) -> Memory:
    """Lists as a server may have logged them: for every row all events of its user up to the request's very second,
    also those that are not available yet (a tie, a lag), by a loop over all rows."""
    schema, rows = source.schema, source.table.to_pylist()
    roles = schema.roles
    table, histories = source.table, []
    for history in schema.histories:
        columns = _event_columns(history, schema)
        events: dict[Any, list[tuple[int, int]]] = {}
        for i, row in enumerate(rows):
            if not history.where or row[history.where] == 1:
                events.setdefault(row[roles.user], []).append((row[roles.time], i))
        past = []
        for now, row in zip(request_times(source), rows, strict=True):
            past.append([i for time, i in sorted(events.get(row[roles.user], [])) if time <= now])
        for column in columns:
            values = source.table[column].combine_chunks()
            offsets = np.concatenate([[0], np.cumsum([len(one) for one in past])]).astype(np.int32)
            index = pa.array([i for one in past for i in one], pa.int64())
            lists = pa.ListArray.from_arrays(pa.array(offsets), values.take(index))
            table = table.append_column(f"{history.name}.{column}", lists)
        histories.append(_as_inline(history, schema))
    return replace(source, schema=replace(schema, histories=tuple(histories)), table=table)


def requests_of(source: Memory) -> list[Any]:
    """The request of every row: its user and request key, or the row itself where the log has no requests."""
    roles, rows = source.schema.roles, source.table.to_pylist()
    return [(row[roles.user], row[roles.request] if roles.request else i) for i, row in enumerate(rows)]


def request_times(source: Memory) -> list[int]:
    """For every row the least time of its request's rows, in the log's unit."""
    times: dict[Any, int] = {}
    requests, column = requests_of(source), np.asarray(source.table[source.schema.roles.time]).tolist()
    for request, time in zip(requests, column, strict=True):
        times[request] = min(times.get(request, time), time)
    return [times[request] for request in requests]


def prepared_order(source: Memory) -> np.ndarray:
    """Row numbers of the log in the order they are prepared in: by the first row of their request, then by row."""
    first: dict[Any, int] = {}
    requests = requests_of(source)
    for i, request in enumerate(requests):
        first.setdefault(request, i)
    return np.array(sorted(range(len(requests)), key=lambda i: (first[requests[i]], i)), dtype=np.int64)


def splits_of(source: Memory, split: Split) -> list[str]:
    """The split of every row, as the docstrings of the ways to split put it; `GivenFiles` is `source.splits`."""
    users = source.table[source.schema.roles.user].to_pylist()
    times, n = request_times(source), source.table.num_rows
    first = {}
    for i, request in enumerate(requests_of(source)):
        first.setdefault(request, i)
    firsts = [first[request] for request in requests_of(source)]
    if isinstance(split, ByTime) and isinstance(split.valid, float) and isinstance(split.test, float):
        ordered = sorted(times)
        last_train, last_valid = (
            ordered[ceil(n * (1 - share) - 1e-6) - 1] for share in (split.valid + split.test, split.test)
        )
        return ["test" if t > last_valid else "valid" if t > last_train else "train" for t in times]
    if isinstance(split, PerUserOrder):
        decided = ["train"] * n
        for user in set(users) - {None}:
            mine = sorted((i for i in range(n) if users[i] == user), key=lambda i: (times[i], firsts[i], i))
            tests, valids = (floor(len(mine) * share + 1e-9) for share in (split.test, split.valid))
            for left, i in enumerate(reversed(mine)):
                decided[i] = "test" if left < tests else "valid" if left < tests + valids else "train"
        return [decided[i] for i in firsts]
    if isinstance(split, ByHash) and split.key == "user":
        codes = np.array([code_of_key(user) if user is not None else 0 for user in users], dtype=np.uint64)
        return [SPLITS[number] for number in by_hash(split, codes)]
    return list(source.splits) if isinstance(split, GivenFiles) else ["train"] * n


def _event_columns(history: History, schema: Schema) -> list[str]:
    columns = [schema.roles.item, schema.roles.time, *(f.column for f in history.features)]
    columns += [c for outcome in history.outcomes for c in (outcome.column, outcome.time) if c]
    return list(dict.fromkeys(columns))


def _as_inline(history: History, schema: Schema) -> History:
    def listed(column: str) -> str:
        return f"{history.name}.{column}" if column else ""

    return replace(
        history,
        layout="inline",
        where="",
        item=listed(schema.roles.item),
        time=listed(schema.roles.time),
        features=tuple(replace(f, column=listed(f.column)) for f in history.features),
        outcomes=tuple(replace(o, column=listed(o.column), time=listed(o.time)) for o in history.outcomes),
    )


# ---- two days


@dataclass(frozen=True)
class TwoDays:
    """A log that grows. `late`: labels of the first day that came when it was prepared already; `whole`: both days'
    rows, with those labels."""

    first: Memory
    second: Memory
    late: LogSource | None
    whole: Memory


@cache
def two_days(name: str, layout: str) -> TwoDays:
    """Every third user and item of the second day has a key that the first day did not know."""
    source = log(name)[layout]
    if name == "ads" and layout == "log":
        days = SimulatedLog(ADS)
        first, second, late = read_all(days.day(0)), read_all(days.day(1)), read_all(days.late_labels(0))
        return TwoDays(first, second, late, _whole(_with_labels(first, late), second))
    times = np.array(request_times(source))
    cut = int(np.quantile(times, 0.6))
    parts = []
    for is_second in (False, True):
        table = source.table.filter(pa.array((times > cut) == is_second))
        events = {}
        for history in source.schema.histories:
            if history.name in source.events:
                events[history.name] = read_all(source.events[history.name])
                past = events[history.name].table[history.time].to_numpy() <= cut
                part = events[history.name].table.filter(pa.array(past != is_second))
                part = _renamed(part, {history.item, history.user}) if is_second else part
                events[history.name] = replace(events[history.name], table=part)
        if is_second:
            listed = {h.item for h in source.schema.histories if h.layout == "inline"}
            table = _renamed(table, {source.schema.roles.user, source.schema.roles.item, *listed})
        parts.append(replace(source, table=table, events=events))
    return TwoDays(parts[0], parts[1], None, _whole(*parts))


def _whole(first: Memory, second: Memory) -> Memory:
    events = {}
    for name, early in first.events.items():
        late = second.events[name]
        assert isinstance(early, Memory) and isinstance(late, Memory)
        events[name] = replace(early, table=pa.concat_tables([early.table, late.table]))
    return replace(first, table=pa.concat_tables([first.table, second.table]), events=events)


def _with_labels(source: Memory, late: Memory) -> Memory:
    """The conversions as they turned out."""
    came = {row["impression"]: row["time"] for row in late.table.to_pylist()}
    impressions, table = source.table["impression"].to_pylist(), source.table
    for column, value in (("conversion", lambda time: 1), ("conversion_time", lambda time: time)):
        old = zip(impressions, table[column].to_pylist(), strict=True)
        values = [value(came[key]) if key in came else before for key, before in old]
        at = table.column_names.index(column)
        table = table.set_column(at, column, pa.array(values, table[column].type))
    return replace(source, table=table)


def _renamed(table: pa.Table, columns: set[str]) -> pa.Table:
    def new(key: Any) -> Any:
        if isinstance(key, list):
            return [new(one) for one in key]
        if isinstance(key, str):
            return f"{key} again" if sum(key.encode()) % 3 == 0 else key
        return key + 1_000_000 if key is not None and key % 3 == 0 else key

    for column in columns & set(table.column_names):
        values = pa.array([new(key) for key in table[column].to_pylist()], table[column].type)
        table = table.set_column(table.column_names.index(column), column, values)
    return table
