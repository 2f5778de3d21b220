"""`fullrank calibrate RUN --data DIR`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import tyro

from fullrank.commands.arguments import OptionalPath, call, table, write_json, write_text
from fullrank.commands.evaluate import hidden_note
from fullrank.data.partitions import PreparedData
from fullrank.evaluation.calibration import Method
from fullrank.evaluation.evaluate import Metrics
from fullrank.evaluation.slice_metrics import slice_metrics
from fullrank.evaluation.slices import slice_column
from fullrank.recipes.calibrate import FILE, calibrated, fit_calibration
from fullrank.recipes.evaluate_run import every_row, slice_source
from fullrank.recipes.train import load_ranker, predict
from fullrank.training.run import Run

SHOWN = ("pcoc", "ece", "log_loss")


def main(args: Sequence[str], prog: str) -> int:
    return call(calibrate, args, prog)


def calibrate(
    run: tyro.conf.Positional[Path],
    data: Path,
    method: Method = "platt",
    by: str = "",
    out: OptionalPath = None,
    json: OptionalPath = None,
) -> None:
    """Fit probabilities that mean what they say on the valid rows, save them as RUN/calibration.json, and show PCOC,
    ECE and log-loss (nats) on the test rows, before and after.

    Args:
        run: a run's folder; `fullrank evaluate RUN --calibrated` uses what is saved there.
        data: prepared data: what the run was trained on, or a later version of it.
        method: platt is two numbers a task; isotonic a free ascending line, for many thousands of positives.
        by: a column with a correction for each of its values: a role, a categorical or numeric feature.
        out: a folder to write the table to, as calibration.txt.
        json: where to write it for programs: `run`, `data`, `calibration`, and `test`, a list with `task`, `by`,
            `slice`, `rows`, `users`, and `before` and `after`: the metrics of `evaluate`.
    """
    opened, prepared = Run.open(run), PreparedData.open(data)
    ranker = load_ranker(opened)
    valid = predict(opened, ranker, prepared, "valid", progress="valid")
    calibration = fit_calibration(opened, valid, slice_source(opened, prepared, "valid"), method=method, by=by)
    source = slice_source(opened, prepared, "test")
    before = predict(opened, ranker, prepared, "test", progress="test")
    after = calibrated(opened, before, source)
    cuts = [every_row(before)]
    if calibration.cut:
        cuts.append((calibration.cut, calibration.cut.slice_of(slice_column(source, by))))
    fitted = [each.task for each in calibration.tasks]
    lines, told, hidden = [], [], 0
    for task in fitted:
        for cut, slice_N in cuts:
            one, other = (slice_metrics(each, task, cut, slice_N, None) for each in (before, after))
            hidden += one.hidden
            for was, now in zip(one.rows, other.rows, strict=True):
                assert isinstance(was.metrics, Metrics) and isinstance(now.metrics, Metrics)
                pairs = [getattr(each.metrics, name) for name in SHOWN for each in (was, now)]
                lines.append([task, was.slice, was.metrics.rows, *pairs])
                told.append(
                    {"task": task, "by": cut.by, "slice": was.slice, "rows": was.metrics.rows, "users": was.users}
                    | {"before": asdict(was.metrics), "after": asdict(now.metrics)}
                )
    header = ["task", by or "slice", "rows", *(f"{name}{end}" for name in SHOWN for end in ("", " →"))]
    text = table(header, lines, words=2)
    for each in calibration.tasks:
        print(f"{run / FILE}: {each.task} by {method}, fitted on {each.rows:,} valid rows, {each.positives:,} positive")
    for task in valid.tasks:
        if task not in fitted and valid.kind(task) == "binary":
            print(f"{task}: left as it is, for its valid rows do not hold known labels of both kinds")
    print(text + hidden_note(hidden))
    write_text(out, "calibration.txt", text + hidden_note(hidden))
    write_json(json, {"run": run, "data": data, "calibration": asdict(calibration), "test": told})
