"""Fit a run's calibration on the validation rows, keep it beside the weights, and apply it."""

from __future__ import annotations

import numpy as np

from fullrank.config_json import dumps, loads
from fullrank.evaluation.calibration import Calibration, Method, fit_task
from fullrank.evaluation.evaluate import Predictions
from fullrank.evaluation.slices import SliceSource, cut_rows, slice_column
from fullrank.training.run import Run, RunError

FILE = "calibration.json"
MOST_SLICES = 1000  # a column with more values keeps those with most rows; the rest go by the curve alone (our choice)


def fit_calibration(
    run: Run, predictions: Predictions, source: SliceSource, *, method: Method = "platt", by: str = ""
) -> Calibration:
    """Fit every binary task on the run's `predictions` of `source`'s split and write RUN/calibration.json.

    A task without a positive or a negative there (its windows are still open) is left out: its logits stay as they
    are. Where that is every task it is an error.

    `by`: a column that cuts the rows into slices with a correction each; see `evaluation.slices`. Take one that says
    where the rows come from (a scenario, a slot, a device): days do not come again.
    """
    if by == "day":
        raise ValueError("Expected a column whose values come again, got 'day': no later row is of a day seen before.")
    binary = [task for task in predictions.tasks if predictions.kind(task) == "binary"]
    if not binary:
        raise ValueError(f"Expected a binary task to calibrate, got {list(predictions.tasks)} of other kinds.")
    usable = [task for task in binary if _has_both_classes(predictions, task)]
    cut, slice_N = cut_rows(source, by, top=MOST_SLICES) if by else (None, None)
    num_slices = len(cut.names) if cut else 0
    calibration = Calibration(
        step=run.weights().position.step,
        split=source.split,
        data=source.data.state,
        cut=cut,
        tasks=tuple(fit_task(predictions, task, method, num_slices, slice_N) for task in usable or binary),
    )
    draft = run.path / f".{FILE}"
    draft.write_text(dumps(calibration), encoding="utf-8")
    draft.replace(run.path / FILE)
    return calibration


def load_calibration(run: Run) -> Calibration:
    """The saved calibration; one of other weights than those `load_ranker` gives is an error."""
    file = run.path / FILE
    if not file.exists():
        raise RunError(f"{run.path} has no {FILE} yet: `fullrank calibrate {run.path} --data DIR` makes it.")
    calibration = loads(Calibration, file.read_text(encoding="utf-8"), str(file))
    step = run.weights().position.step
    if calibration.step != step:
        raise RunError(
            f"Expected {file} to belong to the weights of step {step}, it is of step {calibration.step}: "
            "the run went on since. Calibrate it again."
        )
    return calibration


def calibrated(run: Run, predictions: Predictions, source: SliceSource) -> Predictions:
    """The run's `predictions` of `source`'s split after its saved calibration."""
    calibration = load_calibration(run)
    slice_N = calibration.cut.slice_of(slice_column(source, calibration.cut.by)) if calibration.cut else None
    return calibration.calibrated(predictions, slice_N)


def _has_both_classes(predictions: Predictions, task: str) -> bool:
    column = predictions.column(task)
    return len(np.unique(predictions.labels_NK[predictions.known_NK[:, column], column])) > 1
