"""Forgetting a user: nothing of them is left, and for everybody else nothing has changed."""

from __future__ import annotations

import errno
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from small_log import SCHEMA, Memory, rows

from fullrank.data import forget as forgetting
from fullrank.data.columns import DataError, EncodedBlock, Ragged, array
from fullrank.data.corrections import append_labels
from fullrank.data.forget import forget
from fullrank.data.keys import code_of_key
from fullrank.data.lineage import Lineage
from fullrank.data.partitions import PreparedData
from fullrank.data.prepare import Budget, prepare
from fullrank.data.splits import AllTrain, ByTime
from fullrank.schema import EventFeature, Feature, History

SECRET = b"a secret of sixteen or more bytes"
WHO = "someone@example.org"
BUDGET = Budget(block_rows=40)
SEEN = History(
    name="seen",
    layout="inline",
    item="seen",
    time="seen_at",
    max_length=3,
    features=(EventFeature(name="how"),),
)
# The user's column as a feature of its own has a key space of its own, which holds the same keys.
AGAIN = Feature(name="cohort_of_one", kind="categorical", of="user", column="user_id")
WITH_LISTS = replace(SCHEMA, histories=(*SCHEMA.histories, SEEN), features=(*SCHEMA.features, AGAIN))


def day(seed: int, start: int) -> pa.Table:
    """The small log with a name for one user, and lists that requests carry."""
    table = rows(seed, start=start)
    users = [WHO if user == "u3" else user for user in table["user_id"].to_pylist()]
    request, time = table["request_id"].to_pylist(), table["ts"].to_pylist()
    seen = [[(r + k) % 20 for k in range(r % 5)] for r in request]
    at = [[t - 100 + k for k in range(len(s))] for t, s in zip(time, seen, strict=True)]
    return (
        table.set_column(0, "user_id", pa.array(users))
        .append_column("seen", pa.array(seen, pa.list_(pa.int64())))
        .append_column("seen_at", pa.array(at, pa.list_(pa.int64())))
        .append_column("how", pa.array([["x"] * len(s) for s in seen], pa.list_(pa.string())))
    )


def two_days(out: Path, hash_key: bytes | None = None) -> PreparedData:
    split = ByTime(valid=0.1, test=0.2)
    prepare(Memory(day(0, 1_000_000), schema=WITH_LISTS), out, split=split, budget=BUDGET, hash_key=hash_key)
    prepare(Memory(day(1, 1_005_000), schema=WITH_LISTS), out, append=True, budget=BUDGET, hash_key=hash_key)
    return PreparedData.open(out)


def contents(data: PreparedData) -> list[tuple[Any, ...]]:
    """Every row with its request's columns and pasts, by value, in order."""
    found = []
    for split in ("train", "valid", "test"):
        for ref in data.blocks(split):
            block = data.read_all(ref)
            r = array(block.rows, "@request")
            pasts = [past(data, block, name, ref.partition) for name in ("clicks", "seen")]
            for i in range(block.num_rows):
                request = values(block.requests, int(r[i]))
                own = values(block.rows, i)
                del own["@request"]
                del request["@history.clicks.end"], request["@history.seen.end"]
                found.append((ref.partition, split, request, own, *(p[int(r[i])] for p in pasts)))
    return found


def values(columns: dict[str, Any], i: int) -> dict[str, Any]:
    return {
        name: column.values[column.offsets[i] : column.offsets[i + 1]].tolist()
        if isinstance(column, Ragged)
        else repr(column[i])
        for name, column in columns.items()
    }


def past(data: PreparedData, block: EncodedBlock, name: str, partition: int) -> list[dict[str, Any]]:
    source = data.sources(name)[partition]
    end, length = (
        array(block.requests, f"@history.{name}.end"),
        array(block.requests, f"@history.{name}.length"),
    )
    return [
        {column: repr(array_[e - n : e].tolist()) for column, array_ in source.columns.items()}
        for e, n in zip(end, length, strict=True)
    ]


def traces(folder: Path, hash_key: bytes | None = None) -> list[str]:
    """Files that hold the key, or its code."""
    code = np.array([code_of_key(WHO, hash_key)], dtype="<u8").tobytes()
    files = [path for path in folder.rglob("*") if path.is_file()]
    return [path.name for path in files if WHO.encode() in (held := path.read_bytes()) or code in held]


@pytest.mark.parametrize("hash_key", [None, SECRET])
def test_nothing_of_the_user_is_left_and_all_else_is_as_it_was(
    tmp_path: Path, hash_key: bytes | None
) -> None:
    out = tmp_path / "data"
    data = two_days(out, hash_key)
    code = code_of_key(WHO, hash_key)
    before, names = contents(data), [entry.name for entry in data.manifest.partitions]
    mine = [row for row in before if row[2]["@user"] == repr(np.uint64(code))]
    assert mine and traces(out, hash_key)
    report = forget(out, WHO, hash_key=hash_key)
    assert report.found and report.rows == len(mine) and report.partitions == 2 and report.events > 0
    assert traces(out, hash_key) == []
    after = PreparedData.open(out)
    assert contents(after) == [row for row in before if row not in mine]
    assert not {entry.name for entry in after.manifest.partitions} & set(names)
    assert sorted(path.name for path in (out / "partitions").iterdir()) == sorted(
        entry.name for entry in after.manifest.partitions
    )
    id_map, old = after.transform.id_maps["user"], data.manifest.lineage
    assert id_map.ids(np.array([code], dtype=np.uint64))[0] == 2  # unknown
    assert after.lineage.contains(Lineage.from_json(old).pin)
    again = forget(out, WHO, hash_key=hash_key)
    assert not again.found and "there is nothing of this user" in str(again)
    assert PreparedData.open(out).manifest == after.manifest


@pytest.mark.parametrize("hash_key", [None, SECRET])
def test_events_of_others_do_not_name_the_user_any_more(tmp_path: Path, hash_key: bytes | None) -> None:
    """Who sent one here, and whom one follows: the keys of users in the events of others."""
    via = EventFeature(name="via", key_space="user")
    follows = History(name="follows", layout="inline", item="follows", key_space="user")
    clicks = replace(SCHEMA.histories[0], features=(via,), max_length=50)
    schema = replace(SCHEMA, histories=(clicks, follows))
    out = tmp_path / "data"
    for seed in (0, 1):
        table = rows(seed, start=1_000_000 + 5_000 * seed)
        users = table["user_id"].to_pylist()
        table = table.append_column("via", pa.array([WHO if user == "u1" else "u2" for user in users]))
        table = table.append_column("follows", pa.array([[WHO, "u2"] if user == "u4" else [] for user in users]))
        log = Memory(table, schema=schema)
        prepare(log, out, append=seed > 0, split=None if seed else AllTrain(), hash_key=hash_key, budget=BUDGET)
        if seed == 0:
            code = np.uint64(code_of_key(WHO, hash_key))
            tombstone = PreparedData.open(out).transform.id_maps["user"].ids(np.array([code]))[0]
            assert tombstone > 2 and traces(out, hash_key)
            report = forget(out, WHO, hash_key=hash_key)
            assert report.found and (report.rows, report.events, report.partitions) == (0, 0, 1)
            assert traces(out, hash_key) == []
            assert not forget(out, WHO, hash_key=hash_key).found
    data = PreparedData.open(out)
    store = data.sources("clicks")[1].columns
    carried = store["time"] < 1_005_000 * 1_000_000
    assert (store["via"][carried] == tombstone).any() and data.views["user"][tombstone] == 2
    assert (store["via@code"][~carried] == code).any()  # named again since


def test_a_partition_without_the_user_is_not_touched(tmp_path: Path) -> None:
    out = tmp_path / "data"
    table = day(0, 1_000_000)
    others = [user != WHO for user in table["user_id"].to_pylist()]
    prepare(
        Memory(table.filter(pa.array(others)), schema=WITH_LISTS),
        out,
        split=ByTime(valid=0.1, test=0.2),
        budget=BUDGET,
    )
    prepare(Memory(day(1, 1_005_000), schema=WITH_LISTS), out, append=True, budget=BUDGET)
    first, second = PreparedData.open(out).manifest.partitions
    report = forget(out, WHO)
    after = PreparedData.open(out).manifest.partitions
    assert (
        report.partitions == 1
        and after[0] == replace(first, lineage_version=0)
        and after[1].name != second.name
    )
    # An append goes on from there, and the user may come back as a new one.
    prepare(Memory(day(2, 1_010_000), schema=WITH_LISTS), out, append=True, budget=BUDGET)
    data = PreparedData.open(out)
    assert len(data.partitions) == 3 and traces(out)
    size = PreparedData.open(out).transform.id_maps["user"].num_rows
    assert data.transform.id_maps["user"].ids(np.array([code_of_key(WHO)], dtype=np.uint64))[0] == size - 1


def test_late_labels_follow_their_rows(tmp_path: Path) -> None:
    out = tmp_path / "data"
    two_days(out)
    table = day(0, 1_000_000)
    late = pa.table(
        {
            "imp": table["imp"],
            "task": ["bought"] * len(table),
            "label": [1] * len(table),
            "time": [2_000_000] * len(table),
        }
    )
    report = append_labels(Memory(late, name="late"), out)
    assert report.labels == {"bought": len(table)}
    before = contents(PreparedData.open(out))
    code = repr(np.uint64(code_of_key(WHO)))
    assert forget(out, WHO).partitions == 3
    data = PreparedData.open(out)
    assert contents(data) == [row for row in before if row[2]["@user"] != code]
    gone = sum(user == WHO for user in table["user_id"].to_pylist())
    assert sum(c.rows for c in data.manifest.partitions[2].corrections) == len(table) - gone
    impressions = np.load(next((out / "partitions").rglob("late-0/impression.npy")))
    assert len(impressions) == len(table) - gone


def test_runs_forget_the_key_too(tmp_path: Path) -> None:
    out, run = tmp_path / "data", tmp_path / "run"
    data = two_days(out)
    data.transform.save(run / "transform")
    assert traces(run)
    assert forget(out, WHO, runs=[run]).runs == 1
    assert traces(run) == []
    loaded = type(data.transform).load(run / "transform", data.schema)
    assert loaded.id_maps["user"].num_rows == data.transform.id_maps["user"].num_rows
    assert forget(out, WHO, runs=[run]).runs == 0
    with pytest.raises(DataError, match="Expected a run with id maps"):
        forget(out, WHO, runs=[tmp_path / "none"])


def test_a_run_killed_between_two_renames_is_taken_up(tmp_path: Path) -> None:
    out, run = tmp_path / "data", tmp_path / "run"
    two_days(out).transform.save(run / "transform")
    ids = run / "transform" / "ids"
    (ids / "user").rename(ids / ".user.old")
    assert forget(out, WHO, runs=[run]).runs == 1 and traces(run) == []


def test_what_cannot_be_forgotten_says_why(tmp_path: Path) -> None:
    out = tmp_path / "data"
    two_days(out, SECRET)
    with pytest.raises(DataError, match="got none: its keys are hashed"):
        forget(out, WHO)
    assert not forget(out, "nobody", hash_key=SECRET).found
    with pytest.raises(DataError, match="is not prepared"):
        forget(tmp_path / "none", WHO)


def test_an_interrupted_forget_has_forgotten_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "data"
    data = two_days(out)
    before = contents(data)

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "no space")

    with monkeypatch.context() as patch:
        patch.setattr(forgetting, "commit", fail)
        with pytest.raises(DataError, match="Nothing was changed"):
            forget(out, WHO)
    assert PreparedData.open(out).manifest == data.manifest and contents(PreparedData.open(out)) == before
    assert len(list((out / "partitions").iterdir())) == 2
    assert forget(out, WHO).found and traces(out) == []
