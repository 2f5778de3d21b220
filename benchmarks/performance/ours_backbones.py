"""Every backbone of the comparison: a training step, a request scored, and a product of matrices beside them.

Modes: `train NAME`, `score NAME`, `probe NAME` (one call that measures) for the recipes of
`benchmarks/backbones/recipes.py`, and `peak`. About: `counted`, JSON: of each the dense parameters and the MFLOP of a
row forward.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from itertools import cycle
from pathlib import Path

import torch
from ours_dcnv2 import stepper
from worker import Mode, serve

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE.parent / "backbones"))

from sizes import dense_parameters, mflop_forward  # noqa: E402
from worlds import SMALL  # noqa: E402

import fullrank  # noqa: E402
import recipes  # noqa: E402  # of the folder of the comparison
from fullrank.data.batch import Batch  # noqa: E402
from fullrank.data.inputs import Inputs  # noqa: E402
from fullrank.data.loader import Loader  # noqa: E402
from fullrank.diagnostics import Probe  # noqa: E402
from fullrank.kernels.pages import keep_freed_memory  # noqa: E402
from fullrank.rankers import Ranker  # noqa: E402
from fullrank.serving.scorer import Scorer  # noqa: E402
from fullrank.training.callbacks import StepReport  # noqa: E402
from fullrank.training.config import TrainConfig  # noqa: E402
from fullrank.training.objectives import ObjectiveConfig  # noqa: E402
from fullrank.training.optimizers import RankerOptimizer  # noqa: E402

EVERY = 200


def main() -> None:
    keep_freed_memory()  # as `train` does
    folder = Path(sys.argv[1])
    sizes = json.loads((folder / "sizes.json").read_text())
    torch.set_num_threads(sizes["threads"])
    data = SMALL.data(folder, folder)
    inputs = Inputs.of(data.schema, last_n=SMALL.last_n, exclude=SMALL.exclude)
    made = list(Loader(data, inputs, "train", batch_size=sizes["rows"]).epoch(0))
    made = [batch for batch in made if batch.num_rows == sizes["rows"]][:4]
    seen = next(iter(Loader(data, inputs, "test", batch_size=sizes["candidates"]).epoch(0)))
    one = next(iter(Loader(data, inputs, "test", batch_size=1).epoch(0))).requests
    few = next(iter(Loader(data, inputs, "test", batch_size=64).epoch(0)))
    report = StepReport(step=EVERY, epoch=0, rows=0, losses={}, loss=0.0, grad_norm=0.0, lr=0.0)
    many = replace(seen.candidates, request_of_row_B=torch.zeros(seen.num_rows, dtype=torch.int64))
    modes, counted = {}, {}
    suite = recipes.SUITES["small"]
    for name, config in {**suite.core(), **suite.peers()}.items():
        ranker = config.build(inputs, data.transform.num_rows, 0)
        asked = Batch(one, many)
        counted[name] = {"dense": dense_parameters(ranker), "train": mflop_forward(ranker, made[0])}
        counted[name]["score"] = mflop_forward(ranker, asked)
        scorer = Scorer(ranker)
        ranker.train()
        optimizer = RankerOptimizer(ranker, TrainConfig(batch_size=sizes["rows"], lr=1e-3))
        objective = ObjectiveConfig().build(inputs.tasks)
        modes[f"train {name}"] = Mode(stepper(ranker, optimizer, objective, cycle(made), False))

        def score(scorer: Scorer = scorer) -> None:
            scorer.score(scorer.encode(one), many)

        modes[f"score {name}"] = Mode(score)
        probe = Probe(few, every=EVERY)

        def probed(ranker: Ranker = ranker, probe: Probe = probe) -> None:
            probe.on_step(ranker, report)

        modes[f"probe {name}"] = Mode(probed)
    left, right = (torch.randn(sizes["peak"], sizes["peak"]) for _ in range(2))
    modes["peak"] = Mode(lambda: left @ right)
    serve(modes, fullrank=fullrank.__version__, counted=json.dumps(counted))


if __name__ == "__main__":
    main()
