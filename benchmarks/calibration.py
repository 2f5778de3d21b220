"""Does calibration by slice put the expected number of clicks right? On the simulator, whose probabilities are known.

    python benchmarks/calibration.py [--rows 4000000] [--seeds 5]

A ranker that is not told the device or the slot is trained on a fifth of the users; calibrated by each of those columns
on three fifths; and on the last fifth each slice's sum of predictions is held against the sum of the true
probabilities (not of drawn clicks: their chance would hide the calibration's error). Prints a line of JSON a seed,
column and slice: `pcoc` before and after. Good: after, no slice is further than 1 % from 1.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from fullrank.data.partitions import PreparedData
from fullrank.data.prepare import prepare
from fullrank.data.simulate import SimulatedLog, SimulatorConfig
from fullrank.data.splits import ByHash
from fullrank.evaluation.binary import sigmoid
from fullrank.evaluation.row_columns import row_columns
from fullrank.evaluation.slices import slice_column
from fullrank.rankers import DCNv2
from fullrank.rankers.field_front import EmbeddingConfig
from fullrank.recipes.calibrate import calibrated, fit_calibration
from fullrank.recipes.evaluate_run import slice_source
from fullrank.recipes.train import predict, train_ranker
from fullrank.schema import Task
from fullrank.training.config import TrainConfig

TRUE = "p_click"  # a column of the simulator's log; as a task's label it lies beside the rows, and no model sees it
COLUMNS = ("device", "slot")
WITHIN = 0.01


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=4_000_000)
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    failed = False
    ranker = DCNv2.Config(embedding=EmbeddingConfig(width=8), num_cross_layers=1, hidden=(32,))
    for seed in range(options.seeds):
        log = SimulatedLog(SimulatorConfig(rows=options.rows, users=options.rows // 20, days=7, seed=seed))
        log.schema = replace(log.schema, histories=(), tasks=(Task(name="click"), Task(name=TRUE, kind="regression")))
        with tempfile.TemporaryDirectory() as folder:
            prepare(log, Path(folder) / "data", split=ByHash(key="user", valid=0.6, test=0.2))
            data = PreparedData.open(Path(folder) / "data")
            training = TrainConfig(batch_size=4096, checkpoint_every_steps=None, seed=seed)
            exclude = (*COLUMNS, TRUE, "user")
            trained = train_ranker(ranker, data, Path(folder) / "run", training, seed=seed, exclude=exclude)
            trained.ranker.eval()
            before = {split: predict(trained.run, trained.ranker, data, split) for split in ("valid", "test")}
            for column in COLUMNS:
                fit_calibration(
                    trained.run, before["valid"], slice_source(trained.run, data, "valid"), method="isotonic", by=column
                )
                source = slice_source(trained.run, data, "test")
                after = calibrated(trained.run, before["test"], source)
                truth = row_columns(data, "test", [f"@label.{TRUE}"])[f"@label.{TRUE}"]
                slices = slice_column(source, column)
                for value in np.unique(slices):
                    rows = slices == value
                    expected = truth[rows].sum(dtype=np.float64)
                    was, now = (sigmoid(p.logits_NK[rows, 0]).sum() / expected for p in (before["test"], after))
                    failed |= bool(abs(now - 1.0) > WITHIN)
                    line = {"seed": seed, "by": column, "slice": int(value), "rows": int(rows.sum())}
                    print(json.dumps(line | {"pcoc": round(was, 4), "calibrated": round(now, 4)}), flush=True)
    sys.exit(failed)


if __name__ == "__main__":
    main()
