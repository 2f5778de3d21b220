"""Law 4: a training of prepared data that is killed (SIGKILL) at any moment resumes to the losses and weights of one
that nothing happened to, bit for bit. On three logs: ratings, four inline domains, ads with late conversions.

The loop itself is killed at many more moments on a tiny world in tests/training and by benchmarks/kill_train.py.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import secrets
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from safetensors.torch import load_file

from fullrank.data.prepare import prepare
from fullrank.data.readers.movielens import movielens_schema
from fullrank.data.simulate import SimulatedLog, SimulatorConfig
from fullrank.data.simulate_taac import write
from fullrank.data.source import LogChunk
from fullrank.data.splits import ByHash, PerUserOrder
from fullrank.features.tables import TableOptimizer
from fullrank.features.tokenizer import TokenizerConfig
from fullrank.rankers import DCNv2, RankMixer
from fullrank.rankers.field_front import EmbeddingConfig
from fullrank.recipes.train import train_ranker
from fullrank.training.config import TrainConfig
from fullrank.training.objectives import MultiTask, ObjectiveConfig
from fullrank.training.run import Run

TRAINING = TrainConfig(
    epochs=2, batch_size=64, accumulate=2, clip_norm=1.0, checkpoint_every_steps=2, log_every_steps=1
)
RANKERS = {
    "rowwise_adagrad": DCNv2.Config(
        embedding=EmbeddingConfig(width=4, optimizer=TableOptimizer(semantics="rowwise_adagrad")),
        num_cross_layers=1,
        hidden=(8,),
        dropout=0.1,
    ),
    "lazy": RankMixer.Config(
        embedding=EmbeddingConfig(width=4, optimizer=TableOptimizer(semantics="lazy", weight_decay=0.1)),
        tokenizer=TokenizerConfig(num_tokens=4, token_width=8),
        num_layers=1,
        dropout=0.1,
    ),
}


class _Ratings:
    """A ratings log, unsorted in time, with many ties."""

    name, schema, events = "ratings", movielens_schema("ratings", ()), {}

    def chunks(self):
        draw = np.random.default_rng(1)
        n = 500
        columns = {
            "user": draw.integers(0, 25, n),
            "item": draw.integers(0, 60, n),
            "rating": (rating := draw.integers(1, 6, n)),
            "time": draw.integers(0, 300, n),
            "liked": (rating >= 4).astype(np.int8),
            "loved": (rating == 5).astype(np.int8),
            "year": draw.integers(1950, 2000, n),
            "title": np.array(["a film"] * n),
            "genres": pa.array([["Drama", "War"][: k % 3] for k in range(n)], pa.list_(pa.string())),
        }
        (records,) = pa.table(columns).combine_chunks().to_batches()
        yield LogChunk(records, "ratings", 0)

    def fingerprint(self) -> str:
        return "ratings"


def _ads(folder: Path) -> None:
    log = SimulatedLog(SimulatorConfig(rows=900, users=60, ads=60, campaigns=10, categories=5, days=2, seed=3))
    prepare(log.day(0), folder, split=ByHash(key="user", valid=0.1, test=0.1))


def _taac(folder: Path) -> None:
    inline, _ = write(folder.with_name("taac"), 400)
    prepare(inline, folder, split=ByHash(key="user", valid=0.1, test=0.1))


LOGS: dict[str, Callable[[Path], object]] = {
    "ratings": lambda folder: prepare(_Ratings(), folder, split=PerUserOrder()),
    "taac": _taac,
    "ads": _ads,
}


# of a log with several rows a request: the rows of each against each other, so that no batch may cut one
OBJECTIVES = {"ratings": ObjectiveConfig(), "taac": ObjectiveConfig(), "ads": ObjectiveConfig(binary="softmax")}


def _train(data: Path, run: Path, ranker: str, objective: ObjectiveConfig, die_at: int) -> None:
    """The child: train, and die in the `die_at`-th micro-batch (0: never)."""
    import threading

    from tqdm import tqdm

    from fullrank.data.partitions import PreparedData

    torch.set_num_threads(1)
    tqdm.set_lock(threading.RLock())  # its own is a semaphore that a killed process leaves behind
    calls = 0
    whole = MultiTask.__call__

    def dying(self, output, batch):
        nonlocal calls
        calls += 1
        if calls == die_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return whole(self, output, batch)

    MultiTask.__call__ = dying
    train_ranker(RANKERS[ranker], PreparedData.open(data), run, TRAINING, objective=objective)


def _child(data: Path, run: Path, ranker: str, objective: ObjectiveConfig, die_at: int = 0) -> int:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["fullrank.recipes.train", "torch._dynamo"])
    process = context.Process(target=_train, args=(data, run, ranker, objective, die_at))
    process.start()
    process.join()
    assert process.exitcode is not None
    return process.exitcode


def _left(run: Path) -> tuple[list[dict], dict[str, torch.Tensor]]:
    """The lines of metrics.jsonl without their seconds, and every tensor of the newest checkpoint."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    checkpoint = Run.open(run).latest_checkpoint()
    assert checkpoint is not None
    files = sorted(checkpoint.path.glob("*.safetensors"))
    tensors = {f"{file.name}/{name}": tensor for file in files for name, tensor in load_file(file).items()}
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines], tensors


@pytest.mark.parametrize(("log", "ranker"), [("ratings", "rowwise_adagrad"), ("taac", "lazy"), ("ads", "lazy")])
def test_law4_killed_and_resumed_is_undisturbed(tmp_path: Path, log: str, ranker: str) -> None:
    data = tmp_path / "data"
    LOGS[log](data)
    objective = OBJECTIVES[log]
    assert _child(data, tmp_path / "whole", ranker, objective) == 0
    lines, tensors = _left(tmp_path / "whole")
    steps = max(line["step"] for line in lines)
    seed = secrets.randbits(32)
    # two micro-batches a step: an odd number begins one, an even one is the middle of an accumulation
    moments = [steps + 1, *(random.Random(seed).randint(1, steps) for _ in range(2))]
    print(f"seed {seed}, {steps} steps, killed in micro-batches {moments} of the sittings")
    killed = tmp_path / "killed"
    for moment in moments:
        assert _child(data, killed, ranker, objective, moment) in (-signal.SIGKILL, 0)
    assert _child(data, killed, ranker, objective) == 0
    again, resumed = _left(killed)
    assert again == lines
    assert resumed.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert torch.equal(tensor, resumed[name]), name
