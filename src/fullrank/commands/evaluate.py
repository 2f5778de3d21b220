"""`fullrank evaluate RUN --data DIR`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import tyro

from fullrank.commands.arguments import SHOWN, OptionalPath, call, table, write_json, write_text
from fullrank.data.partitions import PreparedData
from fullrank.evaluation.bootstrap import BootstrapConfig
from fullrank.evaluation.evaluate import Metrics, RegressionMetrics
from fullrank.evaluation.ranking import RankingMetrics
from fullrank.evaluation.slice_metrics import LEAST_USERS, SliceRow, SliceTable
from fullrank.recipes.evaluate_run import evaluate_run
from fullrank.recipes.tables_change import TablesChange, tables_change
from fullrank.training.run import Run

SHOWN_REGRESSION = ("rows", "mse", "mae", "r2")


def main(args: Sequence[str], prog: str) -> int:
    return call(evaluate, args, prog)


def evaluate(
    run: tyro.conf.Positional[Path],
    data: Path,
    split: Literal["train", "valid", "test"] = "test",
    by: tuple[str, ...] = (),
    calibrated: bool = False,
    tables: tuple[Literal["bfloat16", "int8"], ...] = (),
    replicates: int = 200,
    out: OptionalPath = None,
    json: OptionalPath = None,
) -> None:
    """The metrics of a run on a split: AUC, per-user AUC, log-loss (nats) and PCOC (mean prediction / mean label); of
    regression tasks MSE, MAE and R².

    Args:
        run: a run's folder.
        data: prepared data: what the run was trained on, or a later version of it.
        split: which rows.
        by: also by slice, with 90 % intervals over users: day, cold_user, cold_item, history.NAME (how many past
            events), a role such as scenario or position, any categorical or numeric feature.
        calibrated: after the run's calibration (`fullrank calibrate`).
        tables: bfloat16, int8 or both: also what serving with tables kept so changes: their bytes, AUC and log-loss
            (MSE and MAE), and the largest change of a logit.
        replicates: how often the intervals draw the users anew.
        out: a folder to write the tables to, as metrics.txt.
        json: where to write the metrics for programs: `run`, `data`, `split`, and `tasks`, which has for every task
            `rows`, `unknown`, `positives`, `auc`, `user_auc`, `users`, `users_skipped`, `log_loss`,
            `normalised_entropy`, `pcoc`, `ece` and `brier` (a regression task: `rows`, `unknown`, `mse`, `mae`, `r2`).
            Where requests have several rows also `ranking`: `groups` (requests with a positive), `skipped`, and
            `ndcg`, `hit_rate`, `recall`, `precision` and `mrr`, each by k.
            With --by also `slices`: a list of tables with `by`, `task`, `hidden`, `hidden_rows` and `rows`, each with
            `slice`, `users`, `metrics` and `intervals` (`value`, `low`, `high`). With --calibrated also `calibrated`.
            With --tables also `tables`: a list of `tables`, `table_bytes`, `task`, `metrics`, `change` (of `auc` or
            `mse`) and `largest_logit_change`, float32 first.
    """
    if tables and calibrated:
        raise ValueError("Expected either --tables or --calibrated: what tables change is measured on the logits.")
    bootstrap = BootstrapConfig(replicates=replicates)
    opened, prepared = Run.open(run), PreparedData.open(data)
    found = evaluate_run(
        opened,
        prepared,
        split,
        by=by,
        use_calibration=calibrated,
        bootstrap=bootstrap,
        progress=split,
    )
    changes = tables_change(opened, prepared, split, found.predictions, tables, progress=True)
    shown = [*_tables(found.tasks), *_ranking_table(found.ranking), *map(_slice_table, found.slices)]
    text = "\n\n".join([*shown, *_changes_tables(changes)])
    print(text)
    write_text(out, "metrics.txt", text)
    tasks: dict[str, Any] = {task: asdict(metrics) for task, metrics in found.tasks.items()}
    for task, metrics in found.ranking.items():
        tasks[task]["ranking"] = asdict(metrics)
    told: dict[str, Any] = {"run": run, "data": data, "split": split, "tasks": tasks}
    told |= {"calibrated": True} if calibrated else {}
    told |= {"tables": [asdict(each) for each in changes]} if tables else {}
    told |= {"slices": [asdict(each) for each in found.slices]} if by else {}
    write_json(json, told)


def _tables(tasks: Mapping[str, Metrics | RegressionMetrics]) -> list[str]:
    """One table of the binary tasks, one of the others."""
    tables = []
    for kind, shown in ((Metrics, SHOWN), (RegressionMetrics, SHOWN_REGRESSION)):
        lines = [
            [task, *(getattr(metrics, name) for name in shown)]
            for task, metrics in tasks.items()
            if isinstance(metrics, kind)
        ]
        if lines:
            tables.append(table(["task", *shown], lines))
    return tables


def _ranking_table(ranking: Mapping[str, RankingMetrics]) -> list[str]:
    lines = [
        [task, of.groups, of.ndcg[1], of.ndcg[5], of.ndcg[10], of.hit_rate[1], of.hit_rate[5], of.mrr[10]]
        for task, of in ranking.items()
    ]
    header = ["within requests", "requests", "ndcg@1", "ndcg@5", "ndcg@10", "hit@1", "hit@5", "mrr@10"]
    return [table(header, lines)] if lines else []


def _changes_tables(changes: Sequence[TablesChange]) -> list[str]:
    """What compact tables change, a table of the binary tasks and one of the others."""
    tables = []
    for kind, first, second in ((Metrics, "auc", "log_loss"), (RegressionMetrics, "mse", "mae")):
        lines = []
        for each in changes:
            if isinstance(each.metrics, kind):
                metrics = [getattr(each.metrics, name) for name in (first, second)]
                moved = [f"{each.change:+.1e}", f"{each.largest_logit_change:.1e}"]
                lines.append([each.task, each.tables, f"{each.table_bytes:,}", *metrics, *moved])
        if lines:
            header = ["task", "tables", "bytes", first, second, f"{first} change", "largest logit change"]
            tables.append(table(header, lines, words=2))
    return tables


def _slice_table(found: SliceTable) -> str:
    lines = []
    names = ("auc", "user_auc", "log_loss", "pcoc")
    for row in found.rows:
        if isinstance(row.metrics, RegressionMetrics):
            names = ("mse", "mae")
        measured = [cell for name in names for cell in _with_interval(row, name)]
        lines.append([row.slice, row.metrics.rows, row.users, *measured])
    header = [found.by or found.task, "rows", "users", *(cell for name in names for cell in (name, "90 %"))]
    title = f"{found.task} by {found.by}\n" if found.by else ""
    if not lines:
        return f"{title or found.task + ': '}no label known{hidden_note(found.hidden)}"
    return title + table(header, lines) + hidden_note(found.hidden)


def _with_interval(row: SliceRow, name: str) -> tuple[float, str]:
    interval = row.intervals[name]
    defined = interval.low == interval.low
    return interval.value, f"{interval.low:.4f}–{interval.high:.4f}" if defined else "–"


def hidden_note(hidden: int) -> str:
    """A line on what a table leaves out; empty if that is nothing."""
    slices = "1 slice of" if hidden == 1 else f"{hidden} slices of"
    return f"\n({slices} fewer than {LEAST_USERS} users (rows, where the log has none) not shown)" if hidden else ""
