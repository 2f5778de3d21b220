"""A report as one page, for somebody who was not there."""

from __future__ import annotations

import json
import math
import shlex
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fullrank.config_json import decode
from fullrank.evaluation.bootstrap import Interval
from fullrank.evaluation.evaluate import Metrics, RegressionMetrics
from fullrank.evaluation.html_page import HtmlPage
from fullrank.evaluation.reliability import plot_reliability
from fullrank.evaluation.slice_metrics import LEAST_USERS, SliceTable
from fullrank.recipes.report import Report
from fullrank.recipes.report_plots import plot_days, plot_scores, reliability_of, two_panels
from fullrank.recipes.train import ranker_config
from fullrank.training.learning_curve import compute_learning_curve, plot_learning_curves
from fullrank.training.objectives import MultiTask, RequestPairwise, RequestSoftmax

DRIFTED = 0.25  # of the population stability index, by custom


def write_report(report: Report, path: Path) -> Path:
    """One HTML page that stands alone."""
    run = report.run
    page = HtmlPage(f"{run.record.type_tag} on {run.schema.name}")
    result = run.result()
    state = "finished" if result is not None else "not finished: measured with its newest checkpoint"
    page.text(
        f"A ranker trained by fullrank {run.record.fullrank}, in {run.path} ({state}), measured on the {report.split} "
        f"rows of {report.data}. {_fairness(report)} Intervals are 90 %, from resampling users."
    )
    _verdict(page, report)
    _data(page, report)
    _training(page, report)
    _probabilities(page, report)
    _slices(page, report)
    _again(page, report)
    return page.write(path)


def _fairness(report: Report) -> str:
    """What the rows it is measured on had to do with its training."""
    if report.split == "train":
        return "It learned from rows of this split, so it does better here than on rows it has not seen."
    training = report.run.record.train
    chosen = report.split == "valid" and (training.early_stop or training.schedule.metric)
    return "No row of that split was trained on" + (", but training went by how it did on them." if chosen else ".")


def _verdict(page: HtmlPage, report: Report) -> None:
    page.heading("How good is it?")
    whole = {table.task: table.rows[0] for table in report.slices if not table.by and table.rows}
    rows, numbers = [], []
    for task, metrics in report.tasks.items():
        if isinstance(metrics, RegressionMetrics):
            numbers.append([task, _count(metrics.rows), *map(_number, (metrics.mse, metrics.mae, metrics.r2))])
            continue
        if not metrics.rows:
            continue
        intervals = whole[task].intervals if task in whole else {}
        rows.append([task, report.run.record.type_tag, *_cells(metrics, intervals)])
        if task in report.popularity:
            rows.append([task, "popularity", *_cells(report.popularity[task], {})])
    if rows:
        page.text(
            "AUC: the chance that a random positive is ranked above a random negative; user AUC: the same among the "
            "rows of one user, weighted by rows. NE: log-loss over that of the constant rate; below 1 is better than "
            "knowing nothing. PCOC: predicted over observed positives; 1 is right. Popularity knows the item's own "
            "rate and nothing of who asks: what a ranker has to beat. Below a number: its interval."
        )
        page.table(["task", "model", "AUC", "user AUC", "NE", "PCOC", "rows", "positives"], rows, words=2)
    if numbers:
        page.table(["task", "rows", "MSE", "MAE", "R²"], numbers)
    unknown = [
        f"{task} ({'all' if not m.rows else f'{m.unknown:,}'} of {m.rows + m.unknown:,} rows)"
        for task, m in report.tasks.items()
        if m.unknown
    ]
    if unknown:
        page.text(f"Labels not known yet when data was last added count in nothing here: {', '.join(unknown)}.")


def _cells(metrics: Metrics, intervals: dict[str, Interval]) -> list[str]:
    def of(name: str, value: float, digits: int = 4) -> str:
        return f"{_number(value, digits)}{_interval(intervals.get(name), digits)}"

    return [
        of("auc", metrics.auc),
        of("user_auc", metrics.user_auc),
        _number(metrics.normalised_entropy),
        of("pcoc", metrics.pcoc, 3),
        _count(metrics.rows),
        _count(metrics.positives),
    ]


def _data(page: HtmlPage, report: Report) -> None:
    profile = report.profile
    page.heading("What it was trained on")
    page.table(
        ["split", "rows", "requests", "users", "items", "rows of new users", "rows of new items"],
        [
            [
                s.split,
                *map(_count, (s.rows, s.requests, s.users, s.items)),
                *map(_share, (s.new_user_rows, s.new_item_rows)),
            ]
            for s in profile.splits
        ],
    )
    page.text("New: with no training row. A request is one moment at which one or several ads were shown to a user.")
    page.table(
        ["split", "task", "labels known", "not yet known", "mean label"],
        [[la.split, la.task, _count(la.known), _count(la.unknown), _number(la.mean)] for la in profile.labels],
        words=2,
    )
    if len(profile.day_D) > 1:
        figure, axes = two_panels()
        binary = [task.name for task in report.run.schema.tasks if task.kind == "binary"]
        plot_days(profile, binary, *axes)
        right = " Right: the share of positives among the labels known." if binary else ""
        page.figure(figure, f"{'Left: rows' if binary else 'Rows'} a day, all splits (UTC).{right}")
    drifted = [f.name for f in profile.features if f.drift > DRIFTED]
    page.text(
        "Drift is the population stability index from training to test rows: below 0.1 a feature is about as it was, "
        f"above {DRIFTED} it has changed. "
        + (f"Changed here: {', '.join(drifted)}." if drifted else "None has changed that much here.")
    )
    page.table(
        ["feature", "kind", "of", "keys", "missing", "unknown", "drift"],
        [
            [
                *(f.name, f.kind, f.of, _count(f.values) if f.values else "–"),
                *(_share(f.missing), _share(f.unknown), _number(f.drift, 3)),
            ]
            for f in profile.features
        ],
        words=3,
        folded=f"All {len(profile.features)} features",
    )


def _training(page: HtmlPage, report: Report) -> None:
    run = report.run
    page.heading("How it was trained")
    result = run.result()
    if result is not None:
        page.text(
            f"{result.rows:,} rows in {result.step:,} steps, {result.epoch} epochs, {result.seconds:.0f} s; the last "
            f"step's training loss was {result.loss:.4f}."
        )
    task = next(iter(report.tasks))
    metric = "auc" if isinstance(report.tasks[task], Metrics) else "mse"
    curve = compute_learning_curve(run.path, task, metric)
    if len(curve.rows):
        figure, axes = two_panels()
        plot_learning_curves({report.run.record.type_tag: curve}, metric.upper(), axes)
        page.figure(
            figure,
            f"Left: training loss, summed over tasks. Right: validation {metric.upper()} of “{task}”; where it gets "
            "worse while the loss still falls, the model learns its training rows by heart.",
        )
    settings = [["ranker", run.record.type_tag], *_settings("ranker", ranker_config(run))]
    settings += _settings("training", run.record.train)
    objective = decode(MultiTask, run.record.objective, f"{run.path / 'run.json'}: objective")
    settings += [[f"objective.{term.task}", f"{term.weight:g} × {term.loss}"] for term in objective.terms]
    inputs = run.record.inputs
    named = [field.name for field in (*inputs.request, *inputs.candidate)]
    settings += [["fields", ", ".join(named)]]
    for history in inputs.histories:
        names = ", ".join(f.name for f in history.fields)
        settings += [[f"history {history.name}", f"newest {history.last_n}: {names}"]]
    page.table(["setting", "value"], settings, words=2, folded="All settings")


def _settings(where: str, config: Any) -> list[list[str]]:
    """A line a leaf of nested configs."""
    lines = []
    for f in fields(config):
        value, name = getattr(config, f.name), f"{where}.{f.name}"
        lines += _settings(name, value) if is_dataclass(value) else [[name, str(value)]]
    return lines


def _probabilities(page: HtmlPage, report: Report) -> None:
    binary = [task for task, metrics in report.tasks.items() if isinstance(metrics, Metrics) and metrics.positives]
    if not binary:
        return
    page.heading("Do its probabilities mean what they say?")
    terms = decode(MultiTask, report.run.record.objective).terms
    compared = [term.task for term in terms if isinstance(term.loss, RequestSoftmax | RequestPairwise)]
    if compared:
        page.text(
            f"Trained by comparing the rows of a request: what it gives for {', '.join(compared)} are scores. They "
            "order rows; log-loss, PCOC and the curves below mean something only after calibration."
        )
    for task in binary:
        figure, axes = two_panels()
        curves = {"as trained": reliability_of(report.predictions, task)}
        if report.after is not None:
            curves["calibrated"] = reliability_of(report.after, task)
        plot_reliability(curves, axes[0]).set_title(task, fontsize=10)
        plot_scores(report.predictions, task, axes[1])
        page.figure(
            figure,
            "Left: rows in bins of equal count; on the dashed line, of the rows predicted at 30 %, 30 % were positive. "
            "Below it the model promises too much. Right: what it predicted for positives and for negatives.",
        )
    if report.after is not None:
        lines = []
        for task in binary:
            for name, predictions in (("as trained", report.predictions), ("calibrated", report.after)):
                m = predictions.metrics(task)
                lines.append([task, name, _number(m.pcoc, 3), _number(m.ece), _number(m.log_loss)])
        page.table(["task", "probabilities", "PCOC", "ECE", "log-loss"], lines, words=2)
    else:
        page.text("This run has no correction saved: fullrank calibrate fits one on the validation rows.")


def _slices(page: HtmlPage, report: Report) -> None:
    page.heading("Where is it weak?")
    if report.weak:
        page.text(
            "Slices whose AUC is lower than that of all rows, or whose PCOC is further from 1, by more than chance "
            "explains: the whole interval is on the wrong side. Largest first, by difference and size. Among many "
            "slices some look weak by luck."
        )
        page.table(
            ["task", "slice", "metric", "value", "all rows", "rows", "users"],
            [
                [w.task, f"{w.by}: {w.slice}", w.metric.upper(), f"{_number(w.value.value)}{_interval(w.value)}",
                 _number(w.reference), _count(w.rows), _count(w.users)]
                for w in report.weak
            ],
            words=3,
        )  # fmt: skip
    else:
        page.text("No slice that was looked at is credibly worse than the whole.")
    for table in report.slices:
        if table.by:
            _slice_table(page, table)
    page.text(f"Slices with fewer than {LEAST_USERS} users (rows, where the log has none) are counted and not shown.")


def _slice_table(page: HtmlPage, table: SliceTable) -> None:
    rows = []
    for row in table.rows:
        if isinstance(row.metrics, Metrics):
            rows.append([row.slice, *_cells(row.metrics, row.intervals), _count(row.users)])
    hidden = f"; {table.hidden} hidden" if table.hidden else ""
    if rows:
        header = [table.by, "AUC", "user AUC", "NE", "PCOC", "rows", "positives", "users"]
        page.table(header, rows, folded=f"{table.task} by {table.by} ({len(rows)} slices{hidden})")


def _again(page: HtmlPage, report: Report) -> None:
    run = report.run
    page.heading("To repeat it")
    page.text(
        "The run's folder pins the version of its ids, its transforms and the rows it learned from. The same settings "
        "with other seeds, and this page again:"
    )
    page.code(
        shlex.join(["fullrank", "compare", "--data", report.data, "--recipes", str(run.path), "--seeds", "5"])
        + "\n"
        + shlex.join(["fullrank", "report", str(run.path), "--data", report.data, "--split", report.split])
    )
    made = json.loads((run.path / "environment.json").read_text(encoding="utf-8"))
    lines = [[name, str(value)] for name, value in made.items() if value is not None]
    lines += [["seed of weights", str(run.record.seed)], ["lineage", f"{run.record.lineage}"]]
    if run.record.data:
        lines += [["partitions", ", ".join(run.record.data.partitions)]]
    page.table(["made with", ""], lines, words=2, folded="Versions, machine, seeds")


def _number(value: float, digits: int = 4) -> str:
    return f"{value:.{digits}f}" if math.isfinite(value) else "–"


def _count(value: int) -> str:
    return f"{value:,}"


def _share(value: float) -> str:
    return f"{value:.1%}" if math.isfinite(value) else "–"


def _interval(interval: Interval | None, digits: int = 4) -> str:
    if interval is None or not np.isfinite(interval.low):
        return ""
    return f"\n{interval.low:.{digits}f}–{interval.high:.{digits}f}"
