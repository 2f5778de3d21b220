"""What `fullrank train` lets a person say, and what it says back."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from fullrank.cli import main
from fullrank.config_json import decode
from fullrank.data.prepare import prepare
from fullrank.data.simulate import SimulatedLog, SimulatorConfig
from fullrank.data.splits import ByHash
from fullrank.training.objectives import MultiTask
from fullrank.training.run import Run

SMALL = "--training.batch-size 128 --ranker.embedding.width 4 --ranker.hidden 8"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("world")
    log = SimulatedLog(SimulatorConfig(rows=1_500, users=80, ads=80, campaigns=20, days=1, seed=4))
    prepare(log.day(0), folder / "data", split=ByHash(key="user", valid=0.2, test=0.1))
    yield folder
    torch.set_num_threads(threads)


def train(world: Path, out: str, options: str) -> int:
    return main(["train", "dcnv2", "--data", str(world / "data"), "--out", str(world / out), *options.split()])


def test_early_stopping_from_the_command_line(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = (
        f"{SMALL} --training.epochs 9 --training.early-stop click.log_loss --training.lr 0.1 --training.patience 1 "
        "--training.schedule.decay plateau --training.schedule.metric click.log_loss --training.schedule.floor 0.001 "
        f"--training.ema-decay 0.5 --training.bf16 --json {world / 'early.json'}"
    )
    assert train(world, "early", options) == 0
    said, told = capsys.readouterr().out, json.loads((world / "early.json").read_text())
    best = told["best"]
    assert told["ended"] == "early_stop" and best["step"] < told["step"]  # at this rate it soon learns by heart
    kept = f"kept step {best['step']} of epoch {best['epoch']}, where click.log_loss was {best['value']:.4f}"
    assert f"stopped early; {kept}" in said
    assert told["valid"]["click"]["log_loss"] == best["value"]
    assert f"{best['value']:.4f}" in said.partition("\nvalidation")[2]
    record = Run.open(world / "early").record
    assert record.train.bf16 and record.train.ema_decay == 0.5 and record.train.schedule.decay == "plateau"
    assert train(world, "early", options) == 0  # it is finished: the same answer
    assert kept in capsys.readouterr().out
    scores = world / "valid.json"
    words = ["evaluate", str(world / "early"), "--data", str(world / "data"), "--split", "valid", "--json", str(scores)]
    assert main(words) == 0  # what is loaded later are the kept weights
    assert json.loads(scores.read_text())["tasks"]["click"]["log_loss"] == pytest.approx(best["value"])


def test_tables_on_disk_from_the_command_line(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """They predict what those in memory predict."""
    on_disk = "--ranker.embedding.disk.key-spaces user item --ranker.embedding.disk.chunk-rows 32"
    found = []
    for name, more in {"memory": "", "disk": on_disk}.items():
        assert train(world, name, f"{SMALL} {more}") == 0
        scores = world / f"{name}.json"
        words = ["evaluate", str(world / name), "--data", str(world / "data"), "--split", "test", "--json", str(scores)]
        assert main(words) == 0
        found.append(json.loads(scores.read_text())["tasks"])
    assert found[0] == found[1]
    assert len(list((world / "disk" / "checkpoints").rglob("rows/user.main/*.f32"))) > 1
    capsys.readouterr()
    assert train(world, "other", f"{SMALL} --ranker.embedding.disk.key-spaces usr") != 0
    assert "to live on disk, got 'usr'. Did you mean 'user'?" in capsys.readouterr().err
    assert not (world / "other").exists()


def test_objectives_from_the_command_line(world: Path) -> None:
    options = f"{SMALL} --objective pairwise --task-weights conversion 0.5"
    assert train(world, "pairs", options) == 0
    terms = decode(MultiTask, Run.open(world / "pairs").record.objective).terms
    assert [(term.task, type(term.loss).__name__, term.weight) for term in terms] == [
        ("click", "RequestPairwise", 1.0),
        ("conversion", "RequestPairwise", 0.5),
    ]
    assert train(world, "plain", f"{SMALL} --undo-sample-rate") == 0
    terms = decode(MultiTask, Run.open(world / "plain").record.objective).terms
    assert all(term.loss.undo_sample_rate for term in terms)  # pyright: ignore[reportAttributeAccessIssue] both are cross-entropies


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--training.early-stop click.acu", "early_stop to be one of click.auc, click.user_auc"),
        ("--task-weights clik 2", "Did you mean 'click'?"),
        ("--tensorboard", "pip install 'fullrank[tensorboard]'"),
    ],
)
def test_what_cannot_be_is_said_before_a_folder_is_made(
    world: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, options: str, message: str
) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)  # as if it were not installed
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard", raising=False)
    assert train(world, "refused", options) == 2
    assert message in capsys.readouterr().err and not (world / "refused").exists()
