"""A log in the shape of the TAAC-2026 data (a Tencent advertising contest), values simulated, histories in two layouts.

The contest's log is one flat table: user id lists, item ids, dense user vectors, and four behaviour domains whose
events lie in the rows as lists (`domain_a_seq_38`, …; one of the columns of each domain holds the times). Here the
same events are also written as files, one a domain, so that both layouts can be held against each other.

Which feature of a domain names the event's item is not said by the contest: we take the one of most values (our
choice). Dense vectors of the same number and length as an id list are that list's weights (so the contest's notes).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fullrank.data.columns import span_positions
from fullrank.data.readers.tabular import TabularSource
from fullrank.data.simulate_draws import sigmoid
from fullrank.schema import EventFeature, Feature, History, Roles, Schema, Task

_END = 1_772_725_000  # the contest's log is of March 2026
_ROW_SPAN = 6 * 3600
_EVENT_SPAN = 14 * 86_400
_TICK = 20  # times are multiples of 20 s, so that events of a user share times with each other and with rows
_ROWS_A_GROUP = 8_192


@dataclass(frozen=True)
class Domain:
    """One behaviour domain: the column of times, the column of its items, the others, and how many values each has."""

    name: str
    prefix: str
    time: int
    item: int
    features: tuple[tuple[int, int], ...]  # (number, values), without the times, the item among them


@dataclass(frozen=True)
class TaacShape:
    """`user_int` and `item_int`: (number, values, longest list); `user_dense`: (number, width); the domains."""

    user_int: tuple[tuple[int, int, int], ...]
    item_int: tuple[tuple[int, int, int], ...]
    user_dense: tuple[tuple[int, int], ...]
    domains: tuple[Domain, ...]

    @staticmethod
    def read(path: Path | str) -> TaacShape:
        """The contest's schema file (JSON with `user_int`, `item_int`, `user_dense`, `seq`)."""
        try:
            return TaacShape.of(json.loads(Path(path).read_text(encoding="utf-8")))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"{path}: expected a TAAC-2026 schema (user_int, item_int, user_dense, seq), got {error!r}."
            ) from error

    @staticmethod
    def of(shape: dict) -> TaacShape:
        domains = []
        for name, domain in shape["seq"].items():
            features = tuple((number, values) for number, values in domain["features"] if number != domain["ts_fid"])
            item = max(features, key=lambda feature: feature[1])[0]
            domains.append(Domain(name, domain["prefix"], domain["ts_fid"], item, features))
        return TaacShape(
            user_int=tuple((number, values, longest) for number, values, longest in shape["user_int"]),
            item_int=tuple((number, values, longest) for number, values, longest in shape["item_int"]),
            user_dense=tuple((number, width) for number, width in shape["user_dense"]),
            domains=tuple(domains),
        )


SMALL_SHAPE = TaacShape.of(
    {
        "user_int": [[1, 5, 1], [3, 200, 1], [15, 60, 6], [62, 11, 5]],
        "item_int": [[5, 30, 1], [9, 8, 1], [11, 300, 4]],
        "user_dense": [[61, 16], [62, 5]],
        "seq": {
            "seq_a": {"prefix": "domain_a_seq", "ts_fid": 39, "features": [[38, 900], [39, 0], [40, 19]]},
            "seq_b": {"prefix": "domain_b_seq", "ts_fid": 67, "features": [[67, 0], [68, 28], [69, 700]]},
            "seq_c": {"prefix": "domain_c_seq", "ts_fid": 27, "features": [[27, 0], [29, 500], [31, 40]]},
            "seq_d": {"prefix": "domain_d_seq", "ts_fid": 26, "features": [[17, 5], [23, 300], [26, 0]]},
        },
    }
)


def taac_schema(shape: TaacShape, *, inline: bool, max_length: int) -> Schema:
    """The schema of the table with lists in its rows (`inline`) or of the one beside event files."""
    weights = _weighted(shape)
    features = [_id_feature("user", "user_int_feats", weights, *column) for column in shape.user_int]
    features += [
        Feature(name=f"user_dense_feats_{number}", kind="vector", of="user", dim=width)
        for number, width in shape.user_dense
        if number not in weights
    ]
    features += [_id_feature("item", "item_int_feats", frozenset(), *column) for column in shape.item_int]
    histories = []
    for domain in shape.domains:
        item = f"{domain.prefix}_{domain.item}"
        histories.append(
            History(
                name=domain.prefix,
                layout="inline" if inline else "by_user",
                source="log" if inline else "file",
                user="" if inline else "user_id",
                item=item,
                key_space=item,
                time=f"{domain.prefix}_{domain.time}",
                max_length=max_length,
                features=tuple(
                    EventFeature(name=f"{domain.prefix}_{number}")
                    for number, _ in domain.features
                    if number != domain.item
                ),
            )
        )
    return Schema(
        name="taac",
        roles=Roles(user="user_id", item="item_id", time="timestamp"),
        features=tuple(features),
        histories=tuple(histories),
        tasks=(Task(name="conversion"),),
    )


def write(
    folder: Path | str,
    rows: int,
    *,
    shape: TaacShape = SMALL_SHAPE,
    seed: int = 0,
    users: int = 0,
    items: int = 500,
    max_values: int = 1000,
    max_length: int = 100,
    events_per_user: int = 30,
) -> tuple[TabularSource, TabularSource]:
    """Write the log twice into `folder` and give both as sources: lists inline, and the same events by user.

    `inline.parquet` has the lists; `rows.parquet` the same rows without them; `domain_….parquet` the events, in no
    order. Each list is exactly the user's events strictly before the row's time: the newest `max_length`, oldest
    first, events of one time in the order of their file. `users` defaults to a third of the rows. No column has
    more than `max_values` values. Some id is missing here and there, some lists are empty, some users have no events.

    All is made in memory: for logs up to a few hundred thousand rows, not for measuring throughput.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    users = users or max(1, rows // 3)
    user = random.integers(0, users, rows)
    time = np.sort(random.integers(_END - _ROW_SPAN, _END, rows)) // _TICK * _TICK
    columns = _row_columns(shape, random, user, random.integers(0, items, rows), users, items, max_values)
    columns["timestamp"] = pa.array(time)

    inline, events = dict(columns), {}
    recent = np.zeros(rows)
    for domain in shape.domains:
        table = _events(domain, random, users, events_per_user, max_values)
        path = folder / f"{domain.prefix}.parquet"
        pq.write_table(table, path, row_group_size=_ROWS_A_GROUP)
        schema = _event_schema(domain)
        events[domain.prefix] = TabularSource([path], schema, name=domain.prefix)
        index, offsets = _past(table, domain, user, time, max_length)
        recent += np.diff(offsets) > 0
        for name in table.column_names[1:]:
            inline[name] = pa.ListArray.from_arrays(
                pa.array(offsets.astype(np.int32)), table[name].combine_chunks().take(pa.array(index))
            )
    first = shape.user_int[0][0]
    liking = columns[f"user_int_feats_{first}"].fill_null(0).to_numpy()
    kind = columns[f"item_int_feats_{shape.item_int[0][0]}"].fill_null(0).to_numpy()
    label = random.random(rows) < sigmoid(-2.5 + 1.5 * np.sin(3.0 * liking + kind) + 0.2 * recent)  # what is planted
    late = pa.array(time + random.integers(1, 86_400, rows), mask=~label)
    for table in (columns, inline):
        table["label_type"], table["label_time"] = pa.array(1 + label.astype(np.int8)), late
        table["conversion"] = pa.array(label.astype(np.int8))
    for name, table in (("rows", columns), ("inline", inline)):
        pq.write_table(pa.table(table), folder / f"{name}.parquet", row_group_size=_ROWS_A_GROUP)
    return (
        TabularSource([folder / "inline.parquet"], taac_schema(shape, inline=True, max_length=max_length)),
        TabularSource(
            [folder / "rows.parquet"], taac_schema(shape, inline=False, max_length=max_length), events=events
        ),
    )


def _weighted(shape: TaacShape) -> frozenset[int]:
    """The numbers of id lists that have a dense vector of their own length beside them."""
    longest = {number: length for number, _, length in shape.user_int if length > 1}
    return frozenset(number for number, width in shape.user_dense if longest.get(number) == width)


def _id_feature(owner: str, prefix: str, weighted: frozenset[int], number: int, values: int, longest: int) -> Feature:
    name = f"{prefix}_{number}"
    if longest == 1:
        return Feature(name=name, kind="categorical", of="user" if owner == "user" else "item")
    weights = f"user_dense_feats_{number}" if number in weighted else ""
    return Feature(name=name, kind="multi", of="user" if owner == "user" else "item", weights=weights)


def _event_schema(domain: Domain) -> Schema:
    """Types the columns of one event file (a history's events have no tasks and no features of their own)."""
    return Schema(
        name=domain.name,
        roles=Roles(user="user_id", time=f"{domain.prefix}_{domain.time}"),
        features=tuple(
            Feature(name=f"{domain.prefix}_{number}", kind="categorical", of="pair") for number, _ in domain.features
        ),
    )


def _row_columns(
    shape: TaacShape,
    random: np.random.Generator,
    user: np.ndarray,
    item: np.ndarray,
    users: int,
    items: int,
    max_values: int,
) -> dict[str, pa.Array]:
    """User and item columns: drawn once for every user and item, then taken by the rows."""
    by_user, by_item = pa.array(user), pa.array(item)
    columns: dict[str, pa.Array] = {"user_id": pa.array(user * 7919 + 11), "item_id": pa.array(item * 104_729 + 5)}
    weighted = _weighted(shape)
    for prefix, ints, count, by in (
        ("user_int_feats", shape.user_int, users, by_user),
        ("item_int_feats", shape.item_int, items, by_item),
    ):
        for number, values, longest in ints:
            drawn, weights = _ids(random, count, min(values, max_values), longest)
            columns[f"{prefix}_{number}"] = drawn.take(by)
            if prefix == "user_int_feats" and number in weighted:
                columns[f"user_dense_feats_{number}"] = weights.take(by)
    for number, width in shape.user_dense:
        if number not in weighted:
            numbers = random.normal(0.0, 0.2, users * width).astype(np.float32)
            vectors = pa.FixedSizeListArray.from_arrays(pa.array(numbers), width)
            columns[f"user_dense_feats_{number}"] = vectors.take(by_user)
    return columns


def _ids(random: np.random.Generator, count: int, values: int, longest: int) -> tuple[pa.Array, pa.Array]:
    """Ids from 1 of `count` owners (one each, or lists up to `longest`), low ones more often; and weights of lists."""
    lengths = np.ones(count, dtype=np.int64) if longest == 1 else random.integers(0, longest + 1, count)
    ids = 1 + np.floor(values * random.random(int(lengths.sum())) ** 2).astype(np.int64)
    if longest == 1:
        return pa.array(ids, mask=random.random(count) < 0.03), pa.nulls(0)
    offsets = pa.array(np.concatenate([[0], lengths.cumsum()]).astype(np.int32))
    weights = pa.array(np.floor(random.random(len(ids)) * 1e5).astype(np.float32))
    return pa.ListArray.from_arrays(offsets, pa.array(ids)), pa.ListArray.from_arrays(offsets, weights)


def _events(
    domain: Domain, random: np.random.Generator, users: int, events_per_user: int, max_values: int
) -> pa.Table:
    """The events of one domain in no order: some users have many, some none, some events come at one time."""
    counts = random.geometric(1.0 / max(events_per_user, 1), users)
    counts[random.random(users) < 0.1] = 0
    owner = random.permutation(np.repeat(np.arange(users), counts))
    span = (_EVENT_SPAN * random.random(len(owner)) ** 3).astype(np.int64)
    time = (_END - span) // _TICK * _TICK
    columns = {"user_id": pa.array(owner * 7919 + 11), f"{domain.prefix}_{domain.time}": pa.array(time)}
    for number, values in domain.features:
        ids, _ = _ids(random, len(owner), min(values, max_values), 1)
        columns[f"{domain.prefix}_{number}"] = ids
    return pa.table(columns)


def _past(
    events: pa.Table, domain: Domain, user: np.ndarray, time: np.ndarray, max_length: int
) -> tuple[np.ndarray, np.ndarray]:
    """For each row the events its list holds: indices into `events` one after another, and the rows' offsets."""
    owner = (events["user_id"].to_numpy() - 11) // 7919
    event_time = events[f"{domain.prefix}_{domain.time}"].to_numpy()
    order = np.lexsort((event_time, owner))  # stable: equal times stay in the file's order
    width = _END + 1
    key = owner[order] * width + event_time[order]
    start = np.searchsorted(key, user * width)
    end = np.searchsorted(key, user * width + time)  # events at the row's own time are not past
    positions, offsets = span_positions(np.maximum(start, end - max_length), end)
    return order[positions], offsets
