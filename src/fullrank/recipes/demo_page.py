"""What the demo found, as cells of a table, keys for programs and one HTML page."""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fullrank.evaluation.html_page import HtmlPage
from fullrank.evaluation.reliability import plot_reliability
from fullrank.recipes.demo import DemoResult
from fullrank.recipes.report_plots import reliability_of, two_panels
from fullrank.training.learning_curve import compute_learning_curve, plot_learning_curves

HEADER = ("slice", "task", "model", "AUC", "user AUC", "log-loss", "PCOC", "rows")


def table_cells(result: DemoResult) -> list[list[str]]:
    """One line a slice, task and model; an undefined number is a dash."""
    lines = []
    for slice_ in dict.fromkeys(row.slice for row in result.table):
        for task in dict.fromkeys(row.task for row in result.table):
            for row in result.table:
                if (row.slice, row.task) == (slice_, task):
                    m = row.metrics
                    numbers = [_number(value, 4) for value in (m.auc, m.user_auc, m.log_loss)]
                    lines.append([slice_, task, row.model, *numbers, _number(m.pcoc, 3), f"{m.rows:,}"])
    return lines


def _number(value: float, digits: int) -> str:
    return f"{value:.{digits}f}" if math.isfinite(value) else "–"


def as_json(result: DemoResult, page: Path) -> dict[str, Any]:
    """The documented keys of `--json` (docs/cli.md): data, results, recommendations, runs, page, seconds."""
    return {
        "data": {
            "name": result.data,
            "real": result.real,
            "note": result.note,
            "rows": result.rows,
            "users": result.users,
            "items": result.items,
        },
        "results": [
            {"slice": row.slice, "model": row.model, "task": row.task} | asdict(row.metrics) for row in result.table
        ],
        "recommendations": [asdict(item) for item in result.recommendations.items],
        "runs": {name: str(trained.run.path) for name, trained in result.runs.items()},
        "page": str(page),
        "seconds": result.seconds,
    }


def write_page(result: DemoResult, path: Path) -> Path:
    """One HTML page that stands alone."""
    page = HtmlPage(f"fullrank demo: {result.data}")
    what = "Logged by people." if result.real else "Simulated: no real person is in these rows."
    page.text(
        f"{result.note}. {what} {result.rows['train']:,} training, {result.rows['valid']:,} validation and "
        f"{result.rows['test']:,} test rows; {result.users:,} users and {result.items:,} items in training."
    )
    page.heading("How well each model ranks the test rows")
    page.text(
        "AUC: the chance that a random positive is ranked above a random negative (user AUC: the same within one user, "
        "weighted by impressions). Log-loss: lower is better. PCOC: predicted over observed positives; 1 is right. "
        "One seed: differences of a few thousandths of AUC are noise."
    )
    page.table(list(HEADER), table_cells(result), words=3)
    tasks = result.predictions["popularity"].tasks
    figure, axes = two_panels()
    curves = {name: compute_learning_curve(trained.run.path, tasks[0]) for name, trained in result.runs.items()}
    plot_learning_curves(curves, "AUC", axes)
    page.heading("How they learned")
    page.figure(
        figure,
        f"Left: training loss, summed over tasks. Right: validation AUC of “{tasks[0]}” after every epoch; where it "
        "falls while the loss still does, the model learns its training rows by heart.",
    )
    figure, axes = two_panels()
    for ax, task in zip(axes, tasks, strict=False):
        curves = {name: reliability_of(predicted, task) for name, predicted in result.predictions.items()}
        plot_reliability(curves, ax).set_title(task, fontsize=10)
    page.heading("Does a predicted probability mean what it says?")
    page.figure(
        figure,
        "Test rows in bins of equal count. On the dashed line, of the rows predicted at 30 %, 30 % were positive; "
        "below it the model promises too much.",
    )
    found = result.recommendations
    page.heading(f"Three recommendations for user {result.user}")
    page.text(f"The catalogue scored by RankMixer, less what is among the user's {found.events} past events.")
    lines = [
        [item.text or item.key, *(f"{item.probability[task]:.1%}" for task in tasks)] for item in found.items
    ]
    page.table(["item", *tasks], lines)
    page.heading("Again, and further")
    page.code("\n".join(next_commands(result)))
    return page.write(path)


def next_commands(result: DemoResult) -> list[str]:
    """What to type next."""
    run = next(iter(result.runs.values())).run.path
    data = run.parent.parent / "data-per-user"
    return [
        f"fullrank recommend {run} --data {data} --user {result.user}",
        f"fullrank report {run} --data {data}",
        f"fullrank train rankmixer --data {data} --out runs/mine",
        "fullrank schema infer LOG.parquet --out schema.toml",
        "fullrank prepare LOG.parquet --schema schema.toml --out data/mine",
    ]
