"""Seconds of training until DCNv2 reaches a level of validation AUC on a simulated log of which the truth is known.

    python benchmarks/performance/time_to_auc.py [--peers FOLDER] [--seeds 3] [--against by-hand fuxictr] [--quick]

Sizes are those of `dcnv2_training.py` at 5 M rows: 39 features of width 16, three crosses beside an MLP of 400 × 3,
batches of 4096, dense Adam 1e-3 for dense weights. Features: 10 keys and 3 cut numbers of the log, and 26 crosses of
two keys (`simulated_rows.py`); 1.5 M rows to train on, once, and 32,768 to validate on.

The level is chosen before: a half + `SHARE` of what the true probabilities have above a half (our choice). Learners are
processes that take turns of `EACH` steps on the same batches in the same order, are validated in float32 after each,
and leave when they have the level; the time is that of the steps alone, between two validations in proportion to their
AUC. A seed: its order, and its first weights.

Ours: row-wise Adagrad for tables, float32 and bf16. By hand: of all table optimizers that keep a state
(`peers/dcnv2_by_hand.py`) the one that is there first on the first seed, in each dtype. FuxiCTR's layers: dense Adam,
float32, beside both of ours. Who never gets there is counted with the time of the whole pass.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from contenders import Contender, ours, peer, python_of
from measured import RESULTS, Check, Figure, Run, keep, machine, rounded, run_of
from simulated_rows import FEATURES, SimulatedRows
from workload import Sizes, rows_in_all

from fullrank.evaluation.metrics import auc

SHARE = 0.85
EACH = 10  # steps a turn
DTYPES = ("fp32", "bf16")
ROWWISE = "row-wise Adagrad, not merged"
OF_HAND = ("SparseAdam", "sparse Adagrad", "row-wise Adagrad, merged", ROWWISE, "dense fused Adam")
AGAINST = ("by-hand", "fuxictr")
BY_HAND_TARGET, FUXICTR_TARGET = 1.5, 1.5  # the second is our choice
Open = Callable[[Path], Contender]


@dataclass(frozen=True, kw_only=True)
class Pass:
    """What everybody learns: the rows' folder, the level, and how far a turn goes."""

    sizes: Sizes
    rows: Path
    train: int
    level: float
    each: int = EACH

    def folder(self, at: Path, seed: int) -> Path:
        """What a learner gets as its folder."""
        at.mkdir(parents=True)
        (at / "sizes.json").write_text(json.dumps(asdict(self.sizes) | {"seed": seed, "rows": str(self.rows)}))
        np.save(at / "order.npy", np.random.default_rng(seed).permutation(self.train))
        return at


@dataclass
class Learner:
    """Somebody on the way: its steps, their seconds, and the AUC after each turn (both from the start on)."""

    contender: Contender
    folder: Path
    seconds: list[float] = field(default_factory=lambda: [0.0])
    auc: list[float] = field(default_factory=lambda: [0.5])
    steps: int = 0
    reached: bool = False

    def turn(self, world: Pass, label_V: np.ndarray) -> None:
        took = sum(self.contender.seconds("train", world.each, 0))
        self.contender.seconds("validate", 1, 0)
        self.steps += world.each
        self.seconds.append(self.seconds[-1] + took)
        self.auc.append(auc(label_V, np.load(self.folder / "logits.npy", allow_pickle=False)))
        self.reached = self.auc[-1] >= world.level

    def time(self, level: float) -> float:
        """Seconds to the level; those of all turns where it was not reached."""
        if not self.reached:
            return self.seconds[-1]
        (a, b), (s, t) = self.auc[-2:], self.seconds[-2:]
        return s + (t - s) * (level - a) / (b - a)


def race(
    world: Pass, openers: dict[str, Open], seed: int, scratch: Path, until_first: bool = False
) -> dict[str, Learner]:
    """Everybody to the level or the end of the pass, in turns; with `until_first` nobody goes on for longer than it
    took the fastest of the same dtype (the last word of the name)."""
    label_V = np.load(world.rows / "valid_labels.npy", allow_pickle=False)
    last = world.train // world.sizes.batch // world.each * world.each
    learners = {}
    with ExitStack() as stack:
        for number, (name, opened) in enumerate(openers.items()):
            folder = world.folder(scratch / f"learner-{number}", seed)
            learners[name] = Learner(stack.enter_context(opened(folder)), folder)
        active = dict(learners)
        while active:
            for name, learner in list(active.items()):
                time.sleep(0.02)  # the threads of the one before may still be waiting for work
                learner.turn(world, label_V)
                dtype = name.rpartition(" ")[2]
                there = [one.time(world.level) for key, one in learners.items() if one.reached and key.endswith(dtype)]
                late = until_first and there and learner.seconds[-1] > min(there)
                if learner.reached or late or learner.steps >= last:
                    del active[name]
                    learner.contender.close()  # its memory is for the others
    return learners


def fastest_by_hand(world: Pass, optimizers: tuple[str, ...], scratch: Path) -> tuple[dict[str, str], list[dict]]:
    """Of each dtype the optimizer that is there first, and a row an optimizer for the page."""
    found: dict[str, Learner] = {}
    for name in optimizers:
        openers = {f"{name} {dtype}": by_hand(world, f"{name} {dtype}") for dtype in DTYPES}
        found |= race(world, openers, 0, scratch / name, until_first=True)
    best = {}
    for dtype in DTYPES:
        own = {name: one for name, one in found.items() if name.endswith(dtype)}
        best[dtype] = min(own, key=lambda name: (not own[name].reached, own[name].time(world.level)))
    rows = [
        {
            "optimizer": name,
            "seconds": rounded(one.time(world.level)) if one.reached else f"not in {rounded(one.seconds[-1])}",
            "AUC then": rounded(one.auc[-1]),
            "rows": one.steps * world.sizes.batch,
        }
        for name, one in found.items()
    ]
    return best, rows


def by_hand(world: Pass, mode: str) -> Open:
    return lambda folder: peer("learning_by_hand", folder, world.sizes.threads, modes=[mode])


def openers_of(world: Pass, best: dict[str, str], peers: Path | None) -> dict[str, Open]:
    """Who takes part, by name."""
    threads = world.sizes.threads
    openers: dict[str, Open] = {
        f"ours {dtype}": lambda folder, dtype=dtype: ours("ours_learning", folder, threads, [dtype])
        for dtype in DTYPES
    }
    openers |= {f"by hand {dtype}": by_hand(world, mode) for dtype, mode in best.items()}
    if peers is not None:
        python = python_of("libraries", peers)
        openers["fuxictr fp32"] = lambda folder: peer("learning_fuxictr", folder, threads, python=python)
    return openers


def figures(world: Pass, best: dict[str, str], races: list[dict[str, Learner]]) -> list[Figure]:
    def run(name: str) -> Run:
        peak = round(max(one[name].contender.peak_mib for one in races))
        others = max(statistics.median(one[name].contender.others) for one in races)
        return run_of([one[name].time(world.level) for one in races], peak, round(others, 2))

    def missed(name: str) -> str:
        short = sum(not one[name].reached for one in races)
        return f"; {short} of {len(races)} seeds not in the whole pass" if short else ""

    pairs = [("by hand", dtype, dtype, best[dtype].rpartition(" ")[0], BY_HAND_TARGET) for dtype in best]
    if "fuxictr fp32" in races[0]:
        pairs += [("fuxictr", dtype, "fp32", "fp32, dense Adam", FUXICTR_TARGET) for dtype in DTYPES]
    return [
        Figure(
            label=f"DCNv2 to AUC {world.level:.4f}, {dtype}: {name}",
            unit="s",
            ours=run(f"ours {dtype}"),
            theirs=run(f"{name} {their_dtype}"),
            target=target,
            note=note + missed(f"{name} {their_dtype}"),
            versions={
                **races[0][f"{name} {their_dtype}"].contender.versions,
                **races[0][f"ours {dtype}"].contender.versions,
            },
        )
        for name, dtype, their_dtype, note, target in pairs
    ]


def spread(world: Pass, races: list[dict[str, Learner]]) -> list[dict[str, Any]]:
    """A row a learner: seconds and rows to the level, mean and standard deviation over seeds."""
    lines = []
    for name in races[0]:
        own = [race[name] for race in races]
        seconds = [one.time(world.level) for one in own]
        line: dict[str, Any] = {"learner": name, "reached": f"{sum(one.reached for one in own)} of {len(own)}"}
        line["mean, s"] = rounded(statistics.mean(seconds))
        line["standard deviation, s"] = rounded(statistics.stdev(seconds)) if len(own) > 1 else ""
        line["rows, mean"] = round(statistics.mean(one.steps * world.sizes.batch for one in own))
        lines.append(line | {"last AUC, mean": rounded(statistics.mean(one.auc[-1] for one in own))})
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", type=Path, help="where the peers' environments are, or are made")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--against", nargs="*", choices=AGAINST, default=list(AGAINST))
    parser.add_argument("--train", type=int, default=1_500_000, help="rows to train on")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--quick", action="store_true", help="seconds; the figures mean nothing")
    options = parser.parse_args()
    sizes, log, seeds = rows_in_all(5_000_000), {"train": options.train, "valid": 32_768}, options.seeds
    if options.quick:
        sizes, log, seeds = replace(sizes.quick(), features=FEATURES, threads=1), {"train": 1_500, "valid": 2_000}, 1
    on = machine(sizes.threads)
    with tempfile.TemporaryDirectory() as made:
        scratch = Path(made)
        rows = SimulatedRows(**log, rows_of_a_feature=sizes.rows_of_a_feature)
        truth = rows.write(scratch / "rows")
        level = 0.5 + SHARE * (truth.auc - 0.5)
        world = Pass(sizes=sizes, rows=scratch / "rows", train=log["train"], level=level)
        world = replace(world, each=2) if options.quick else world
        best, looked = {}, []
        if "by-hand" in options.against:
            optimizers = (ROWWISE,) if options.quick else OF_HAND
            best, looked = fastest_by_hand(world, optimizers, scratch / "look")
        peers = (options.peers or scratch / "peers").absolute() if "fuxictr" in options.against else None
        openers = openers_of(world, best, peers)
        races = [race(world, openers, seed, scratch / f"seed-{seed}") for seed in range(seeds)]
    found = figures(world, best, races)
    there = statistics.mean(one[f"ours {dtype}"].reached for one in races for dtype in DTYPES)
    checks = [Check(label="share of seeds in which ours reached the level", value=there, target=1.0, at_least=True)]
    tables = {
        f"To AUC {level:.4f}, {SHARE:g} of the way from a half to the true probabilities' {truth.auc:.4f}": spread(
            world, races
        ),
        "By hand, the look at the first seed (who is later than the first of its dtype stops)": looked,
    }
    ways = [{name: {"seconds": one.seconds, "auc": one.auc} for name, one in race.items()} for race in races]
    keep("time_to_auc", found, on, options.out, checks=checks, tables=tables, ways=ways)
    good = all(one.ok for one in (*found, *checks))
    sys.exit(int(not good and not options.quick))


if __name__ == "__main__":
    main()
