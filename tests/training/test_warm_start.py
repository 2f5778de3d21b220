"""Rows of tables are taken by key, dense weights by name and shape; what was not taken is said."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
import torch

from fullrank.data.inputs import Inputs
from fullrank.data.partitions import PreparedData
from fullrank.data.prepare import prepare
from fullrank.data.splits import AllTrain
from fullrank.rankers import DCNv2, RankMixer, ranker_name
from fullrank.rankers.field_front import EmbeddingConfig
from fullrank.schema import KeySpace, Roles, Schema, Task
from fullrank.training.checkpoint import Position
from fullrank.training.config import TrainConfig
from fullrank.training.objectives import ObjectiveConfig
from fullrank.training.run import Run, RunError
from fullrank.training.warm_start import WarmStart, warm_start
from fullrank.training.weights import dense_tensors, weight_tensors

sys.path.insert(0, str(Path(__file__).parents[1] / "data"))

from small_log import SCHEMA, Memory, rows

SMALL = DCNv2.Config(embedding=EmbeddingConfig(width=4), num_cross_layers=1, hidden=(8,))


def prepared(folder: Path, seed: int, spaces: tuple[KeySpace, ...] = (), append: bool = False, **log) -> PreparedData:
    source = Memory(rows(seed, **log), schema=replace(SCHEMA, key_spaces=spaces))
    prepare(source, folder, split=None if append else AllTrain(), append=append)
    return PreparedData.open(folder)


def maps(data: PreparedData):
    return data.transform.id_maps


def built(data: PreparedData, config=SMALL, seed: int = 7, exclude: tuple[str, ...] = ()):
    inputs = Inputs.of(data.schema, exclude=exclude)
    return inputs, config.build(inputs, {name: m.num_rows for name, m in maps(data).items()}, seed)


def saved(path: Path, data: PreparedData, config=SMALL, exclude: tuple[str, ...] = ()) -> Run:
    """A run with random weights everywhere, also where a fresh ranker has zeros."""
    inputs, ranker = built(data, config, seed=1, exclude=exclude)
    run = Run.create(
        path,
        type_tag=ranker_name(type(ranker)),
        config=config,
        inputs=inputs,
        num_rows={name: m.num_rows for name, m in maps(data).items()},
        seed=1,
        schema=data.schema,
        transform=data.transform,
        lineage=data.lineage.pin,
        train=TrainConfig(),
        objective=ObjectiveConfig().build(inputs.tasks),
        data=data.state,
    )
    parts, draw = weight_tensors(ranker), torch.Generator().manual_seed(11)
    for tensors in parts.values():
        for tensor in tensors.values():
            tensor.copy_(torch.randn(tensor.shape, generator=draw))
    run.save(Position(step=5), parts, keep=1)
    return run


def taken(run: Run, data: PreparedData, config=SMALL, exclude: tuple[str, ...] = ()):
    inputs, ranker = built(data, config, exclude=exclude)
    checkpoint = run.latest_checkpoint()
    assert checkpoint is not None
    report = warm_start(ranker, inputs, maps(data), run, checkpoint)
    return report, ranker, built(data, config, exclude=exclude)[1], checkpoint


def by_key(id_map, table: torch.Tensor) -> dict[str, torch.Tensor]:
    return {id_map.key_of_id(row): table[row] for row in range(1, len(table))}


def assert_rows_by_key(report: WarmStart, ranker, fresh, checkpoint, theirs, mine) -> None:
    """By another route: a dictionary of every table's rows by the text of the key."""
    stored = checkpoint.tensors("tables")
    begun = fresh.tables.logical_tables()
    for name, table in ranker.tables.logical_tables().items():
        space = name.split(".")[0]
        there, here = by_key(theirs[space], stored[name]), by_key(mine[space], table)
        before = by_key(mine[space], begun[name])
        for key, row in here.items():
            assert torch.equal(row, there.get(key, before[key])), (name, key)
        assert not table[0].any()
        own = [key for key in here if not key.startswith("[")]
        counts = report.tables[name]
        assert counts.matched == sum(key in there for key in own) and counts.new == len(own) - counts.matched
        assert counts.dropped == sum(key not in here for key in there if not key.startswith("["))


@pytest.mark.parametrize("same_lineage", [True, False])
def test_rows_are_taken_by_key_whatever_their_ids(tmp_path: Path, same_lineage: bool) -> None:
    first = prepared(tmp_path / "one", 0)
    run = saved(tmp_path / "run", first)
    if same_lineage:
        data = prepared(tmp_path / "one", 1, append=True, users=14, items=30, start=2_000_000)
        expected = (20, 10, 0)
    else:
        data = prepared(tmp_path / "two", 5, users=14, items=15)
        expected = (15, 0, 5)
        codes = [id_map.codes_of_ids(range_of(id_map)) for id_map in (maps(first)["item"], maps(data)["item"])]
        assert codes[0][:15].tolist() != codes[1].tolist()  # so that going by ids would be wrong
    report, ranker, fresh, checkpoint = taken(run, data)
    assert_rows_by_key(report, ranker, fresh, checkpoint, maps(first), maps(data))
    users, items = report.tables["user.main"], report.tables["item.main"]
    assert (users.matched, users.new) == (8, 5) and (items.matched, items.new, items.dropped) == expected
    assert (report.step, report.inputs) == (5, "")
    dense, stored = dense_tensors(ranker), checkpoint.tensors("dense")
    assert set(report.taken) == set(dense) == set(stored) and not (report.new or report.dropped or report.reshaped)
    assert all(torch.equal(dense[name], stored[name]) for name in dense)


def range_of(id_map):
    return torch.arange(id_map.first_key_id, id_map.num_rows).numpy()


def test_dense_weights_need_the_same_name_and_shape(tmp_path: Path) -> None:
    data = prepared(tmp_path / "data", 0)
    run = saved(tmp_path / "run", data)
    other = replace(SMALL, num_cross_layers=2, hidden=(6,))
    report, ranker, fresh, checkpoint = taken(run, data, other)
    dense, before, stored = dense_tensors(ranker), dense_tensors(fresh), checkpoint.tensors("dense")
    for name, weight in dense.items():
        expected = stored[name] if name in report.taken else before[name]
        assert torch.equal(weight, expected), name
    assert report.reshaped["mlp.steps.0.bias"] == "(8,) → (6,)"
    assert report.new and all(name not in stored for name in report.new)
    assert set(report.taken) | set(report.new) | set(report.reshaped) == set(dense) and report.taken
    text = str(report)
    assert "table user.main: 8 rows taken by key, 0 new, 0 dropped" in text and "reshaped, so new: " in text


def test_another_ranker_takes_the_tables(tmp_path: Path) -> None:
    data = prepared(tmp_path / "data", 0)
    run = saved(tmp_path / "run", data)
    mixer = RankMixer.Config(embedding=EmbeddingConfig(width=4), num_layers=1)
    report, ranker, fresh, checkpoint = taken(run, data, mixer)
    assert_rows_by_key(report, ranker, fresh, checkpoint, maps(data), maps(data))
    assert report.new and report.dropped


def test_other_inputs_are_spoken_of(tmp_path: Path) -> None:
    data = prepared(tmp_path / "data", 0)
    run = saved(tmp_path / "run", data, exclude=("city",))
    report = taken(run, data, exclude=("hour", "bought"))[0]
    differ = "new city; gone hour, task bought"
    assert report.inputs == differ and f"The inputs differ: {differ}." in str(report)
    assert report.tables["city.main"].why.startswith("no such table there")


def test_another_width_is_reshaped(tmp_path: Path) -> None:
    data = prepared(tmp_path / "data", 0)
    run = saved(tmp_path / "run", data)
    wide = replace(SMALL, embedding=EmbeddingConfig(width=6))
    report, ranker, fresh, _ = taken(run, data, wide)
    assert all(t.matched == 0 and t.why == "reshaped: width 4 there, 6 here" for t in report.tables.values())
    tables, begun = ranker.tables.logical_tables(), fresh.tables.logical_tables()
    assert all(torch.equal(tables[name], begun[name]) for name in tables)


@pytest.mark.parametrize(
    ("here", "why"),
    [
        (KeySpace(name="item", policy="hashed", buckets=16), ""),
        (KeySpace(name="item", policy="hashed", buckets=20), "16 buckets and 1 hashes there, 20 and 1 here"),
        (KeySpace(name="item"), "key space 'item' is hashed there, growing here"),
    ],
)
def test_a_hashed_space_is_taken_by_bucket_or_not_at_all(tmp_path: Path, here: KeySpace, why: str) -> None:
    first = prepared(tmp_path / "one", 0, (KeySpace(name="item", policy="hashed", buckets=16),))
    run = saved(tmp_path / "run", first)
    data = prepared(tmp_path / "two", 5, (here,))
    report, ranker, fresh, checkpoint = taken(run, data)
    item, stored = ranker.tables.logical_tables()["item.main"], checkpoint.tensors("tables")["item.main"]
    assert report.tables["item.main"].why == why
    if why:
        assert torch.equal(item, fresh.tables.logical_tables()["item.main"])
    else:
        assert torch.equal(item[1:], stored[1:]) and not item[0].any()
        assert (report.tables["item.main"].matched, report.tables["item.main"].new) == (16, 0)


def test_unknown_rows_are_taken_where_there_are_as_many(tmp_path: Path) -> None:
    first = prepared(tmp_path / "one", 0, (KeySpace(name="user", unknown_rows=3),))
    run = saved(tmp_path / "run", first)
    data = prepared(tmp_path / "two", 0, (KeySpace(name="user", unknown_rows=2),))
    _, ranker, fresh, checkpoint = taken(run, data)
    user, stored = ranker.tables.logical_tables()["user.main"], checkpoint.tensors("tables")["user.main"]
    assert torch.equal(user[1], stored[1]) and torch.equal(user[2:4], fresh.tables.logical_tables()["user.main"][2:4])
    assert torch.equal(user[4:].sort(0).values, stored[5:].sort(0).values)


def test_a_run_of_other_keys_and_names_is_refused(tmp_path: Path) -> None:
    run = saved(tmp_path / "run", prepared(tmp_path / "one", 0))
    table = pa.table({"items": ["x", "y", "z"] * 9, "clicked": [0, 1, 1] * 9})
    other = Schema(roles=Roles(item="items"), tasks=(Task(name="clicked"),), key_spaces=(KeySpace(name="item"),))
    prepare(Memory(table, schema=other), tmp_path / "two", split=AllTrain())
    data = PreparedData.open(tmp_path / "two")
    mixer = RankMixer.Config(embedding=EmbeddingConfig(width=6), num_layers=1)
    inputs, ranker = built(data, mixer)
    checkpoint = run.latest_checkpoint()
    assert checkpoint is not None
    with pytest.raises(RunError, match=r"something for this ranker, .*Did you mean 'item.main'.*Leave the warm start"):
        warm_start(ranker, inputs, maps(data), run, checkpoint)
