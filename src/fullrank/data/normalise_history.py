"""Histories of a log: the lists that rows carry (`inline`), and rows or records as events (`by_user`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from fullrank.data.columns import Columns, DataError, Ragged
from fullrank.data.keys import Keys
from fullrank.data.normalise_cells import Cells, Reader
from fullrank.data.normalise_keys import keys_of, secret_of
from fullrank.data.normalise_time import ticks, times
from fullrank.data.normalise_values import ALWAYS, equals_one, known_at, numeric, outcome_values, same_lengths
from fullrank.schema import History, Schema

NUMBER_OR_MISSING = "a finite number (null: not known)"


@dataclass(frozen=True)
class Events:
    """The columns of n events by their names in an event store, and the keys of those that hold codes."""

    columns: dict[str, np.ndarray]
    keys: dict[str, Keys]


def inline_events(
    schema: Schema, history: History, reader: Reader, row_time: np.ndarray | None, hash_key: bytes | None
) -> tuple[Columns, dict[str, Keys]]:
    """The lists of an inline history as columns `@history.NAME.…` of one set of offsets, oldest first.

    An event later than its row is an error, and so is a list that is not in the promised `order`. Without a column of
    times every event of a list is taken as past: time and available are the least int64.
    """
    use = f"history {history.name!r}"
    _, offsets = reader.lists(history.item, use)

    def cells(column: str) -> Cells:
        found, own = reader.lists(column, use)
        same_lengths(found, own, offsets, history.item)
        return found

    time = times(cells(history.time), schema.unit_of(history.time)) if history.time else None
    if time is not None:
        _check_order(cells(history.time), time, offsets, history)
        if row_time is not None:
            _check_not_after_row(cells(history.time), time, row_time, offsets)
    events = _event_columns(schema, history, cells, time, hash_key)
    if history.order == "newest_first":
        events = _reversed(events, offsets)
    prefix = f"@history.{history.name}."
    columns: Columns = {prefix + name: Ragged(values, offsets) for name, values in events.columns.items()}
    return columns, {prefix + name: keys for name, keys in events.keys.items()}


def row_events(
    schema: Schema, history: History, reader: Reader, row_time: np.ndarray, hash_key: bytes | None
) -> tuple[Columns, dict[str, Keys]]:
    """What every row of the log is as an event of a by_user history, and `where`: whether it is one at all."""
    use = f"history {history.name!r}"

    def cells(column: str) -> Cells:
        return reader.cells(column, use)

    time = times(cells(history.time), schema.unit_of(history.time)) if history.time else row_time
    events = _event_columns(schema, history, cells, time, hash_key)
    prefix = f"@history.{history.name}."
    columns: Columns = {prefix + name: values for name, values in events.columns.items()}
    is_event = np.ones(reader.num_rows, dtype=bool)
    if history.where:
        is_event = equals_one(cells(history.where))
    columns[f"{prefix}where"] = is_event
    return columns, {prefix + name: keys for name, keys in events.keys.items()}


def record_events(
    schema: Schema, history: History, reader: Reader, hash_key: bytes | None
) -> tuple[Columns, dict[str, Keys]]:
    """The records of a file of events: `@user` and the columns of an event store."""
    use = f"history {history.name!r}"

    def cells(column: str) -> Cells:
        return reader.cells(column, use)

    time_column = history.time or schema.roles.time or schema.roles.order
    users = keys_of(cells(history.user or schema.roles.user), hash_key)
    events = _event_columns(schema, history, cells, times(cells(time_column), schema.unit_of(time_column)), hash_key)
    return {"@user": users.codes, **events.columns}, {"@user": users, **events.keys}


def _event_columns(
    schema: Schema,
    history: History,
    cells: Callable[[str], Cells],
    time: np.ndarray | None,
    hash_key: bytes | None,
) -> Events:
    unit = schema.time_unit
    lag = ticks(history.lag, unit)
    item = history.item or schema.roles.item
    if not item:
        raise DataError(f"History {history.name!r} names no item column and the log has no role item: name one.")
    keys = {"item": keys_of(cells(item), secret_of(schema, item, history.key_space, hash_key))}
    columns = {"item": keys["item"].codes}
    n = len(columns["item"])
    columns["time"] = time if time is not None else np.full(n, ALWAYS)
    columns["available"] = columns["time"] + lag if lag and time is not None else columns["time"]
    for feature in history.features:
        if feature.kind == "numeric":
            columns[feature.name] = numeric(cells(feature.column))
        else:
            secret = secret_of(schema, feature.column, feature.key_space, hash_key)
            keys[feature.name] = keys_of(cells(feature.column), secret)
            columns[feature.name] = keys[feature.name].codes
    for outcome in history.outcomes:
        values = outcome_values(cells(outcome.column), NUMBER_OR_MISSING)
        own = times(cells(outcome.time), schema.unit_of(outcome.time), missing=True) if outcome.time else None
        columns[f"{outcome.name}@known_at"] = known_at(
            values, time, own, window=ticks(outcome.window, unit), lag=ticks(outcome.lag, unit)
        )
        columns[outcome.name] = np.nan_to_num(values, nan=0.0).astype(np.float32)
    return Events(columns, keys)


def _check_order(cells: Cells, time: np.ndarray, offsets: np.ndarray, history: History) -> None:
    step = np.diff(time)
    inside = np.ones(len(step), dtype=bool)
    starts = offsets[1:-1]
    inside[starts[(starts > 0) & (starts < len(time))] - 1] = False  # from one row's list to the next
    wrong = inside & (step < 0 if history.order == "oldest_first" else step > 0)
    if wrong.any():
        at = int(np.argmax(wrong))
        word = "earlier" if history.order == "oldest_first" else "later"
        expected = f"a time no {word} than the event before it in the list ({cells.array[at].as_py()!r})"
        todo = f"History {history.name!r} promises {history.order}: sort its lists, or correct `order` in the schema."
        raise cells.error(at + 1, expected, todo)


def _check_not_after_row(cells: Cells, time: np.ndarray, row_time: np.ndarray, offsets: np.ndarray) -> None:
    after = time > np.repeat(row_time, np.diff(offsets))
    if after.any():
        at = int(np.argmax(after))
        row = int(row_time[cells.row_of(at)])
        raise cells.error(
            at,
            f"no event after its row (the row's time is {row} in stored units, this event's {int(time[at])})",
            "A history that knows its row's future would leak it: cut the list at the row's time.",
        )


def _reversed(events: Events, offsets: np.ndarray) -> Events:
    """Every list back to front."""
    index = np.arange(len(events.columns["item"]))
    lengths = np.diff(offsets)
    index = np.repeat(offsets[:-1] + offsets[1:] - 1, lengths) - index
    columns = {name: values[index] for name, values in events.columns.items()}
    if events.columns["available"] is events.columns["time"]:
        columns["available"] = columns["time"]  # still one array
    return Events(columns, {name: Keys(columns[name], keys.entries) for name, keys in events.keys.items()})
