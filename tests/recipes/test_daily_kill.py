"""A daily loop that is killed (SIGKILL) at any moment resumes to the weights, lines and days of an undisturbed one."""

from __future__ import annotations

import multiprocessing
import os
import random
import secrets
import signal
import threading
from pathlib import Path

import pytest
from test_daily import LOG, SPLIT, TRAINING, append, assert_same, lines, ranker

from fullrank.data.partitions import PreparedData
from fullrank.data.prepare import prepare
from fullrank.recipes.daily import PROGRESSIVE, continue_run
from fullrank.recipes.train import train_ranker
from fullrank.training.run import Run

KINDS = ("micro-batch", "fsync", "metrics")


def go_on(folder: Path, name: str, kind: str, die_at: int, steps: str) -> None:
    """The child: go on, and die at the `die_at`-th call of `kind` (0: never). It counts them into a file."""
    import torch
    from tqdm import tqdm

    from fullrank.training.metrics_log import MetricsLog
    from fullrank.training.objectives import MultiTask

    torch.set_num_threads(1)
    tqdm.set_lock(threading.RLock())  # its own is a semaphore that a killed process leaves behind
    calls = dict.fromkeys(KINDS, 0)

    def dying(what, function):
        def called(*args):
            calls[what] += 1
            if what == kind and calls[what] == die_at:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args)

        return called

    os.fsync = dying("fsync", os.fsync)
    MultiTask.__call__ = dying("micro-batch", MultiTask.__call__)
    MetricsLog.write = dying("metrics", MetricsLog.write)
    continue_run(Run.open(folder / "first"), PreparedData.open(folder / "data"), folder / name)
    Path(steps).write_text(" ".join(str(calls[what]) for what in KINDS))


def child(folder: Path, name: str, kind: str = "", die_at: int = 0) -> int:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["fullrank.recipes.daily", "torch._dynamo"])
    process = context.Process(target=go_on, args=(folder, name, kind, die_at, str(folder / "calls")))
    with pytest.MonkeyPatch.context() as patch:  # before Python 3.12.8 the server finds modules by this path alone
        patch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)
        process.start()
    process.join(240)
    assert process.exitcode is not None
    return process.exitcode


def test_killed_and_resumed_is_undisturbed(tmp_path: Path) -> None:
    prepare(LOG.day(0), tmp_path / "data", split=SPLIT)
    train_ranker(ranker(), PreparedData.open(tmp_path / "data"), tmp_path / "first", TRAINING)
    for day in (1, 2):
        append(tmp_path / "data", day)
    assert child(tmp_path, "whole") == 0
    counts = map(int, (tmp_path / "calls").read_text().split())
    calls = dict(zip(KINDS, counts, strict=True))
    seed = secrets.randbits(32)
    draw = random.Random(seed)
    moments = [(kind, draw.randint(1, calls[kind] // 2)) for kind in KINDS]
    print(f"seed {seed}, calls {calls}, killed at {moments}")
    for kind, at in moments:
        assert child(tmp_path, "killed", kind, at) in (-signal.SIGKILL, 0)
    assert child(tmp_path, "killed") == 0
    whole, killed = Run.open(tmp_path / "whole"), Run.open(tmp_path / "killed")
    assert_same(whole, killed)
    assert lines(whole) == lines(killed)
    assert (whole.path / PROGRESSIVE).read_text() == (killed.path / PROGRESSIVE).read_text()
    one, two = whole.result(), killed.result()
    assert one is not None and two is not None
    assert (one.step, one.rows, one.loss) == (two.step, two.rows, two.loss)
