"""Smoke, no comparison: do the field-only backbones train on small samples of ads logs?

    FULLRANK_DATA=FOLDER python benchmarks/record.py backbones_smoke --threshold "finite; most AUCs over .5" -- \
        python benchmarks/backbones/smoke.py [--sets criteo avazu ipinyou talkingdata]

Each set is prepared as `fullrank prepare NAME` does, each recipe of `recipes.py` trains one epoch with one seed, and is
measured on test rows. The samples have some thousand rows of one part of a log: what they say of quality is chance, and
no recipe is to be chosen by it. A line of JSON a set and recipe; ends with 1 if a loss is not finite or most AUCs are
no better than chance.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fullrank.cli import main as fullrank
from fullrank.data.partitions import PreparedData
from fullrank.recipes.train import predict, train_ranker
from fullrank.training.config import TrainConfig
from recipes import OF_FIELDS, Suite

SETS = ("criteo", "avazu", "ipinyou", "talkingdata")


def lines(name: str, work: Path) -> Iterator[dict[str, Any]]:
    if fullrank(["prepare", name, "--out", str(work / name)]):
        raise RuntimeError(f"Expected `fullrank prepare {name}` to find the set, see above.")
    data = PreparedData.open(work / name)
    core = Suite().core()
    for recipe in OF_FIELDS:
        training = TrainConfig(batch_size=256, checkpoint_every_steps=None)
        made = train_ranker(core[recipe], data, work / f"{name}-{recipe}", training, seed=0)
        told = predict(made.run, made.ranker, data, "test")
        found = told.metrics(told.tasks[0])
        rows = {"train_rows": data.num_rows("train"), "test_rows": data.num_rows("test")}
        yield {
            "set": name,
            "recipe": recipe,
            "task": told.tasks[0],
            **rows,
            "auc": round(found.auc, 4),
            "log_loss": round(found.log_loss, 4),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=SETS)
    options = parser.parse_args()
    aucs, finite = [], True
    with tempfile.TemporaryDirectory() as work:
        for name in options.sets:
            for line in lines(name, Path(work)):
                finite &= math.isfinite(line["log_loss"])
                aucs.append(line["auc"])
                print(json.dumps(line), flush=True)
    sys.exit(int(not finite or sum(auc > 0.5 for auc in aucs) * 2 < len(aucs)))


if __name__ == "__main__":
    main()
