import errno
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from fullrank.training.checkpoint import CheckpointError, Position, latest_checkpoint, save_checkpoint

TENSORS = {
    "flags": torch.tensor([True, False, True]),
    "half": torch.randn(5, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16),
    "weight.with/odd names": torch.randn(3, 5, generator=torch.Generator().manual_seed(1)),
    "view": torch.arange(12, dtype=torch.int64).reshape(3, 4)[:, 1:3],
    "step": torch.tensor(7, dtype=torch.int64),
    "nan": torch.tensor([float("nan"), float("-inf"), -0.0], dtype=torch.float64),
    "nothing": torch.zeros(0, 4),
    "state": torch.get_rng_state(),
}


def save(folder: Path, step: int, *, keep: int = 3, scale: float = 1.0):
    parts = {"dense": {"w": torch.full((4,), scale * step)}, "optimizer": {"step": torch.tensor(step)}}
    return save_checkpoint(folder, Position(step=step, metrics_bytes=10 * step), parts, keep=keep)


def latest(folder: Path):
    checkpoint = latest_checkpoint(folder)
    assert checkpoint is not None
    return checkpoint


def test_tensors_of_every_kind_come_back_bit_for_bit(tmp_path):
    save_checkpoint(tmp_path, Position(step=1), {"dense": TENSORS, "tables": {}}, keep=1)
    checkpoint = latest(tmp_path)
    read = checkpoint.tensors("dense")
    assert set(read) == set(TENSORS) and checkpoint.tensors("tables") == {}
    for name, tensor in TENSORS.items():
        assert read[name].dtype == tensor.dtype and read[name].shape == tensor.shape
        as_bytes = [t.contiguous().reshape(-1).view(torch.uint8).tolist() for t in (read[name], tensor)]
        assert as_bytes[0] == as_bytes[1]
    assert set(load_file(checkpoint.path / "dense.safetensors")) == set(TENSORS)


def test_a_position_comes_back_exactly(tmp_path):
    position = Position(
        step=12, epoch=1, row=64, rows=1064, epoch_rows=1000, loss=0.1 + 0.2, window={"click": 1e-300},
        window_steps=2, window_norm=1 / 3, metrics_bytes=99, validated_step=10,
        valid={"click": {"rows": 5, "auc": 2 / 3, "pcoc": None}}, seconds=1.1,
    )  # fmt: skip
    save_checkpoint(tmp_path, position, {}, keep=1)
    assert latest(tmp_path).position == position


def test_the_newest_few_are_kept(tmp_path):
    assert latest_checkpoint(tmp_path / "none") is None
    for step in (5, 10, 15, 20):
        save(tmp_path, step, keep=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["15", "20", "latest"]
    assert latest(tmp_path).position == Position(step=20, metrics_bytes=200)


def cut(path: Path):
    path.write_bytes(path.read_bytes()[:-1])


def flip(path: Path):
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("damage", "file", "message"),
    [
        (cut, "dense.safetensors", r"20.dense.safetensors of \d+ bytes, got \d+: it was cut"),
        (flip, "optimizer.safetensors", r"20.optimizer.safetensors is damaged: expected SHA-256"),
        (Path.unlink, "dense.safetensors", r"Expected .*20.dense.safetensors, found nothing there"),
        (cut, "state.json", None),
        (lambda path: path.write_text("{"), "state.json", r"20.state.json is damaged: .*JSON"),
        (lambda path: path.write_bytes(b"\xff\xfe"), "state.json", r"20.state.json is damaged"),
        (lambda path: path.write_text('{"format": 1}'), "state.json", r"20.state.json is damaged: .* have 'position'"),
        (Path.unlink, "state.json", r"Expected .*20.state.json, found nothing there"),
    ],
)
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_taken(tmp_path, damage, file, message):
    save(tmp_path, 10)
    save(tmp_path, 20)
    damage(tmp_path / "20" / file)
    if message is None:  # the last byte of state.json is a line end: nothing is lost with it
        assert latest(tmp_path).position.step == 20
        return
    with pytest.warns(RuntimeWarning, match=message + r".* Taking .*10 instead\."):
        assert latest(tmp_path).position.step == 10
    cut(tmp_path / "10" / "dense.safetensors")
    with pytest.raises(CheckpointError, match=r"No checkpoint in .* is whole: .*20.* .*10.*Delete the folder"):
        latest_checkpoint(tmp_path)


def test_a_damaged_checkpoint_is_replaced_when_its_step_comes_again(tmp_path):
    save(tmp_path, 10)
    save(tmp_path, 20)
    flip(tmp_path / "20" / "dense.safetensors")
    save(tmp_path, 15)  # the run went on from 10 and was stopped early: what is newer is no longer its own
    assert latest(tmp_path).position.step == 15
    assert not (tmp_path / "20").exists()


def test_another_format_is_refused(tmp_path):
    state = save(tmp_path, 10).path / "state.json"
    state.write_text(state.read_text().replace('"format": 1', '"format": 2'))
    with pytest.raises(CheckpointError, match=r"10.state.json of format 1, got 2: use the release that wrote it"):
        latest_checkpoint(tmp_path)


def test_a_full_disk_leaves_what_was_saved_and_nothing_else(tmp_path, monkeypatch):
    save(tmp_path, 10)

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(CheckpointError, match=r"Cannot write checkpoint .*20: .*No space left .* make room"):
            save(tmp_path, 20)
    assert latest(tmp_path).position.step == 10 and not list(tmp_path.glob(".*"))


class Killed(BaseException):
    pass


@pytest.mark.parametrize("keep", [1, 2])
def test_wherever_saving_ends_one_whole_checkpoint_is_in_force(tmp_path, monkeypatch, keep):
    """Every call that reaches the disk in turn is the last one before the end."""
    calls = [(os, "fsync"), (Path, "rename"), (Path, "replace"), (Path, "mkdir"), (Path, "open")]
    seen = set()
    for moment in range(100):
        folder = tmp_path / str(moment)
        save(folder, 10, keep=keep)
        left = moment
        with monkeypatch.context() as patch:
            for owner, name in calls:
                real = getattr(owner, name)

                def ending(*args, real=real, **kwargs):
                    nonlocal left
                    left -= 1
                    if left < 0:
                        raise Killed
                    return real(*args, **kwargs)

                patch.setattr(owner, name, ending)
            try:
                save(folder, 20, keep=keep)
                ended = False
            except Killed:
                ended = True
        step = latest(folder).position.step
        assert torch.equal(latest(folder).tensors("dense")["w"], torch.full((4,), float(step)))
        seen.add((ended, step))
        save(folder, 20, keep=keep, scale=3)  # the resumed run comes here again
        assert latest(folder).tensors("dense")["w"][0] == 60
        assert not list(folder.glob(".*"))
        if not ended:
            break
    assert seen == {(True, 10), (True, 20), (False, 20)}
