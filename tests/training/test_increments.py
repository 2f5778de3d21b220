"""A checkpoint of touched rows alone is, when it is read, the whole one bit for bit; its base is kept, and checked."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from test_checkpoint import cut, flip
from tiny_world import OBJECTIVE, OPTIMIZERS, TinyLoader, TinyRanker, all_tensors, assert_same_bits, create_run

from fullrank.features.table_updates import TableUpdater
from fullrank.features.tables import EmbeddingTables, TablePlan, TableSpec
from fullrank.training.callbacks import Callback
from fullrank.training.checkpoint import Changes, CheckpointError, Position, latest_checkpoint, save_checkpoint
from fullrank.training.config import TrainConfig
from fullrank.training.loop import train

CONFIG = TrainConfig(
    epochs=2, batch_size=8, lr=0.02, accumulate=2, checkpoint_every_steps=1, keep_checkpoints=2,
    validate_every_epochs=None,
)  # fmt: skip
ROWS = 70  # 5 steps an epoch


class _Copies(Callback):
    """All tensors of every checkpoint, as they are read while training goes on."""

    def __init__(self, run) -> None:
        self.run, self.seen, self.partial = run, {}, []

    def look(self) -> None:
        checkpoint = self.run.latest_checkpoint()
        if checkpoint is not None:
            self.seen[checkpoint.position.step] = all_tensors(self.run)
            self.partial += [checkpoint.position.step] * (checkpoint.base is not None)

    def on_step(self, ranker, report) -> None:
        self.look()


def trained(path: Path, every: int):
    config = replace(CONFIG, full_checkpoint_every=every)
    run = create_run(path, config)
    copies = _Copies(run)
    train(TinyRanker(), TinyLoader(ROWS, batch_size=8), OBJECTIVE, config, run, callbacks=[copies])
    copies.look()
    return run, copies


def test_read_back_it_is_the_whole_checkpoint(tmp_path):
    _, whole = trained(tmp_path / "whole", 1)
    run, parts = trained(tmp_path / "parts", 3)
    assert whole.partial == [] and sorted(set(parts.partial)) == [2, 3, 6, 7, 9]  # not the first, every third, an end
    assert whole.seen.keys() == parts.seen.keys() == set(range(1, 11))
    for step, tensors in whole.seen.items():
        assert_same_bits(tensors, parts.seen[step])
    assert run.latest_checkpoint().base is None


def test_a_resumed_run_is_the_undisturbed_one(tmp_path):
    class Stop(Callback):
        def on_step(self, ranker, report) -> None:
            if report.step == 4:
                raise KeyboardInterrupt

    config = replace(CONFIG, full_checkpoint_every=4)
    run, _ = trained(tmp_path / "whole", 4)
    again = create_run(tmp_path / "again", config)
    with pytest.raises(KeyboardInterrupt):
        train(TinyRanker(), TinyLoader(ROWS, batch_size=8), OBJECTIVE, config, again, callbacks=[Stop()])
    assert again.latest_checkpoint().position.step == 3 and again.latest_checkpoint().base.step == 1
    train(TinyRanker(seed=5), TinyLoader(ROWS, batch_size=8), OBJECTIVE, config, again)
    assert_same_bits(all_tensors(run), all_tensors(again))


def tables_of(optimizers, rows: int = 50):
    specs = [TableSpec(key_space=name, num_rows=rows, width=3, optimizer=rule) for name, rule in optimizers.items()]
    tables = EmbeddingTables(TablePlan(tuple(specs)), seed=0)
    return tables, TableUpdater(tables)


def test_rows_that_are_not_named_stand_still(tmp_path):
    """By another route: compare every row with what it was."""
    plain = replace(OPTIMIZERS["lazy"], weight_decay=0.0)
    tables, updater = tables_of({"plain": plain, **OPTIMIZERS})
    learn = torch.Generator().manual_seed(3)

    def step() -> None:
        for name in tables.plan.places:
            tables.gather_table(name, torch.randint(1, 50, (6,), generator=learn)).square().sum().backward()
        updater.step()

    step()
    assert updater.touched() == {}
    updater.watch()
    state = lambda: {n: t.clone() for n, t in {**tables.logical_tables(), **updater.state_tensors()}.items()}  # noqa: E731
    before = state()
    for _ in range(3):
        step()
    touched = updater.touched()
    assert set(touched) == {"plain.main", "rowwise_adagrad.main"}  # `lazy` decays, `dense` coasts
    after = state()
    for table, rows in touched.items():
        assert 6 <= len(rows) < 20 and torch.equal(rows, rows.unique())
        for name in (name for name in after if name.split("/")[0] == table):
            changed = (after[name] != before[name]).reshape(50, -1).any(dim=1).nonzero().squeeze(1)
            assert torch.equal(changed, rows), name
    updater.grow({"plain": 60})
    assert updater.touched() == {}


def save(folder: Path, step: int, base=None, *, keep: int = 1, value: float | None = None):
    table = torch.arange(12.0).reshape(6, 2)
    table[step % 6] = value = float(step) if value is None else value
    parts = {"tables": {"t": table}, "optimizer": {"tables/t/acc": table[:, 0], "step": torch.tensor(step)}}
    changes = base and Changes(
        base=base,
        rows={"t": torch.tensor([step % 6])},
        of={"tables": {"t": "t"}, "optimizer": {"tables/t/acc": "t"}},
    )
    return save_checkpoint(folder, Position(step=step), parts, keep=keep, changes=changes), parts


def whole_table(step: int, base_step: int) -> torch.Tensor:
    table = torch.arange(12.0).reshape(6, 2)
    table[base_step % 6] = float(base_step)
    table[step % 6] = float(step)
    return table


def test_a_base_stays_as_long_as_it_is_needed(tmp_path):
    first, _ = save(tmp_path, 10)
    steps = lambda: sorted(int(p.name) for p in tmp_path.iterdir() if p.name.isdecimal())  # noqa: E731
    for step in (21, 32):
        save(tmp_path, step, first)
        assert steps() == [10, step]
        read = latest_checkpoint(tmp_path)
        assert torch.equal(read.tensors("tables")["t"], whole_table(step, 10))
        assert torch.equal(read.tensors("optimizer")["tables/t/acc"], whole_table(step, 10)[:, 0])
        assert int(read.tensors("optimizer")["step"]) == step
        assert latest_checkpoint(tmp_path).sha256 == read.sha256  # reading changes no file
    save(tmp_path, 40)
    assert steps() == [40]


def test_it_is_smaller_by_the_rows_that_are_not_there(tmp_path):
    table = torch.zeros(10_000, 8)
    parts = {"tables": {"t": table}}
    first = save_checkpoint(tmp_path, Position(step=1), parts, keep=2)
    changes = Changes(base=first, rows={"t": torch.arange(100)}, of={"tables": {"t": "t"}})
    save_checkpoint(tmp_path, Position(step=2), parts, keep=2, changes=changes)
    size = {step: sum(f.stat().st_size for f in (tmp_path / str(step)).iterdir()) for step in (1, 2)}
    assert size[1] > 320_000 and size[2] < 100 * (8 * 4 + 4) + 1_500


@pytest.mark.parametrize(
    ("file", "damage", "message", "taken"),
    [
        ("30/rows.safetensors", flip, r"30.rows.safetensors is damaged", 20),
        ("30/tables.safetensors", cut, r"30.tables.safetensors of \d+ bytes, got \d+: it was cut", 20),
        ("20/tables.safetensors", flip, r"20.tables.safetensors is damaged", 10),
        ("20/state.json", lambda path: path.write_text("{"), r"20.state.json is damaged", 10),
        ("20/state.json", Path.unlink, r"Expected .*20.state.json, found nothing", 10),
    ],
)
def test_damage_of_either_is_noticed_and_the_newest_whole_one_is_taken(tmp_path, file, damage, message, taken):
    save(tmp_path, 10, keep=3)
    base, _ = save(tmp_path, 20, keep=3)
    save(tmp_path, 30, base, keep=3)
    damage(tmp_path / file)
    with pytest.warns(RuntimeWarning, match=message + rf".* Taking .*{taken} instead\."):
        assert latest_checkpoint(tmp_path).position.step == taken


def test_a_base_that_was_written_anew_is_another(tmp_path):
    base, _ = save(tmp_path, 20, keep=3)
    save(tmp_path, 31, base, keep=3)
    state = json.loads((tmp_path / "20" / "state.json").read_text())
    state["position"]["seconds"] = 7.0
    (tmp_path / "20" / "state.json").write_text(json.dumps(state))
    with pytest.warns(RuntimeWarning, match=r"31 builds on .*20, and that is another checkpoint by now.* Taking .*20"):
        assert latest_checkpoint(tmp_path).position.step == 20
    (tmp_path / "20" / "tables.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"No checkpoint in .* is whole: .*20.tables.safetensors"):
        latest_checkpoint(tmp_path)


def test_every_checkpoint_is_whole_by_default():
    assert TrainConfig().full_checkpoint_every == 1
    with pytest.raises(ValueError, match="Expected full_checkpoint_every >= 1, got 0"):
        TrainConfig(full_checkpoint_every=0)
