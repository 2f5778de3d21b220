"""One user × 1,000 candidates: how long a scorer takes, beside the ranker called plainly and its products alone.

    python benchmarks/performance/scoring.py [--calls 500] [--quick]

RankMixer, 16 tokens of 128, 2 layers, expansion 2 (4.2 GFLOP a request), 30 fields of width 16 and a history of 50
events; the request's side is encoded in every call. In one process, in turns: the scorer, `ranker(batch)` (in bfloat16
under autocast), and the products of the stack alone at the fastest of some numbers of rows; of each precision. Calls
come one after another: nothing waits in a queue.

Scores are compared with `ranker(batch)` in float32, of two rankers: first weights with table rows of unit scale, and
one of the same sizes trained on the simulated log (an epoch, in bf16, of its features and histories), on its test rows
and on requests × 1,000 candidates out of them: logits, the ten best, and AUC.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from contenders import PEERS, Timed, Turns, in_turns, ours
from measured import RESULTS, Check, Figure, Run, in_ms, keep, machine, run_of

sys.path.insert(0, str(PEERS))  # of the `worker` that ours_scoring serves with

from ours_scoring import make_batch, make_ranker, ranker_config  # needs the path

from fullrank.data.batch import Batch, Candidates
from fullrank.data.loader import Loader
from fullrank.data.partitions import PreparedData
from fullrank.data.prepare import prepare
from fullrank.data.simulate import SimulatedLog, SimulatorConfig
from fullrank.data.splits import ByHash
from fullrank.evaluation.metrics import auc
from fullrank.rankers import Ranker
from fullrank.recipes.train import train_ranker
from fullrank.serving.scorer import Precision, Scorer
from fullrank.training.config import TrainConfig

LIMITS: dict[Precision, float] = {"float32": 20.0, "bfloat16": 5.0}  # p50, milliseconds
LARGEST_CHANGE: dict[Precision, float] = {"float32": 1e-5, "bfloat16": 1e-2}  # of a logit
OF_P50 = 2.0  # p99, at most so many times p50
OVERLAP, AUC_CHANGE, BEST = 0.99, 1e-4, 10


@dataclass(frozen=True, kw_only=True)
class Sizes:
    tokens: int = 16
    width: int = 128
    layers: int = 2
    expansion: int = 2
    candidates: int = 1000
    product_rows: tuple[int, ...] = (250, 500, 1000)
    threads: int = 2
    log_rows: int = 300_000
    requests: int = 100  # of the log, each × candidates

    def quick(self) -> Sizes:
        small = replace(self, tokens=4, width=16, candidates=40, product_rows=(20, 40), threads=1)
        return replace(small, log_rows=2_000, requests=5)


def speeds(sizes: Sizes, folder: Path, turns: Turns) -> list[Figure]:
    (folder / "sizes.json").write_text(json.dumps(asdict(sizes)))
    with ours("ours_scoring", folder, sizes.threads) as mine:
        timed = {mode: Timed(mine, mode) for mode in mine.modes}
        in_turns(list(timed.values()), turns)
    figures = []
    for precision, limit in LIMITS.items():
        named = f"scoring 1 × {sizes.candidates:,}, {precision}"
        scorer, eager = (in_ms(timed[f"{what} {precision}"]) for what in ("scorer", "eager"))
        every = [in_ms(each) for mode, each in timed.items() if mode.startswith(f"products {precision}")]
        beside = {"the ranker called plainly": eager, "products alone": min(every, key=lambda run: run.median)}
        slow = 1e3 * float(np.quantile(timed[f"scorer {precision}"].seconds, 0.99))
        p99 = replace(run_of([slow]), n=scorer.n, peak_mib=scorer.peak_mib, others=scorer.others)

        def figure(label: str, one: Run, other: Run, target: float, beside: dict[str, Run] | None = None) -> Figure:
            return Figure(
                label=label, unit="ms", ours=one, theirs=other, target=target, at_most=True, others=beside,
                versions=mine.versions,
            )  # fmt: skip

        figures.append(figure(f"{named}: the limit of p50", scorer, run_of([limit]), 1.0, beside))
        figures.append(figure(f"{named}: p99 beside p50", p99, replace(scorer, n=scorer.n), OF_P50))
    return figures


def checks(sizes: Sizes, folder: Path) -> list[Check]:
    """Of both rankers, all against float32 called plainly."""
    ranker = make_ranker(asdict(sizes))
    found = [
        change(f"first weights, 1 × {sizes.candidates:,}", ranker, precision, [make_batch(sizes.candidates)])
        for precision in LIMITS
    ]
    ranker, data = trained(sizes, folder)
    rows = list(Loader(data, ranker.inputs, "test", batch_size=sizes.candidates).epoch(0))
    asked = requests_by_all(rows[0], sizes.requests)
    note = f"trained on {data.num_rows('train'):,} simulated rows"
    plain = Scores(ranker, "float32", rows, asked)
    for precision in LIMITS:
        found.append(change(f"trained, {len(asked)} × {asked[0].num_rows:,}", ranker, precision, asked, note))
    rounded = Scores(ranker, "bfloat16", rows, asked)
    overlap = float(np.mean([len(a & b) / len(a) for a, b in zip(plain.best, rounded.best, strict=True)]))
    differ = abs(plain.auc - rounded.auc)
    found.append(Check(label=f"trained, bfloat16: overlap of the {BEST} best", value=overlap, target=OVERLAP,
                       at_least=True, note=note))  # fmt: skip
    found.append(Check(label="trained, bfloat16: change of AUC", value=differ, target=AUC_CHANGE,
                       note=f"{plain.auc:.4f} in float32, {data.num_rows('test'):,} test rows"))  # fmt: skip
    return found


def change(what: str, ranker: Ranker, precision: Precision, batches: list[Batch], note: str = "") -> Check:
    """The largest change of a logit, of any task, against the ranker called plainly."""
    scorer, largest = Scorer(ranker, precision=precision), 0.0
    with torch.inference_mode():
        for batch in batches:
            expected, found = ranker(batch).logits, scorer(batch)
            largest = max(largest, *(float((found[task] - expected[task]).abs().max()) for task in found))
    label = f"{what}, {precision}: largest change of a logit"
    return Check(label=label, value=largest, target=LARGEST_CHANGE[precision], note=note)


class Scores:
    """The AUC of all rows, and of each request the places of its best candidates; of the click."""

    def __init__(self, ranker: Ranker, precision: Precision, rows: list[Batch], asked: list[Batch]) -> None:
        scorer = Scorer(ranker, precision=precision)
        labels = torch.cat([batch.labels.values_BK[:, 0] for batch in rows if batch.labels is not None])
        self.auc = auc(labels.numpy(), torch.cat([scorer(batch)["click"] for batch in rows]).numpy())
        self.best = [set(scorer(batch)["click"].topk(BEST).indices.tolist()) for batch in asked]


def trained(sizes: Sizes, folder: Path) -> tuple[Ranker, PreparedData]:
    config = SimulatorConfig(rows=sizes.log_rows, users=max(200, sizes.log_rows // 20))
    prepare(SimulatedLog(config), folder / "data", split=ByHash(test=0.2))
    data = PreparedData.open(folder / "data")
    training = TrainConfig(batch_size=1024, bf16=True, checkpoint_every_steps=None, validate_every_epochs=None)
    found = train_ranker(ranker_config(asdict(sizes), 0.01), data, folder / "run", training, last_n=50)
    return found.ranker.eval(), data


def requests_by_all(batch: Batch, num: int) -> list[Batch]:
    """The first `num` requests of a batch, each with all its candidates."""
    features, rows = batch.candidates.features, batch.num_rows
    num = min(num, batch.requests.num_requests)
    return [Batch(batch.requests, Candidates(features, torch.full((rows,), request))) for request in range(num)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=500, help="of each")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--quick", action="store_true", help="seconds; the figures mean nothing")
    options = parser.parse_args()
    sizes = Sizes().quick() if options.quick else Sizes()
    turns = Turns(rounds=1, steps=2, warm=0) if options.quick else Turns(rounds=20, steps=-(-options.calls // 20))
    on = machine(sizes.threads)
    with tempfile.TemporaryDirectory() as scratch:
        found = speeds(sizes, Path(scratch), turns)
        checked = checks(sizes, Path(scratch))
    keep("scoring", found, on, options.out, checks=checked)
    sys.exit(int(not options.quick and not all(one.ok for one in (*found, *checked))))


if __name__ == "__main__":
    main()
