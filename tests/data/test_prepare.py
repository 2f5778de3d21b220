"""Preparing: every row once and as logged, with the past that a plain loop over the log gives."""

from __future__ import annotations

import datetime
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from prepared_log import BY_TIME, SECOND, SMALL, blocks, folder_hash, prepared
from small_log import DAY, SCHEMA, Memory, rows

from fullrank.data import spill
from fullrank.data.columns import DataError, Ragged, array
from fullrank.data.keys import code_of_key
from fullrank.data.manifest import MANIFEST
from fullrank.data.partitions import PreparedData
from fullrank.data.prepare import prepare
from fullrank.data.splits import AllTrain, ByHash, ByTime, GivenFiles, PerUserOrder, Split
from fullrank.schema import EventFeature, Feature, History, Roles, Schema, Task


def pasts(log: list[dict[str, Any]], max_length: int = 4) -> list[list[dict]]:
    """The past of every row's request, by a loop over all rows."""
    request_time: dict[tuple[Any, ...], int] = {}
    for row in log:
        key, time = (row["user_id"], row["request_id"]), row["ts"]
        request_time[key] = min(time, request_time.get(key, time))
    times = [request_time[row["user_id"], row["request_id"]] for row in log]
    events: dict[str, list[tuple[int, int, int]]] = {}
    for number, row in enumerate(log):
        if row["clicked"] and row["user_id"] is not None:
            available = max(row["ts"] + 10, times[number])
            events.setdefault(row["user_id"], []).append((available, row["ts"], number))
    found = []
    for row, time in zip(log, times, strict=True):
        past = sorted(event for event in events.get(row["user_id"], []) if event[0] < time)
        found.append([log[number] for _, _, number in past[-max_length:]])
    return found


def check_rows(
    data: PreparedData, table: pa.Table, partition: int = 0, before: list[dict] | None = None
) -> None:
    """Every row of `table` is in the partition once, with its values and its past among `before` and itself."""
    log = table.to_pylist()
    everything = [*(before or []), *log]
    number_of = {code_of_key(row["imp"]): number for number, row in enumerate(everything)}
    past_of = pasts(everything)
    maps = data.transform.id_maps
    store = data.sources("clicks")[partition].columns
    seen = []
    for _, block in blocks(data, partition):
        requests, own = block.requests, block.rows
        end, length = array(requests, "@history.clicks.end"), array(requests, "@history.clicks.length")
        for i in range(block.num_rows):
            number = number_of[int(array(own, "@impression")[i])]
            row, r = everything[number], int(array(own, "@request")[i])
            seen.append(number)
            assert array(requests, "@user")[r] == (code_of_key(row["user_id"]) if row["user_id"] else 0)
            assert array(own, "@time")[i] == row["ts"] * SECOND
            codes = np.array([code_of_key(row["item_id"])], dtype=np.uint64)
            assert array(own, "item")[i] == maps["item"].ids(codes)[0]
            genres = own["genres"]
            assert isinstance(genres, Ragged)
            bag = genres.values[genres.offsets[i] : genres.offsets[i + 1]]
            assert [maps["genres"].key_of_id(g) for g in bag] == row["genres"]
            assert array(own, "match")[i] == np.float32(row["match"])
            assert array(own, "@label.bought")[i] == row["bought"]
            known = row["bought_at"] if row["bought"] else row["ts"] + DAY
            assert array(own, "@known_at.bought")[i] == known * SECOND
            span = slice(end[r] - length[r], end[r])
            past = past_of[number]
            assert [code_of_key(event["imp"]) for event in past] == store["@impression"][span].tolist()
            assert store["item"][span].tolist() == [
                maps["item"].ids(np.array([code_of_key(e["item_id"])], np.uint64))[0] for e in past
            ]
            assert store["bought"][span].tolist() == [float(event["bought"]) for event in past]
    assert sorted(seen) == list(range(len(before or []), len(everything)))


@pytest.mark.parametrize("chunk_rows", [7, 1000])
@pytest.mark.parametrize("shuffled", [False, True])
def test_every_row_once_with_its_values_and_its_past(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk_rows: int, shuffled: bool
) -> None:
    monkeypatch.setattr(spill, "CHUNK_ROWS", 64)  # several chunks, so that requests lie across them
    table = rows()
    if shuffled:
        table = table.take(np.random.default_rng(3).permutation(len(table)))
    data = prepared(tmp_path, Memory(table, chunk_rows=chunk_rows))
    check_rows(data, table)


def test_an_append_reads_pasts_over_both_days_and_rewrites_nothing(tmp_path: Path) -> None:
    day1, day2 = rows(), rows(1, start=1_001_500)
    prepared(tmp_path, Memory(day1))
    before = folder_hash(tmp_path / "data")
    data = prepared(tmp_path, Memory(day2), split=None, append=True)
    after = folder_hash(tmp_path / "data")
    assert {name: after[name] for name in before if name != MANIFEST} == {
        name: value for name, value in before.items() if name != MANIFEST
    }
    assert [set(entry.splits) for entry in data.manifest.partitions] == [{"train", "valid", "test"}] * 2
    assert data.manifest.partitions[1].splits["train"].rows == len(day2)  # an append trains
    check_rows(data, day1, 0)
    # Day 2 overlaps day 1 in time, so a past may need events that day 1's store no longer leads with: only users
    # whose rows lie after all of day 1 are promised the same past as in one log.
    late = prepared(tmp_path, Memory(rows(2, start=1_010_000)), split=None, append=True)
    check_rows(late, rows(2, start=1_010_000), 2, [*day1.to_pylist(), *day2.to_pylist()])


def test_blocks_hold_whole_requests_and_are_aligned(tmp_path: Path) -> None:
    data = prepared(tmp_path, Memory(rows()))
    sizes = [block.num_rows for block in data.blocks("train")]
    assert len(sizes) > 3 and max(sizes) <= SMALL.block_rows and min(sizes[:-1]) > SMALL.block_rows - 4
    requests = np.concatenate([array(block.requests, "@request") for _, block in blocks(data)])
    assert len(requests) == len(np.unique(requests))
    assert [len(array(block.requests, "@time")) for _, block in blocks(data)] == [
        block.num_requests for _, block in blocks(data)
    ]


def test_a_closed_log_cannot_be_appended_to(tmp_path: Path) -> None:
    data = prepared(tmp_path, Memory(rows()), split=PerUserOrder(valid=0.1, test=0.2))
    check_rows(data, rows())
    with pytest.raises(DataError, match="closed log"):
        prepare(Memory(rows(1)), tmp_path / "data", append=True)
    prepared(tmp_path, Memory(rows()), name="other")
    with pytest.raises(DataError, match="closed log"):
        prepare(Memory(rows(1)), tmp_path / "other", append=True, split=PerUserOrder())


def test_splits_of_prepared_rows(tmp_path: Path) -> None:
    data = prepared(tmp_path, Memory(rows()))
    times = {
        split: np.concatenate([array(b.requests, "@time") for s, b in blocks(data) if s == split])
        for split in ("train", "valid", "test")
    }
    assert times["train"].max() < times["valid"].min() and times["valid"].max() < times["test"].min()
    sizes = {name: size.rows for name, size in data.manifest.partitions[0].splits.items()}
    total = sum(sizes.values())
    assert abs(sizes["test"] - 0.2 * total) <= 4 and abs(sizes["valid"] - 0.1 * total) <= 4

    data = prepared(tmp_path, Memory(rows()), name="hash", split=ByHash(key="user", valid=0.2, test=0.3))
    of_user: dict[int, set[str]] = {}
    for split, block in blocks(data):
        for user in array(block.requests, "@user"):
            of_user.setdefault(int(user), set()).add(split)
    assert all(len(found) == 1 for found in of_user.values()) and of_user[0] == {"train"}

    data = prepared(tmp_path, Memory(rows(), split="train"), name="given", split=GivenFiles())
    assert data.manifest.partitions[0].splits["train"].rows == len(rows())
    with pytest.raises(DataError, match="given as one of"):
        prepare(Memory(rows()), tmp_path / "none", split=GivenFiles())


def test_fitted_state_is_that_of_the_training_rows(tmp_path: Path) -> None:
    """Whatever stands outside of the training split, maps and scalers are the same."""
    table = rows()
    data = prepared(tmp_path, Memory(table))
    cut = min(int(b.requests["@time"].min()) for s, b in blocks(data) if s != "train") // SECOND  # type: ignore[union-attr]
    log = table.to_pylist()
    for row in log:
        if row["ts"] >= cut:
            row.update(
                user_id="new",
                item_id=row["item_id"] + 1000,
                city="x",
                hour=99.0,
                genres=["y"],
                campaign="z",
                page="p",
            )
    other = prepared(tmp_path, Memory(pa.Table.from_pylist(log, schema=table.schema)), name="other")
    assert other.manifest.lineage == data.manifest.lineage
    assert other.transform.scalers == data.transform.scalers
    train = [b for s, b in blocks(data) if s == "train"]
    for mine, theirs in zip(train, [b for s, b in blocks(other) if s == "train"], strict=True):
        for name, column in mine.rows.items():
            if isinstance(column, np.ndarray):
                np.testing.assert_array_equal(column, theirs.rows[name])


def test_scalers_and_ids_of_the_first_day_stay(tmp_path: Path) -> None:
    data = prepared(tmp_path, Memory(rows()))
    later = prepared(tmp_path, Memory(rows(5, users=30, items=60, start=1_050_000)), split=None, append=True)
    assert later.transform.scalers == data.transform.scalers
    for name, id_map in data.transform.id_maps.items():
        longer = later.transform.id_maps[name]
        codes = id_map.codes_of_ids(np.arange(id_map.num_rows))
        assert longer.codes_of_ids(np.arange(id_map.num_rows)).tolist() == codes.tolist()
    assert later.transform.id_maps["item"].num_rows == data.transform.id_maps["item"].num_rows + 40
    assert later.manifest.as_of > data.manifest.as_of


def test_as_of_is_the_latest_the_log_knows_of(tmp_path: Path) -> None:
    table = rows()
    last = max([*table["ts"].to_pylist(), *(t for t in table["bought_at"].to_pylist() if t)])
    assert prepared(tmp_path, Memory(table)).as_of == last * SECOND
    prepare(Memory(table), tmp_path / "given", split=BY_TIME, as_of=123)
    assert PreparedData.open(tmp_path / "given").as_of == 123


def inline_table(n: int = 200) -> pa.Table:
    rng = np.random.default_rng(1)
    lists = [sorted(rng.integers(0, 50, rng.integers(0, 6)).tolist()) for _ in range(n)]
    return pa.table(
        {
            "user_id": rng.integers(0, 5, n),
            "item_id": rng.integers(0, 9, n),
            "ts": np.full(n, 50),
            "seen": pa.array([[t % 9 for t in times] for times in lists]),
            "seen_at": pa.array(lists),
            "seen_how": pa.array([["x"] * len(times) for times in lists], pa.list_(pa.string())),
            "clicked": rng.integers(0, 2, n),
        }
    )


def test_inline_histories_are_kept_once_a_request(tmp_path: Path) -> None:
    table = inline_table()
    schema = Schema(
        roles=Roles(user="user_id", item="item_id", time="ts"),
        histories=(
            History(
                name="seen",
                layout="inline",
                item="seen",
                time="seen_at",
                lag=3,
                max_length=3,
                features=(EventFeature(name="how", column="seen_how"),),
            ),
        ),
        tasks=(Task(name="clicked"),),
    )
    data = prepared(tmp_path, Memory(table, schema=schema), split=ByHash(key="user", valid=0.2, test=0.2))
    store = data.sources("seen")[0]
    found = []
    for _, block in blocks(data):
        end, length = (
            array(block.requests, "@history.seen.end"),
            array(block.requests, "@history.seen.length"),
        )
        users = array(block.requests, "@user").tolist()
        spans = [store.columns["time"][e - n : e].tolist() for e, n in zip(end, length, strict=True)]
        found += list(zip(users, [tuple(t // SECOND for t in times) for times in spans], strict=True))
    expected = [
        (code_of_key(row["user_id"]), tuple([t for t in row["seen_at"] if t + 3 < 50][-3:]))
        for row in table.to_pylist()
    ]
    assert sorted(found) == sorted(expected)
    assert set(store.columns["how"].tolist()) == {data.transform.id_maps["how"].first_key_id}


def test_events_of_a_file(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    events = pa.table(
        {
            "who": rng.integers(0, 6, 80),
            "what": rng.integers(100, 110, 80),
            "at": rng.integers(0, 100, 80),
            "dwell": rng.random(80).astype(np.float32),
        }
    )
    log = pa.table(
        {
            "who": rng.integers(0, 6, 60),
            "what": rng.integers(0, 9, 60),
            "at": rng.integers(0, 100, 60),
            "y": np.arange(60) % 2,
        }
    )
    schema = Schema(
        roles=Roles(user="who", item="what", time="at"),
        histories=(
            History(
                name="views",
                source="file",
                key_space="thing",
                max_length=5,
                features=(EventFeature(name="dwell", kind="numeric", scale="none"),),
            ),
        ),
        tasks=(Task(name="y"),),
    )
    source = Memory(log, schema=schema, events={"views": Memory(events, schema=schema)})
    data = prepared(tmp_path, source)
    store = data.sources("views")[0]
    for _, block in blocks(data):
        for user, time, end, length in zip(
            *(
                array(block.requests, n)
                for n in ("@user", "@time", "@history.views.end", "@history.views.length")
            ),
            strict=True,
        ):
            mine = [
                e for e in events.to_pylist() if code_of_key(e["who"]) == user and e["at"] * SECOND < time
            ]
            mine = sorted(mine, key=lambda e: e["at"])[-5:]
            assert store.columns["time"][end - length : end].tolist() == [e["at"] * SECOND for e in mine]
            assert sorted(store.columns["dwell"][end - length : end].tolist()) == sorted(
                e["dwell"] for e in mine
            ) or (len(mine) == 5)
    # Keys of events count where they were available before the last training request.
    last = max(int(array(b.requests, "@time").max()) for s, b in blocks(data) if s == "train") // SECOND
    expected = {e["what"] for e in events.to_pylist() if e["at"] < last}
    things = data.transform.id_maps["thing"]
    assert {int(things.key_of_id(i)) for i in range(things.first_key_id, things.num_rows)} == expected
    with pytest.raises(DataError, match="file of events for history 'views'"):
        prepare(Memory(log, schema=schema), tmp_path / "without", split=BY_TIME)


BARE = Schema(
    features=(
        Feature(name="x", kind="numeric", of="pair"),
        Feature(name="same", kind="categorical", of="pair"),
    ),
    tasks=(Task(name="y"),),
)


@pytest.mark.parametrize("n", [1, 2, 90])
def test_a_log_without_time_user_or_request(tmp_path: Path, n: int) -> None:
    table = pa.table({"x": np.arange(n, dtype=np.float64), "same": ["a"] * n, "y": np.arange(n) % 2})
    data = prepared(tmp_path, Memory(table, schema=BARE), split=ByHash(key="same", valid=0.0, test=0.0))
    values = np.concatenate([array(block.rows, "@label.y") for _, block in blocks(data)])
    assert values.tolist() == [i % 2 for i in range(n)]
    with pytest.raises(DataError, match="time or an order"):
        prepare(Memory(table, schema=BARE), tmp_path / "time", split=ByTime())
    with pytest.raises(DataError, match="role user"):
        prepare(Memory(table, schema=BARE), tmp_path / "user", split=PerUserOrder())


@pytest.mark.parametrize("split", [BY_TIME, PerUserOrder(), AllTrain()])
def test_one_row(tmp_path: Path, split: Split) -> None:
    data = prepared(tmp_path, Memory(rows().slice(0, 1)), split=split)
    assert data.manifest.partitions[0].splits["train"].rows == 1
    assert data.sources("clicks")[0].num_events <= 1


def test_equal_times_are_never_parted_and_never_past(tmp_path: Path) -> None:
    table = rows()
    table = table.set_column(table.schema.get_field_index("ts"), "ts", pa.array([5] * len(table)))
    schema = replace(SCHEMA, histories=(replace(SCHEMA.histories[0], lag=0),))
    data = prepared(tmp_path, Memory(table, schema=schema))
    assert data.manifest.partitions[0].splits["train"].rows == len(table)
    assert all(not array(block.requests, "@history.clicks.length").any() for _, block in blocks(data))


def test_a_log_with_an_order_and_no_clock(tmp_path: Path) -> None:
    n = 100
    rng = np.random.default_rng(0)
    table = pa.table(
        {"u": rng.integers(0, 4, n), "i": rng.integers(0, 9, n), "o": np.arange(n), "y": np.arange(n) % 2}
    )
    schema = Schema(
        roles=Roles(user="u", item="i", order="o"),
        time_unit="position",
        histories=(History(name="before", max_length=100),),
        tasks=(Task(name="y"),),
    )
    data = prepared(tmp_path, Memory(table, schema=schema))
    for _, block in blocks(data):
        users, times = array(block.requests, "@user"), array(block.requests, "@time")
        for user, time, length in zip(
            users, times, array(block.requests, "@history.before.length"), strict=True
        ):
            assert length == sum(code_of_key(u) == user for u in table["u"].to_pylist()[:time])


def test_a_moment_may_be_a_date(tmp_path: Path) -> None:
    day = datetime.datetime.fromtimestamp(1_001_200, datetime.UTC)
    data = prepared(
        tmp_path, Memory(rows()), split=ByTime(valid=day.isoformat(), test=int(1_002_000 * SECOND))
    )
    for split, block in blocks(data):
        time = array(block.requests, "@time") // SECOND
        expected = np.where(time >= 1_002_000, "test", np.where(time >= 1_001_200, "valid", "train"))
        assert (expected == split).all()
