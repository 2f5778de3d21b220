"""`fullrank evaluate RUN --data DIR`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Literal

import tyro

from fullrank.commands.arguments import SHOWN, OptionalPath, call, table, write_json, write_text
from fullrank.data.partitions import PreparedData
from fullrank.recipes.train import load_ranker, predict
from fullrank.training.run import Run


def main(args: Sequence[str], prog: str) -> int:
    return call(evaluate, args, prog)


def evaluate(
    run: tyro.conf.Positional[Path],
    data: Path,
    split: Literal["train", "valid", "test"] = "test",
    out: OptionalPath = None,
    json: OptionalPath = None,
) -> None:
    """The metrics of a run on a split: AUC, per-user AUC, log-loss (nats) and PCOC (mean prediction / mean label).

    Args:
        run: a run's folder.
        data: prepared data: what the run was trained on, or a later version of it.
        split: which rows.
        out: a folder to write the table to, as metrics.txt.
        json: where to write the metrics for programs: `run`, `data`, `split`, and `tasks`, which has for every task
            `rows`, `unknown`, `positives`, `auc`, `user_auc`, `users`, `users_skipped`, `log_loss` and `pcoc`.
    """
    opened = Run.open(run)
    predictions = predict(opened, load_ranker(opened), PreparedData.open(data), split, progress=split)
    metrics = {task: asdict(predictions.metrics(task)) for task in predictions.tasks}
    text = table(["task", *SHOWN], [[task, *(values[name] for name in SHOWN)] for task, values in metrics.items()])
    print(text)
    write_text(out, "metrics.txt", text)
    write_json(json, {"run": run, "data": data, "split": split, "tasks": metrics})
