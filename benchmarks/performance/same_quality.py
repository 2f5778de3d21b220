"""Are models trained by compiled bodies as good as those trained by the plain-torch references?

    python benchmarks/performance/same_quality.py --frappe FOLDER --movielens FOLDER [--seeds 5] [--work FOLDER]

DCNv2 on Frappe (lazy Adam, batches of 4,096, three epochs) and DIN on MovieLens-1M (`liked`, row-wise Adagrad, the
newest 20 rated items, batches of 2,048, one epoch), each seed once with either body; same data, same order, same first
weights. Prints a line a pair, then for each set the paired difference of test AUC with its 90 % interval: good if that
is inside ± 0.0005.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from kept import kept

from fullrank.data.partitions import PreparedData
from fullrank.data.prepare import prepare
from fullrank.data.readers.frappe import Frappe
from fullrank.data.readers.movielens_1m import MovieLens1M
from fullrank.data.splits import GivenFiles, PerUserOrder
from fullrank.evaluation.paired import paired_difference
from fullrank.features.tables import TableOptimizer
from fullrank.kernels.bodies import Bodies, bodies
from fullrank.rankers import DIN, DCNv2
from fullrank.rankers.field_front import EmbeddingConfig
from fullrank.recipes.train import predict, train_ranker
from fullrank.training.config import TrainConfig

WITHIN = 0.0005
BODIES: tuple[Bodies, Bodies] = ("compiled", "reference")


def frappe(data: PreparedData, seed: int, run: Path) -> float:
    tables = EmbeddingConfig(width=16, optimizer=TableOptimizer(semantics="lazy", lr=1e-3))
    config = DCNv2.Config(embedding=tables, hidden=(400, 400, 400))
    training = TrainConfig(epochs=3, batch_size=4096, seed=seed, checkpoint_every_steps=None)
    trained = train_ranker(config, data, run, training, seed=seed)
    return predict(trained.run, trained.ranker, data, "test").metrics("used").auc


def movielens(data: PreparedData, seed: int, run: Path) -> float:
    tables = EmbeddingConfig(width=16, optimizer=TableOptimizer(lr=0.02))
    training = TrainConfig(epochs=1, batch_size=2048, seed=seed, checkpoint_every_steps=None)
    exclude = ("loved",)
    config = DIN.Config(embedding=tables)
    trained = train_ranker(config, data, run, training, seed=seed, last_n=20, exclude=exclude)
    return predict(trained.run, trained.ranker, data, "test").metrics("liked").auc


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frappe", type=Path)
    parser.add_argument("--movielens", type=Path)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=0, help="of torch; 0: torch's own choice")
    parser.add_argument("--work", type=Path, help="keep prepared data and what is found, and don't find it again")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    failed = False
    with tempfile.TemporaryDirectory() as scratch:
        work = options.work or Path(scratch)
        sets: dict[str, tuple[Any, Any, Callable[[PreparedData, int, Path], float]]] = {}
        if options.frappe:
            sets["frappe dcnv2"] = (Frappe(options.frappe), GivenFiles(), frappe)
        if options.movielens:
            sets["movielens-1m din"] = (MovieLens1M(options.movielens), PerUserOrder(valid=0.1, test=0.1), movielens)
        for name, (source, split, trained_auc) in sets.items():
            folder = work / name.replace(" ", "-")
            if not (folder / "data" / "manifest.json").exists():
                prepare(source, folder / "data", split=split)
            data = PreparedData.open(folder / "data")
            auc: dict[str, list[float]] = {body: [] for body in BODIES}
            for seed in range(options.seeds):
                for body in BODIES:
                    run = folder / "runs" / f"{body}-{seed}"
                    with bodies(body):
                        found = kept(run.with_suffix(".json"), lambda: trained_auc(data, seed, run))  # noqa: B023 (called at once)
                    auc[body].append(found)
                line = {"label": name, "seed": seed} | {body: round(auc[body][-1], 6) for body in BODIES}
                print(json.dumps(line), flush=True)
            if options.seeds > 1:
                d = paired_difference(auc["compiled"], auc["reference"], higher_is_better=True)
                good = d.low > -WITHIN and d.high < WITHIN
                failed |= not good
                numbers = {"difference": round(d.mean, 6), "low": round(d.low, 6), "high": round(d.high, 6)}
                print(json.dumps({"label": name, **numbers, "ok": good}), flush=True)
    sys.exit(failed)


if __name__ == "__main__":
    main()
