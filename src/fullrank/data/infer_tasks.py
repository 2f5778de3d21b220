"""What a log lets a model predict: labels by name and value, their funnel, and the times of late ones."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass, field, replace

import numpy as np

from fullrank.data.infer_features import one_value_per_key
from fullrank.data.infer_names import is_click_name, is_graded_name, is_label_name, is_time_name
from fullrank.data.infer_sample import Column, Sample
from fullrank.schema import Task, TimeUnit

UNITS: tuple[TimeUnit, ...] = ("s", "ms", "us")
_HOUR, _DAY = 3_600, 86_400
_WINDOWS = (_HOUR, 6 * _HOUR, _DAY, 3 * _DAY, 7 * _DAY, 14 * _DAY, 30 * _DAY, 60 * _DAY, 90 * _DAY, 365 * _DAY)
_MOST_CLASSES = 100


@dataclass
class Found:
    """Tasks by name with their label columns, reasons by the path of a TOML comment, and the columns used."""

    tasks: dict[str, tuple[Task, Column]] = field(default_factory=dict)
    comments: dict[str, str] = field(default_factory=dict)
    columns: list[Column] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    units: dict[str, TimeUnit] = field(default_factory=dict)


def find(sample: Sample, taken: Collection[str], item: Column | None, time: Column | None, unit: TimeUnit) -> Found:
    """Every column that is named like a label and holds one. `taken` columns have a role already."""
    found = Found()
    free = [column for column in sample.columns if column.name not in taken]
    for column in free:
        if not is_label_name(column) or column.type == "empty":
            continue
        if is_graded_name(column) and item and one_value_per_key(column, item):
            continue  # a mean rating of the item: its attribute
        kind, reason, classes = _kind(column)
        if kind is None:
            found.left_out[column.name] = reason
            continue
        name = re.sub(r"[^\w-]+", "_", column.name).strip("-_")[:70] or "label"
        if name in found.tasks:
            name = f"{name}_{len(found.tasks)}"
        found.tasks[name] = (Task(name=name, kind=kind, column=column.name, classes=classes), column)  # pyright: ignore[reportArgumentType]  # a TaskKind
        found.comments[f"task.{name}"] = reason
        found.columns.append(column)
    _funnel(found)
    _label_times(found, free, time, unit)
    return found


def _kind(column: Column) -> tuple[str | None, str, int]:
    if column.is_binary:
        share = float(column.positive().mean())
        return "binary", f"0 or 1 in a column named like a label, 1 in {share:.2%} of the sample", 0
    if column.type not in ("integer", "number"):
        return None, f"named like a label, but of type {column.array.type} with {column.distinct:,} distinct values", 0
    if is_graded_name(column):
        low, high = column.numbers.min(), column.numbers.max()
        return "regression", f"numbers from {low:g} to {high:g} in a column named like a grade or an amount", 0
    if column.type == "number":
        return "regression", "numbers with fractions in a column named like a label", 0
    low, high = int(column.numbers.min()), int(column.numbers.max())
    if low >= 0 and high < _MOST_CLASSES and column.distinct > 2:
        return "multiclass", f"integers from {low} to {high} in a column named like a label", high + 1
    return None, f"named like a label, but integers from {low} to {high} are neither 0/1 nor classes 0, 1, 2, …", 0


def _funnel(found: Found) -> None:
    """A label whose positives (enough of them to believe it) are all positives of a click label follows the click."""
    clicks = [
        (task, column) for task, column in found.tasks.values() if is_click_name(column) and task.kind == "binary"
    ]
    if not clicks:
        return
    click, click_column = clicks[0]
    clicked = click_column.positive()
    for name, (task, column) in found.tasks.items():
        if task.kind != "binary" or task is click or clicked.mean() > 0.9:
            continue
        positive = column.positive()
        if positive.sum() >= 20 and not (positive & ~clicked).any():
            found.tasks[name] = (replace(task, parent=click.name), column)
            found.comments[f"task.{name}.parent"] = (
                f"every one of the {positive.sum():,} positives has {click.column} = 1"
            )


def unit_of_late(late: Column, there: np.ndarray, time: Column, unit: TimeUnit) -> TimeUnit | None:
    """The unit in which the times of `late` lie within a year after those of their rows: the log's own if it does."""
    for own in dict.fromkeys((unit, *UNITS)):
        delay = late.seconds(own)[there] - time.seconds(unit)[there]
        if delay.min() >= 0 and delay.max() <= _WINDOWS[-1]:
            return own
    return None


def _label_times(found: Found, free: list[Column], time: Column | None, unit: TimeUnit) -> None:
    """A column of times that is there exactly where a label is 1 says when the label came."""
    if time is None or unit == "position":
        return
    for late in free:
        partial = late.type in ("time", "integer") and 0 < late.array.null_count < late.rows
        if not partial or not is_time_name(late):
            continue
        there = late.array.is_valid().to_numpy(zero_copy_only=False)
        for name, (task, column) in found.tasks.items():
            if task.kind != "binary" or task.label_time or not np.array_equal(there, column.positive()):
                continue
            own = unit if late.type == "time" else unit_of_late(late, there, time, unit)
            delay = late.seconds(own or unit)[there] - time.seconds(unit)[there]
            if own is None:
                found.left_out[late.name] = (
                    f"there exactly where {task.column} = 1, but {delay.min():,.0f} to {delay.max():,.0f} s after the "
                    f"row's time: not in {unit!r} as the row's time is, nor in another unit?"
                )
                continue
            if own != unit:
                found.units[late.name] = own
            window = next(window for window in _WINDOWS if delay.max() <= window)
            found.tasks[name] = (replace(task, label_time=late.name, window=window), column)
            found.comments[f"task.{name}.label_time"] = f"a time exactly where {task.column} = 1"
            found.comments[f"task.{name}.window"] = (
                f"seconds until a missing {task.name} counts as 0: the latest in the sample came after "
                f"{delay.max():,.0f}"
            )
            found.columns.append(late)
            break
