"""A step of training DIN on ragged histories: the kernel beside the general formula, padding, and FuxiCTR's layers.

    python benchmarks/din.py [--rows 1024] [--repeats 5] [--threads N] [--python PYTHON]

Rows are requests of their own with one candidate; histories are lognormal (median 40, sigma 1, at most 1,000). Items
of width 16, a unit of (80, 40) with Dice, an MLP of (200, 80), log-loss; one batch in memory: forward, backward,
dense and table step. Everybody has the same rows and sizes (padded, 4,096 rows need 20 GB of memory):

* ours in fp32 and under bf16 autocast, and before: the general formula, which writes the pairs out;
* padded: the same unit by hand on `[B, L]`, L the longest of the batch, and torch's SparseAdam;
* fuxictr (with `--python`, one that has FuxiCTR): `DIN_Attention` out of its layers, padded likewise, dense Adam.

They take turns, each in a process of its own that idles between. Prints a line of JSON a comparison: median seconds and
their ratio; the ratio's bound decides the exit code.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from fullrank.data.batch import Batch, Candidates, FeatureBlock, HistoryBatch, Requests
from fullrank.data.inputs import Field, HistoryInputs, Inputs, TaskInput
from fullrank.features.tables import TableOptimizer
from fullrank.kernels.bodies import bodies
from fullrank.rankers import DIN
from fullrank.rankers.field_front import EmbeddingConfig
from fullrank.training.config import TrainConfig
from fullrank.training.optimizers import RankerOptimizer

PEERS = Path(__file__).resolve().parent / "peers" / "din_models.py"
AT_LEAST = {"before": 1.0, "padded": 3.0, "fuxictr": 10.0}
SIZES: dict[str, Any] = {"items": 100_000, "width": 16, "attention_hidden": [80, 40], "hidden": [200, 80]}


def drawn(rows: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    lengths = np.minimum(random.lognormal(np.log(40), 1.0, rows).astype(np.int64), 1000)
    ids = np.minimum(random.zipf(1.2, int(lengths.sum()) + rows), SIZES["items"] - 3) + 2
    label = random.integers(0, 2, rows).astype(np.float32)
    return {"candidate": ids[:rows], "events": ids[rows:], "lengths": lengths, "label": label}


def block(ids: np.ndarray) -> FeatureBlock:
    return FeatureBlock(torch.from_numpy(ids).unsqueeze(1), torch.zeros(len(ids), 0))


def batch_of(arrays: dict[str, np.ndarray]) -> Batch:
    rows = len(arrays["candidate"])
    offsets = torch.from_numpy(np.concatenate([[0], np.cumsum(arrays["lengths"])]))
    none = FeatureBlock(torch.zeros(rows, 0, dtype=torch.int64), torch.zeros(rows, 0))
    past = HistoryBatch(block(arrays["events"]), offsets)
    nobody = torch.zeros(rows, dtype=torch.int64)
    return Batch(Requests(none, (past,), nobody, nobody), Candidates(block(arrays["candidate"]), torch.arange(rows)))


class Ours:
    """DIN, its optimizer and one batch."""

    def __init__(self, arrays: dict[str, np.ndarray]) -> None:
        item = Field(name="item", kind="categorical", key_space="item", of="item")
        event = Field(name="item", kind="categorical", key_space="item")
        past = HistoryInputs(name="past", last_n=1000, fields=(event,))
        inputs = Inputs(request=(), candidate=(item,), histories=(past,), tasks=(TaskInput(name="click"),))
        tables = TableOptimizer(semantics="lazy", lr=1e-3)
        embedding = EmbeddingConfig(width=SIZES["width"], optimizer=tables)
        attention: Any = {"attention_hidden": tuple(SIZES["attention_hidden"]), "attention_activation": "dice"}
        config = DIN.Config(embedding=embedding, hidden=tuple(SIZES["hidden"]), **attention)
        self.ranker = config.build(inputs, {"item": SIZES["items"]}, seed=0)
        self.optimizer = RankerOptimizer(self.ranker, TrainConfig(lr=1e-3))
        self.batch, self.label = batch_of(arrays), torch.from_numpy(arrays["label"])

    def seconds(self, *, bf16: bool, reference: bool) -> float:
        begun = time.perf_counter()
        # Before: the pairs written out; tables and all else as they are now.
        with bodies("reference") if reference else nullcontext():
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                logits = self.ranker(self.batch).logits["click"]
            F.binary_cross_entropy_with_logits(logits.float(), self.label).backward()
            self.optimizer.collect()
            self.optimizer.apply(None)
        return time.perf_counter() - begun


class Peer:
    """`din_models.py` in a process of its own, which makes a step for every line."""

    def __init__(self, python: str, model: str, work: Path) -> None:
        command = [python, str(PEERS), "--model", model, "--work", str(work)]
        self.model = model
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def seconds(self) -> float:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write("step\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise SystemExit(f"The process of {self.model!r} ended with exit code {self.process.wait()}.")
        return json.loads(answer)["seconds"]

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1024)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--python", default="", help="an interpreter with FuxiCTR; without it that row is left out")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    arrays = drawn(options.rows)
    mine = Ours(arrays)
    steps: dict[str, Any] = {
        "ours": lambda: mine.seconds(bf16=False, reference=False),
        "ours_bf16": lambda: mine.seconds(bf16=True, reference=False),
        "before": lambda: mine.seconds(bf16=False, reference=True),
    }
    with tempfile.TemporaryDirectory() as made:
        work = Path(made)
        for name, array in arrays.items():
            np.save(work / f"{name}.npy", array)
        (work / "sizes.json").write_text(json.dumps(SIZES | {"threads": options.threads}))
        peers = {"padded": Peer(sys.executable, "padded", work)}
        if options.python:
            peers["fuxictr"] = Peer(options.python, "fuxictr", work)
        steps |= {name: peer.seconds for name, peer in peers.items()}
        runs: dict[str, list[float]] = {name: [] for name in steps}
        for repeat in range(-1, options.repeats):  # the first does not count
            for name, step in steps.items():
                seconds = step()
                if repeat >= 0:
                    runs[name].append(seconds)
        for peer in peers.values():
            peer.close()
    pairs, longest = int(arrays["lengths"].sum()), int(arrays["lengths"].max())
    missed = False
    for theirs in (name for name in runs if name in AT_LEAST):
        for label in ("ours", "ours_bf16"):
            one, other = statistics.median(runs[label]), statistics.median(runs[theirs])
            missed |= other < AT_LEAST[theirs] * one
            line = {
                "label": f"din, {theirs} / {label}",
                "ours": round(one, 4),
                "theirs": round(other, 4),
                "ratio": round(other / one, 2),
                "at_least": AT_LEAST[theirs],
                "fastest_ours": round(min(runs[label]), 4),
                "fastest_theirs": round(min(runs[theirs]), 4),
                "rows": options.rows,
                "pairs": pairs,
                "longest": longest,
                "threads": options.threads,
            }
            print(json.dumps(line), flush=True)
    raise SystemExit(int(missed))


if __name__ == "__main__":
    main()
