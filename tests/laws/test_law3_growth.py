"""Law 3. Growth: a second day that brings new keys changes nothing of the first: no file, no row of a table, no score.
A run of the first day reads the second as its own transform would: new keys are unknown, or in their bucket."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import laws_logs as logs
import laws_reading as reading
import numpy as np
import pyarrow as pa
import pytest
import torch

from fullrank.data.batch import Batch
from fullrank.data.corrections import append_labels
from fullrank.data.inputs import Inputs
from fullrank.data.keys import bucket, code_of_key
from fullrank.data.partitions import PreparedData
from fullrank.data.prepare import prepare
from fullrank.data.splits import ByTime
from fullrank.data.transform import Transform
from fullrank.rankers import DCNv2
from fullrank.rankers.base import Ranker
from fullrank.rankers.field_front import EmbeddingConfig
from fullrank.schema import KeySpace, Schema

UNKNOWN_ROWS, BUCKETS = 3, 20
SPLITS = ("train", "valid", "test")
CASES = [
    (name, layout, policy)
    for name in logs.names()
    for layout in logs.log(name)
    if layout == "log" or name == "taac"
    for policy in ("growing", "hashed")
]


@dataclass(frozen=True)
class Grown:
    """A folder before and after the second day, and a run of the first."""

    days: logs.TwoDays
    before: dict[str, str]
    after: dict[str, str]
    data: PreparedData
    pinned: PreparedData
    transform: Transform
    ranker: Ranker
    first_day: dict[str, list[Batch]]


def with_spaces(schema: Schema, policy: str) -> Schema:
    if policy == "hashed":
        spaces = [KeySpace(name=name, policy="hashed", buckets=BUCKETS) for name in ("user", "item")]
    else:
        spaces = [KeySpace(name=name, unknown_rows=UNKNOWN_ROWS) for name in ("user", "item")]
    return replace(schema, key_spaces=tuple(spaces))


def hashes(folder: Path) -> dict[str, str]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module", params=CASES, ids="-".join)
def grown(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Grown]:
    name, layout, policy = request.param
    days = logs.two_days(name, layout)
    folder = tmp_path_factory.mktemp("growth")
    data = reading.prepared(days_with(days.first, policy), folder / "data", ByTime(valid=0.1, test=0.2), block_rows=60)
    data.transform.save(folder / "run")
    transform = Transform.load(folder / "run", data.schema)
    num_rows = {space: id_map.num_rows for space, id_map in transform.id_maps.items()}
    config = DCNv2.Config(embedding=EmbeddingConfig(width=4), num_cross_layers=1, hidden=(8,))
    ranker = config.build(Inputs.of(data.schema), num_rows, seed=1).eval()
    first_day = {split: reading.batches(data, split) for split in SPLITS}
    before = hashes(folder / "data")
    if days.late is not None:
        append_labels(days.late, folder / "data")
    prepare(days_with(days.second, policy), folder / "data", append=True)
    data = PreparedData.open(folder / "data")
    yield Grown(
        days, before, hashes(folder / "data"), data, data.pinned(transform), transform, ranker, first_day
    )


def days_with(source: logs.Memory, policy: str) -> logs.Memory:
    return replace(source, schema=with_spaces(source.schema, policy))


def second_day(data: PreparedData) -> list[Batch]:
    """The rows of the last partition as one batch."""
    return reading.batches(data, "train", 10_000, partitions=(len(data.partitions) - 1,))


def test_no_file_of_the_first_day_changes(grown: Grown) -> None:
    changed = [name for name, content in grown.before.items() if grown.after.get(name) != content]
    assert changed == ["manifest.json"]


def test_the_second_day_brings_new_keys(grown: Grown) -> None:
    for space in ("user", "item"):
        new = grown.data.transform.id_maps[space].num_rows - grown.transform.id_maps[space].num_rows
        if grown.transform.id_maps[space].space.policy == "hashed":
            assert new == 0
        else:
            assert new >= 0.2 * grown.transform.id_maps[space].num_rows


def test_rows_of_every_table_keep_their_bits(grown: Grown) -> None:
    tables = grown.ranker.tables
    before = {name: table.clone() for name, table in tables.logical_tables().items()}
    other = grown.ranker.config.build(
        grown.ranker.inputs, {s: m.num_rows for s, m in grown.transform.id_maps.items()}, seed=1
    ).eval()
    other.tables.grow({s: m.num_rows for s, m in grown.data.transform.id_maps.items() if s in rows_by_space(other)})
    after = other.tables.logical_tables()
    assert after.keys() == before.keys()
    for name, table in before.items():
        assert len(after[name]) >= len(table) and torch.equal(after[name][: len(table)], table)
    with torch.no_grad():  # a grown model reads the first day, in the data's newest ids, as it did
        for split, read in grown.first_day.items():
            for one, two in zip(read, reading.batches(grown.data, split, partitions=(0,)), strict=True):
                assert_same_scores(grown.ranker, one, other, two)


def rows_by_space(ranker: Ranker) -> set[str]:
    return {spec.key_space for arena in ranker.tables.plan.arenas for spec in arena.tables}


def assert_same_scores(ranker: Ranker, batch: Batch, other: Ranker, other_batch: Batch) -> None:
    left, right = ranker(batch).logits, other(other_batch).logits
    assert left.keys() == right.keys() and all(torch.equal(left[task], right[task]) for task in left)


def test_the_run_scores_the_first_day_as_before(grown: Grown) -> None:
    with torch.no_grad():
        for split, read in grown.first_day.items():
            again = reading.batches(grown.pinned, split, partitions=(0,))
            reading.assert_same([replace(b, labels=None) for b in read], [replace(b, labels=None) for b in again])
            for one, two in zip(read, again, strict=True):
                assert_same_scores(grown.ranker, one, grown.ranker, two)


def test_the_run_reads_the_second_day_as_its_own_transform_does(grown: Grown) -> None:
    (read,) = second_day(grown.pinned)
    source = days_with(grown.days.second, "growing")
    (records,) = source.table.take(pa.array(logs.prepared_order(source))).combine_chunks().to_batches()
    by_user = [h.name for h in grown.data.schema.histories if h.layout == "by_user"]
    inputs = Inputs.of(grown.data.schema)
    events = {name: grown.data.sources(name)[-1] for name in by_user}
    applied = grown.transform.apply(records, inputs, events=events, views=grown.pinned.views)
    reading.assert_same([replace(read, labels=None)], [applied])
    with torch.no_grad():
        assert all(torch.isfinite(logits).all() for logits in grown.ranker(read).logits.values())


def test_new_keys_are_unknown_or_in_their_bucket(grown: Grown) -> None:
    (read,) = second_day(grown.pinned)
    source = grown.days.second
    order = logs.prepared_order(source)
    known = {
        role: set(grown.days.first.table[column].to_pylist())
        for role, column in (("user", source.schema.roles.user), ("item", source.schema.roles.item))
    }
    ids = {
        "user": read.requests.features.ids_nF[read.candidates.request_of_row_B, 0],
        "item": read.candidates.features.ids_nF[:, 0],
    }
    for role, column in (("user", source.schema.roles.user), ("item", source.schema.roles.item)):
        keys = [source.table[column][int(i)].as_py() for i in order]
        new = 0
        for key, id in zip(keys, ids[role].tolist(), strict=True):
            code = code_of_key(key)
            if grown.transform.id_maps[role].space.policy == "hashed":
                assert id == 2 + int(bucket(np.array([code], np.uint64), BUCKETS)[0])
            elif key not in known[role]:
                assert id == 2 + code % UNKNOWN_ROWS
                new += 1
            assert id < grown.transform.id_maps[role].num_rows
        assert new > 0 or grown.transform.id_maps[role].space.policy == "hashed"


def test_two_days_read_as_if_they_had_come_at_once(grown: Grown, tmp_path: Path) -> None:
    """By another route: both days prepared as one partition with what was fitted on the first."""
    policy = "hashed" if grown.transform.id_maps["item"].space.policy == "hashed" else "growing"
    whole = days_with(grown.days.whole, policy)
    at_once = reading.prepared_with(grown.transform, whole, tmp_path / "whole")
    second = np.arange(at_once.num_rows("train"))[grown.days.first.table.num_rows :]
    rows = reading.rows_of(at_once, second, Inputs.of(whole.schema))
    reading.assert_same([replace(b, labels=None) for b in second_day(grown.pinned)], [rows])
