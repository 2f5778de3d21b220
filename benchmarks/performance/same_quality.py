"""Are models trained by compiled bodies as good as those trained by the plain-torch references?

    FULLRANK_DATA=FOLDER python benchmarks/performance/same_quality.py [--seeds 5] [--work FOLDER] [--quick]

DCNv2 on Frappe (lazy Adam, batches of 4,096, three epochs) and DIN on MovieLens-1M (`liked`, row-wise Adagrad, the
newest 20 rated items, batches of 2,048, one epoch), each seed once with either body; same data, same order, same first
weights. Of each set the paired difference of test AUC with its 90 % interval: good if that is inside ± 0.0005.

The sets are looked for in `FULLRANK_DATA` and where `fullrank data get` puts them; one that is not there is skipped,
aloud. `--quick` does the same on a few simulated rows instead.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from measured import RESULTS, Check, keep, machine

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from kept import kept  # beside the folder of this file

from fullrank.data.fetch import NotObtainable, locate
from fullrank.data.partitions import PreparedData
from fullrank.data.prepare import prepare
from fullrank.data.readers.frappe import Frappe
from fullrank.data.readers.movielens_1m import MovieLens1M
from fullrank.data.simulate import SimulatedLog, SimulatorConfig
from fullrank.data.splits import ByHash, GivenFiles, PerUserOrder
from fullrank.evaluation.paired import PairedDifference, paired_difference
from fullrank.features.tables import TableOptimizer
from fullrank.kernels.bodies import Bodies, bodies
from fullrank.rankers import DIN, DCNv2
from fullrank.rankers.field_front import EmbeddingConfig
from fullrank.recipes.train import predict, train_ranker
from fullrank.training.config import TrainConfig

WITHIN = 0.0005
BODIES: tuple[Bodies, Bodies] = ("compiled", "reference")
THREADS = 2


@dataclass(frozen=True)
class Case:
    """A set and what is trained on it: prepared data, a seed and a run's folder -> test AUC."""

    label: str
    source: Callable[[], tuple[Any, Any]]  # a log and its split; NotObtainable
    trained_auc: Callable[[PreparedData, int, Path], float]


def dcnv2(data: PreparedData, seed: int, run: Path, task: str, training: TrainConfig, hidden: tuple[int, ...]) -> float:
    tables = EmbeddingConfig(width=16, optimizer=TableOptimizer(semantics="lazy", lr=1e-3))
    trained = train_ranker(DCNv2.Config(embedding=tables, hidden=hidden), data, run, training, seed=seed)
    return predict(trained.run, trained.ranker, data, "test").metrics(task).auc


def frappe(data: PreparedData, seed: int, run: Path) -> float:
    training = TrainConfig(epochs=3, batch_size=4096, seed=seed, checkpoint_every_steps=None)
    return dcnv2(data, seed, run, "used", training, (400, 400, 400))


def simulated(data: PreparedData, seed: int, run: Path) -> float:
    training = TrainConfig(batch_size=512, seed=seed, checkpoint_every_steps=None)
    return dcnv2(data, seed, run, "click", training, (16,))


def movielens(data: PreparedData, seed: int, run: Path) -> float:
    tables = EmbeddingConfig(width=16, optimizer=TableOptimizer(lr=0.02))
    training = TrainConfig(epochs=1, batch_size=2048, seed=seed, checkpoint_every_steps=None)
    config, exclude = DIN.Config(embedding=tables), ("loved",)
    trained = train_ranker(config, data, run, training, seed=seed, last_n=20, exclude=exclude)
    return predict(trained.run, trained.ranker, data, "test").metrics("liked").auc


CASES = (
    Case("Frappe, DCNv2", lambda: (Frappe(locate("frappe")), GivenFiles()), frappe),
    Case("MovieLens-1M, DIN", lambda: (MovieLens1M(locate("movielens-1m")), PerUserOrder()), movielens),
)
QUICK = (Case("simulated, DCNv2", lambda: (SimulatedLog(SimulatorConfig(rows=2_000, users=200)), ByHash()), simulated),)


def pairs(case: Case, seeds: int, work: Path) -> dict[str, list[float]]:
    """Body -> the test AUC of each seed. What `work` holds already is not found again."""
    folder = work / case.label.replace(", ", "-").lower()
    if not (folder / "data" / "manifest.json").exists():
        source, split = case.source()
        prepare(source, folder / "data", split=split)
    data = PreparedData.open(folder / "data")
    auc: dict[str, list[float]] = {body: [] for body in BODIES}
    for seed in range(seeds):
        for body in BODIES:
            run = folder / "runs" / f"{body}-{seed}"
            with bodies(body):
                found = kept(run.with_suffix(".json"), lambda: case.trained_auc(data, seed, run))  # noqa: B023 (called at once)
            auc[body].append(found)
    return auc


def judged(case: Case, difference: PairedDifference) -> Check:
    """The end of the interval that is farther from nothing."""
    return Check(
        label=f"{case.label}: compiled bodies against references, the farther end of the 90 % interval",
        value=max(abs(difference.low), abs(difference.high)),
        target=WITHIN,
        note=f"test AUC, n = {difference.n}: {difference.mean:+.6f} [{difference.low:+.6f}, {difference.high:+.6f}]",
    )


def lines(case: Case, auc: dict[str, list[float]]) -> list[dict[str, Any]]:
    found = zip(*(auc[body] for body in BODIES), strict=True)
    return [
        {"seed": seed, **{body: f"{value:.6f}" for body, value in zip(BODIES, pair, strict=True)}}
        for seed, pair in enumerate(found)
    ]


def compared(cases: Sequence[Case], seeds: int, work: Path) -> tuple[list[Check], dict[str, list[dict[str, Any]]]]:
    checks, tables = [], {}
    for case in cases:
        try:
            auc = pairs(case, seeds, work)
        except NotObtainable as error:
            print(f"SKIPPED: {case.label}: {error}", file=sys.stderr)
            continue
        checks.append(judged(case, paired_difference(auc["compiled"], auc["reference"], higher_is_better=True)))
        tables[f"{case.label}, test AUC"] = lines(case, auc)
    return checks, tables


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5, help="two or more")
    parser.add_argument("--work", type=Path, help="keep prepared data and what is found, and don't find it again")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--quick", action="store_true", help="seconds, on simulated rows")
    options = parser.parse_args()
    if options.seeds < 2:
        parser.error(f"expected 2 or more seeds, an interval has at least two; got {options.seeds}")
    if not options.quick:
        torch.set_num_threads(THREADS)
    on = machine(torch.get_num_threads())
    cases, seeds = (QUICK, 2) if options.quick else (CASES, options.seeds)
    with tempfile.TemporaryDirectory() as scratch:
        checks, tables = compared(cases, seeds, options.work or Path(scratch))
    if checks:
        keep("same_quality", [], on, options.out, checks=checks, tables=tables)
    sys.exit(int(not options.quick and not all(check.ok for check in checks)))


if __name__ == "__main__":
    main()
