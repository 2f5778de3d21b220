"""Batches of small random logs against `batch_oracle`, which works them out from the definitions in plain loops."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from batch_oracle import Day, Oracle, Record
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from laws_logs import Memory

from fullrank.data import by_user, flat, spill
from fullrank.data.batch import Batch, FeatureBlock
from fullrank.data.inputs import Field, Inputs
from fullrank.data.loader import Loader
from fullrank.data.partitions import PreparedData
from fullrank.data.prepare import Budget, prepare
from fullrank.data.splits import AllTrain, ByTime, GivenFiles, PerUserOrder, Split
from fullrank.schema import EventFeature, EventOutcome, Feature, History, KeySpace, Roles, Schema, Task

SCHEMA = Schema(
    name="oracle",
    roles=Roles(user="u", item="i", request="r", time="t", weight="weight"),
    features=(
        Feature(name="hour", kind="categorical"),
        Feature(name="num", kind="numeric"),
        Feature(name="brand", kind="categorical", of="item"),
        Feature(name="shelf", kind="categorical", of="item", key_space="brand", mutable=True),
        Feature(name="tags", kind="multi", of="item", key_space="tag", weights="tag_w"),
    ),
    histories=(
        History(
            name="logged",
            features=(EventFeature(name="mark"), EventFeature(name="dwell", kind="numeric")),
            outcomes=(EventOutcome(name="buy", time="buy_t"),),
        ),
        History(name="filed", source="file", item="i", time="t", features=(EventFeature(name="mark"),)),
        History(name="recent", layout="inline", item="recent_i", time="recent_t"),
    ),
    tasks=(Task(name="click"), Task(name="buy", label_time="buy_t")),
)
TYPES = pa.schema(
    {
        **{"u": pa.string(), "r": pa.int64(), "t": pa.int64(), "et": pa.int64(), "i": pa.string()},
        **{"weight": pa.float32(), "hour": pa.int64(), "num": pa.float32(), "brand": pa.string(), "shelf": pa.string()},
        **{"mark": pa.int64(), "tags": pa.list_(pa.string()), "tag_w": pa.list_(pa.float32()), "is_event": pa.int8()},
        **{"dwell": pa.float32(), "click": pa.int8(), "buy": pa.int8(), "buy_t": pa.int64()},
        **{"recent_i": pa.list_(pa.string()), "recent_t": pa.list_(pa.int64())},
    }
)
ITEMS = st.sampled_from(["1", "x", "y", "z", "é", None])
USERS = st.sampled_from(["7", "b", "c", None])
LAST = 9


@st.composite
def records(draw: st.DrawFn, order: str, earliest: int) -> Record:
    time = earliest + draw(st.integers(0, LAST))
    recent = sorted(draw(st.lists(st.integers(0, time), max_size=4)), reverse=order == "newest_first")
    tags = draw(st.lists(st.sampled_from(["p", "q", "s", None]), max_size=3))
    buy = draw(st.sampled_from([0, 0, 1, None]))
    return {
        "u": draw(USERS),
        "r": draw(st.sampled_from([1, 2, 3, 4, None])),
        "t": time,
        "et": time + draw(st.sampled_from([0, 0, -2, 3])),
        "i": draw(ITEMS),
        "weight": draw(st.sampled_from([0.5, 1.0])),
        "hour": draw(st.sampled_from([0, 1, None])),
        "num": draw(st.sampled_from([0.0, 1.5, -2.0, None])),
        "brand": draw(st.sampled_from(["A", "B", None])),
        "shelf": draw(st.sampled_from(["A", "C"])),
        "mark": draw(st.integers(1, 3)),
        "tags": tags,
        "tag_w": [0.25 * place for place in range(len(tags))],
        "is_event": draw(st.sampled_from([1, 1, 0])),
        "dwell": draw(st.sampled_from([1.0, 8.0, None])),
        "click": draw(st.sampled_from([0, 1, None])),
        "buy": buy,
        "buy_t": draw(st.sampled_from([None, time, time + 3, 0])) if buy else None,
        "recent_i": [draw(ITEMS) for _ in recent],
        "recent_t": recent,
    }


@st.composite
def days(draw: st.DrawFn, order: str, count: int) -> list[Day]:
    found = []
    for number in range(count):
        rows = draw(st.lists(records(order, number * (LAST - 2)), min_size=1, max_size=14))
        times = st.integers(number * LAST, (number + 1) * LAST)
        event = st.fixed_dictionaries({"u": USERS, "t": times, "i": ITEMS, "mark": st.just(2)})
        given_as = sorted(draw(st.lists(st.sampled_from(["train", "valid"]), min_size=len(rows), max_size=len(rows))))
        found.append(Day(rows, draw(st.lists(event, max_size=8)), ["train", *given_as[1:]]))
    return found


@st.composite
def schemas(draw: st.DrawFn) -> Schema:
    lengths = st.sampled_from([1, 2, 100])
    lag = st.sampled_from([0, 0, 1, 4, 100])
    logged, filed, recent = SCHEMA.histories
    outcome = replace(logged.outcomes[0], window=draw(st.sampled_from([0, 3])), lag=draw(st.sampled_from([0, 1])))
    where, time = draw(st.sampled_from(["", "is_event"])), draw(st.sampled_from(["", "", "et"]))
    order = draw(st.sampled_from(["oldest_first", "newest_first"]))
    click, buy = SCHEMA.tasks
    spaces = st.builds(KeySpace, name=st.just("item"), min_count=st.integers(1, 2), unknown_rows=st.integers(1, 3))
    return replace(
        SCHEMA,
        histories=(
            replace(logged, lag=draw(lag), max_length=draw(lengths), where=where, time=time, outcomes=(outcome,)),
            replace(filed, lag=draw(lag), max_length=draw(lengths)),
            replace(recent, lag=draw(lag), max_length=draw(lengths), order=order),
        ),
        tasks=(click, replace(buy, window=draw(st.sampled_from([0, 2, 50])))),
        key_spaces=(draw(spaces), KeySpace(name="brand", unknown_rows=2)),
    )


def source(schema: Schema, day: Day, splits: bool) -> Memory:
    types = pa.schema([(name, TYPES.field(name).type) for name in ("u", "t", "i", "mark")])
    events = Memory(schema, pa.Table.from_pylist(day.events, types), chunk_rows=3)
    table = pa.Table.from_pylist(day.rows, TYPES)
    return Memory(schema, table, {"filed": events}, tuple(day.given) if splits else (), chunk_rows=5)


def owners(block: FeatureBlock, fields: tuple[Field, ...]) -> list[Record]:
    """The fields of every owner by name."""
    found: list[Record] = [{} for _ in range(block.num_owners)]
    ids, numbers, bags = block.ids_nF.T.tolist(), block.numbers_nF.T.tolist(), list(block.bags)
    for field in fields:
        if field.kind == "multi":
            bag = bags.pop(0)
            values: list[Any] = bag.ids_N.tolist()
            if bag.weights_N is not None:
                values = list(zip(values, bag.weights_N.tolist(), strict=True))
            offsets = bag.offsets.tolist()
            column = [values[a:b] for a, b in pairwise(offsets)]
        else:
            column = (ids if field.kind == "categorical" else numbers).pop(0)
        for owner, value in zip(found, column, strict=True):
            owner[field.name] = value
    return found


def read(batch: Batch, inputs: Inputs) -> list[Record]:
    """A batch as one record a row."""
    assert batch.labels is not None
    requests, candidates = batch.requests, owners(batch.candidates.features, inputs.candidate)
    context = owners(requests.features, inputs.request)
    histories: list[Record] = [{} for _ in context]
    for history, wanted in zip(requests.histories, inputs.histories, strict=True):
        events, offsets = owners(history.events, wanted.fields), history.offsets.tolist()
        for r, (start, end) in enumerate(pairwise(offsets)):
            histories[r][wanted.name] = events[start:end]
    rows = []
    for b, r in enumerate(batch.candidates.request_of_row_B.tolist()):
        values, known = batch.labels.values_BK[b].tolist(), batch.labels.known_BK[b].tolist()
        labels = zip(inputs.task_names, values, known, strict=True)
        rows.append(
            {
                **context[r],
                **candidates[b],
                "time": int(requests.time_R[r]),
                "weight": float(batch.labels.weight_B[b]),
                "labels": {task: (value, known) for task, value, known in labels},
                "histories": histories[r],
            }
        )
    return rows


def assert_like(read: Any, expected: Any, place: str = "") -> None:
    if isinstance(expected, dict):
        assert read.keys() == expected.keys(), place
        for name, value in expected.items():
            assert_like(read[name], value, f"{place} {name}")
    elif isinstance(expected, list):
        assert len(read) == len(expected), (place, read, expected)
        for number, value in enumerate(expected):
            assert_like(read[number], value, f"{place} {number}")
    elif isinstance(expected, float):
        assert np.isclose(read, expected, rtol=1e-5, atol=1e-6, equal_nan=True), (place, read, expected)
    else:
        assert read == expected, (place, read, expected)


def check(schema: Schema, parts: list[Day], split: Split, as_of: int | None, small: int, last_n: int | None) -> None:
    """Prepare the days one after another, with everything cut into pieces of about `small`, and read them all."""
    oracle = Oracle(schema, parts, split, as_of)
    inputs = Inputs.of(schema, last_n=last_n)
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(by_user, "BUCKET_ROWS", small)
        patch.setattr(spill, "CHUNK_ROWS", small)
        patch.setattr(flat.pieces, "__defaults__", (small,))
        for number, day in enumerate(parts):
            log = source(schema, day, isinstance(split, GivenFiles) and number == 0)
            prepare(
                log,
                Path(folder) / "data",
                split=split if number == 0 else AllTrain(),
                append=number > 0,
                as_of=as_of,
                budget=Budget(keys=2, block_rows=small),
            )
        data = PreparedData.open(Path(folder) / "data")
        assert data.as_of == oracle.as_of
        for day in range(len(parts)):
            for name in ("train", "valid", "test"):
                expected = oracle.rows(day, name)
                for row in expected:
                    for wanted in inputs.histories:
                        row["histories"][wanted.name] = row["histories"][wanted.name][-wanted.last_n :]
                loader = Loader(data, inputs, name, batch_size=small + 1, partitions=(day,))
                found = [row for batch in loader.epoch(0) for row in read(batch, inputs)]
                assert_like(found, expected, f"day {day}, {name}:")


# An example prepares a log or three, so a failure is shown as it was drawn: making it smaller would take minutes.
DRAWN = settings(
    phases=[Phase.reuse, Phase.generate], suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
SPLITS = st.sampled_from([ByTime(valid=0.2, test=0.2), PerUserOrder(valid=0.2, test=0.3), AllTrain(), GivenFiles()])
AS_OF = st.sampled_from([None, 0, 4_000_000, 60_000_000])
SMALL = st.sampled_from([2, 5, 1 << 16])


@settings(DRAWN, max_examples=40)
@given(data=st.data(), schema=schemas(), split=SPLITS, as_of=AS_OF, small=SMALL, last_n=st.sampled_from([None, 1, 3]))
def test_batches_are_those_of_the_definitions(
    data: st.DataObject, schema: Schema, split: Split, as_of: int | None, small: int, last_n: int | None
) -> None:
    check(schema, data.draw(days(schema.histories[2].order, 1)), split, as_of, small, last_n)


@settings(DRAWN, max_examples=20)
@given(data=st.data(), schema=schemas(), as_of=AS_OF, small=SMALL, count=st.integers(2, 3))
def test_appended_days_are_those_of_the_definitions(
    data: st.DataObject, schema: Schema, as_of: int | None, small: int, count: int
) -> None:
    parts = data.draw(days(schema.histories[2].order, count))
    check(schema, parts, data.draw(st.sampled_from([AllTrain(), ByTime(valid=0.2, test=0.2)])), as_of, small, None)


def record(time: int, item: str, **values: Any) -> Record:
    """A plain row."""
    plain = {"u": "7", "r": None, "t": time, "et": time, "i": item, "weight": 1.0, "hour": 0, "num": 0.0, "brand": "A"}
    lists: Record = {"tags": [], "tag_w": [], "recent_i": [], "recent_t": []}
    labels = {"is_event": 1, "dwell": 1.0, "click": 1, "buy": 0, "buy_t": None}
    return {**plain, "shelf": "A", "mark": 1, **lists, **labels, **values}


def plainly(parts: list[list[Record]], schema: Schema = SCHEMA) -> None:
    check(schema, [Day(rows, [], ["train"] * len(rows)) for rows in parts], AllTrain(), None, 5, None)


def test_events_that_become_available_together_are_in_the_order_of_their_times() -> None:
    logged, *others = SCHEMA.histories
    schema = replace(SCHEMA, histories=(replace(logged, time="et"), *others))
    together = [record(5, item, r=1, et=5 - place) for place, item in enumerate("xyz")]
    plainly([[*together, record(9, "x")]], schema)


@pytest.mark.parametrize("often", ["x", "y"])
def test_ids_go_by_the_count_over_all_days(often: str) -> None:
    schema = replace(SCHEMA, key_spaces=(KeySpace(name="item", min_count=2),))
    second = [record(20 + place, item) for place, item in enumerate("xyxy")]
    plainly([[record(1, often), record(2, "z"), record(3, "z")], second], schema)


def test_a_request_is_whole_however_its_rows_lie() -> None:
    """Rows of a request apart from each other, over chunks and blocks; one key of two users; all in one second."""
    scattered = [record(5 + place % 3, "xyz"[place % 3], r=place % 4, u="7b"[place % 2]) for place in range(23)]
    plainly([scattered, [record(40, "x", r=1), record(40, "y"), record(40, "z", r=1)]])


@pytest.mark.parametrize("missing", ["i", "u"])
def test_a_log_in_which_nobody_or_nothing_is_named(missing: str) -> None:
    plainly([[record(time, "x", recent_i=["x", None], recent_t=[0, 1]) | {missing: None} for time in (1, 2, 9)]])
