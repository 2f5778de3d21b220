"""What every part of a schema is held against, and the error that says what was expected, what came and what to do."""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING, get_args

if TYPE_CHECKING:
    from fullrank.schema import Schema

# What every event (or the index of events by user) has of its own: no feature or outcome of an event is called so.
EVENT_COLUMNS = ("item", "time", "available", "age", "user", "start")


class SchemaError(ValueError):
    """The schema, or data held against it, is not what was expected."""


def did_you_mean(word: str, choices: Sequence[str]) -> str:
    """` Did you mean 'x'?` for the nearest choice, or an empty string when nothing is near."""
    near = get_close_matches(word, list(choices), n=1)
    return f" Did you mean {near[0]!r}?" if near else ""


def one_of(what: str, value: str, allowed: object) -> None:
    """`value` is one of the strings of the `Literal` type `allowed`."""
    choices = get_args(allowed)
    if value not in choices:
        expected = ", ".join(repr(choice) for choice in choices)
        raise SchemaError(f"Expected {what} to be one of {expected}, got {value!r}.{did_you_mean(value, choices)}")


def checked_name(what: str, name: str) -> None:
    """Names become parts of file names, of column names and of weights' names: no dots, slashes or signs in them."""
    if not re.fullmatch(r"\w[\w-]{0,79}", name):
        raise SchemaError(
            f"Expected the name of a {what} to be 1 to 80 letters, digits, '_' or '-' (not '-' first), got {name!r}. "
            "A column may be called anything: give it with `column`."
        )


def at_least(what: str, value: int, least: int) -> None:
    if value < least:
        raise SchemaError(f"Expected {what} >= {least}, got {value}.")


def once(what: str, names: Sequence[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise SchemaError(f"Expected every {what} name once, got {name!r} {names.count(name)} times.")


def check_features(schema: Schema) -> None:
    """Item features need an item, and no input reads what is to be predicted."""
    labels = {column: task.name for task in schema.tasks for column in (task.column, task.label_time) if column}
    for feature in schema.features:
        if feature.of == "item" and not schema.roles.item:
            raise SchemaError(f"Feature {feature.name!r} is of the item: it needs the role `item`, or of = 'pair'.")
        for column in (feature.column, feature.weights):
            if column in labels:
                raise SchemaError(
                    f"Feature {feature.name!r} reads column {column!r}, the label of task {labels[column]!r}: "
                    "what a row is to predict can't be its input."
                )


def check_time_columns(schema: Schema) -> None:
    """Units of their own have columns of times alone, beside a clock."""
    times = {schema.roles.time, *(task.label_time for task in schema.tasks), *(h.time for h in schema.histories)}
    times |= {outcome.time for history in schema.histories for outcome in history.outcomes}
    once("time column", [own.name for own in schema.time_columns])
    for own in schema.time_columns:
        if schema.time_unit == "position":
            raise SchemaError(f"Time column {own.name!r} has a unit, but time_unit is 'position': there is no clock.")
        if own.name not in times or not own.name:
            known = sorted(times - {""})
            near = did_you_mean(own.name, known)
            raise SchemaError(f"Expected time column {own.name!r} to be one of the columns of times {known}.{near}")


def check_funnel(schema: Schema) -> None:
    """Parents exist, are binary, and lead to a task without a parent."""
    tasks = {task.name: task for task in schema.tasks}
    for task in schema.tasks:
        if task.scenarios and not schema.roles.scenario:
            raise SchemaError(f"Task {task.name!r} names scenarios: it needs the role `scenario`.")
        steps, step = [task.name], task
        while step.parent:
            if step.parent not in tasks:
                near = did_you_mean(step.parent, list(tasks))
                raise SchemaError(f"Task {step.name!r} has parent {step.parent!r}; the tasks are {list(tasks)}.{near}")
            step = tasks[step.parent]
            if step.name in steps:
                raise SchemaError(f"Expected a funnel, got tasks that are their own parents: {steps}.")
            if step.kind != "binary":
                raise SchemaError(f"Task {steps[-1]!r} has parent {step.name!r}, which is {step.kind}, not binary.")
            steps.append(step.name)
