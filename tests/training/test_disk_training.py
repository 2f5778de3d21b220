"""Training with tables on disk. That a kill at any moment loses nothing, while their files are written too, is tested
where all runs are killed: the tiny world has a table on disk."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
import tiny_world
import torch
from tiny_world import OBJECTIVE, TinyLoader, TinyRanker, all_tensors, assert_same_bits, create_run

from fullrank.training.checkpoint import CheckpointError
from fullrank.training.config import TrainConfig
from fullrank.training.loop import train
from fullrank.training.run import Run

CONFIG = TrainConfig(epochs=1, batch_size=10, checkpoint_every_steps=4, keep_checkpoints=9)


def trained(path: Path, config: TrainConfig = CONFIG) -> Run:
    run = create_run(path, config)
    train(TinyRanker(), TinyLoader(80, batch_size=10), OBJECTIVE, config, run)
    return run


def steps(run: Run) -> list[int]:
    return sorted(int(path.name) for path in (run.path / "checkpoints").iterdir() if path.name.isdecimal())


def test_a_checkpoint_is_made_when_enough_rows_are_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    undisturbed = trained(tmp_path / "a")
    assert steps(undisturbed) == [4, 8]
    monkeypatch.setattr(tiny_world, "DISK", replace(tiny_world.DISK, held_rows=15))
    often = trained(tmp_path / "b")
    assert set(steps(often)) > {4, 8}
    a, b = all_tensors(undisturbed), all_tensors(often)
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)  # a checkpoint settles a lazy table's decay


def test_a_damaged_file_is_noticed_and_the_checkpoint_before_is_taken(tmp_path: Path) -> None:
    run = trained(tmp_path / "a")
    file = run.path / "checkpoints" / "8" / "rows" / "on_disk.main" / "000001.f32"
    assert not os.path.samefile(file, run.path / "checkpoints" / "4" / "rows" / "on_disk.main" / "000001.f32")
    data = bytearray(file.read_bytes())
    data[5] ^= 1
    file.write_bytes(data)
    with pytest.warns(RuntimeWarning, match=r"000001.f32 is damaged: expected SHA-256 .* Taking .*4 instead"):
        checkpoint = run.latest_checkpoint()
    assert checkpoint is not None and checkpoint.position.step == 4


def test_a_full_disk_while_files_are_written_leaves_the_checkpoint_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fullrank.features import disk_rows

    whole = trained(tmp_path / "a")
    write, calls = disk_rows.write_rows, 0

    def full(path: Path, rows: object) -> object:
        nonlocal calls
        calls += 1
        if calls == 8:  # 3 files begin, 3 are of the first checkpoint
            raise OSError(28, "No space left on device")
        return write(path, rows)  # type: ignore[arg-type]  # what it was given

    with monkeypatch.context() as patch:
        patch.setattr(disk_rows, "write_rows", full)
        with pytest.raises(CheckpointError, match=r"Cannot write checkpoint .*8: .*No space left.*make room"):
            trained(tmp_path / "b")
    assert steps(Run.open(tmp_path / "b")) == [4]
    assert_same_bits(all_tensors(whole), all_tensors(trained(tmp_path / "b")))


def test_a_loaded_ranker_reads_the_runs_files_and_holds_nothing(tmp_path: Path) -> None:
    run = trained(tmp_path / "a")
    ranker = TinyRanker(seed=5)
    run.load_weights(ranker)
    (disk,) = ranker.tables.on_disk()
    assert len(disk.held_CD) == 0
    rows = torch.cat([tensor for name, tensor in all_tensors(run).items() if name.endswith(".f32")]).view(20, 5)
    assert torch.equal(ranker.tables.gather_table("on_disk.main", torch.arange(20)), rows[:, :4])
