"""A process that trains the tiny world and is killed (SIGKILL) at a chosen moment; then another that resumes it."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
import torch._dynamo  # torch's optimizers import it; here the fork server does so once for all children
from tiny_world import OBJECTIVE, SCORES, TASKS, TinyLoader, TinyRanker, create_run
from tqdm import tqdm

from fullrank.evaluation.evaluate import evaluate
from fullrank.training.config import TrainConfig
from fullrank.training.loop import train
from fullrank.training.run import Run
from fullrank.training.schedule import Schedule

CONFIG = TrainConfig(
    epochs=3, batch_size=16, lr=0.02, accumulate=2, clip_norm=0.5, log_every_steps=1, checkpoint_every_steps=3,
    validate_every_steps=5,
)  # fmt: skip
EVERYTHING = replace(  # all that a run remembers between steps; it ends by early stopping
    CONFIG, epochs=12, lr=0.05, early_stop="buy.auc", patience=3, min_improvement=0.001, ema_decay=0.8, bf16=True,
    schedule=Schedule(decay="plateau", warmup_steps=3, metric="click.auc", factor=0.5, floor=0.2),
)  # fmt: skip
ROWS = 100  # 7 micro-batches and 4 steps an epoch; the last step has one micro-batch
MICRO_BATCHES = 7 * CONFIG.epochs
Kind = Literal["micro-batch", "fsync", "validation", "wall"]


@dataclass(frozen=True)
class Moment:
    """The `at`-th call (from 1) of the objective, of fsync or of the validation; or `at` seconds after the start."""

    kind: Kind
    at: float


def train_until(path: Path, moment: Moment | None, parent: Connection, config: TrainConfig) -> None:
    """The child: make the run or open it, train, and die when the moment comes."""
    torch.set_num_threads(1)
    tqdm.set_lock(threading.RLock())  # its own is a semaphore that a killed process leaves behind

    def dying(kind: Kind, function: Callable[..., Any]) -> Callable[..., Any]:
        calls = 0

        def called(*args: Any) -> Any:
            nonlocal calls
            calls += 1
            if moment is not None and moment.kind == kind and calls == moment.at:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args)

        return called

    def validate(ranker: torch.nn.Module) -> dict[str, dict[str, float]]:
        valid = TinyLoader(40, batch_size=16, shuffle=False)
        return {task: asdict(metrics) for task, metrics in evaluate(ranker, valid, TASKS).items()}

    parent.send("started")
    os.fsync = dying("fsync", os.fsync)
    train(
        TinyRanker(seed=0 if saved_step(path) is None else 9),  # a resumed run's own first weights do not matter
        TinyLoader(ROWS, batch_size=config.batch_size),
        dying("micro-batch", OBJECTIVE),
        config,
        create_run(path, config),
        validate=dying("validation", validate),
        scores=SCORES,
    )


def child(path: Path, moment: Moment | None = None, config: TrainConfig = CONFIG) -> tuple[int, float]:
    """Run a child to its end or its death: exit code and seconds."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["kill_world"])
    ours, theirs = context.Pipe()
    process = context.Process(target=train_until, args=(path, moment, theirs, config))
    with pytest.MonkeyPatch.context() as patch:  # before Python 3.12.8 the server finds modules by this path alone
        patch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)
        process.start()
    assert ours.poll(120) and ours.recv() == "started"
    start = time.monotonic()
    if moment is not None and moment.kind == "wall":
        process.join(moment.at)
        process.kill()
    process.join(120)
    assert process.exitcode is not None
    return process.exitcode, time.monotonic() - start


def saved_step(path: Path) -> int | None:
    """The step that a resume would begin at; None: anew."""
    if not (path / "run.json").exists():
        return None
    checkpoint = Run.open(path).latest_checkpoint()
    return checkpoint.position.step if checkpoint else None


def logged_steps(path: Path) -> int:
    """How many steps metrics.jsonl knows of."""
    file = path / "metrics.jsonl"
    lines = file.read_text().splitlines() if file.exists() else []
    return sum("loss" in json.loads(line) for line in lines if line.endswith("}"))
