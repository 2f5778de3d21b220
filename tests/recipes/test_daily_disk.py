"""The daily loop with tables on disk: they are those in memory, bit for bit, grown by the keys of every day."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import test_daily
import torch
from test_daily import TRAINING, ranker, until

from fullrank.data.partitions import PreparedData
from fullrank.features.tables import DiskTables
from fullrank.recipes.daily import continue_run
from fullrank.recipes.train import load_ranker, train_ranker
from fullrank.training.run import Run

world = test_daily.world
one_thread_and_no_waiting_for_the_disk = test_daily.one_thread_and_no_waiting_for_the_disk


def test_they_grow_day_by_day(world, tmp_path: Path) -> None:
    data, memory = PreparedData.open(world[0]), ranker(semantics="rowwise_adagrad", weight_decay=0.0)
    on_disk = DiskTables(key_spaces=("user",), chunk_rows=16, held_rows=20)
    disk = replace(memory, embedding=replace(memory.embedding, disk=on_disk))
    runs = {}
    for name, config in {"memory": memory, "disk": disk}.items():
        run = train_ranker(config, until(data, 1), tmp_path / name, TRAINING).run
        half = continue_run(run, until(data, 3), tmp_path / f"{name}-half").run
        runs[name] = continue_run(half, until(data, 5), tmp_path / f"{name}-rest").run
    a, b = (load_ranker(Run.open(run.path)) for run in runs.values())
    rows = torch.arange(runs["disk"].record.num_rows["user"])
    assert len(rows) > world[1].record.num_rows["user"]
    assert torch.equal(a.tables.gather_table("user.main", rows), b.tables.gather_table("user.main", rows))
    stored = b.tables.logical_tables()
    expected = a.tables.logical_tables()
    assert set(expected) - set(stored) == {"user.main"}
    assert all(torch.equal(expected[name], table) for name, table in stored.items())
    for one, other in zip(a.dense_parameters(), b.dense_parameters(), strict=True):
        assert torch.equal(one, other)
