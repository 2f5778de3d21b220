"""Rewriting a log: everything that was not yet available at some moment, or every row of some splits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa
from laws_logs import Memory, request_times, requests_of

from fullrank.schema import History, Schema


def rewritten_rows(source: Memory, rows: np.ndarray, seed: int, keep: Sequence[str], later: int = 0) -> pa.Table:
    """The log's table with new values in `rows` (bool) of every column but those in `keep`.

    A value is that of any other row, each column for itself (so an item comes with another item's attributes), and a
    quarter of the keys were never seen. Times move on by up to `later`. The lists of an inline history are those of a
    row that is no later, so that no event comes after its row.
    """
    random = np.random.default_rng(seed)
    table, schema, at, n = source.table, source.schema, np.flatnonzero(rows), source.table.num_rows
    time = np.array(table[schema.roles.time].to_pylist())
    taken = {column: random.integers(0, n, len(at)) for column in table.column_names}
    for feature in schema.features:
        if feature.weights in taken:
            taken[feature.weights] = taken[feature.column]  # one list
    for history in schema.histories:
        if history.layout == "inline":
            donors = [random.choice(np.flatnonzero(time <= time[row])) for row in at]
            taken |= {column: np.array(donors, dtype=np.int64) for column in list_columns(history)}
    for column in table.column_names:
        if column in keep:
            continue
        if column == schema.roles.time:
            moved = time.copy()
            moved[at] += random.integers(0, later + 1, len(at))
            table = _with(table, column, pa.array(moved))
            continue
        index = np.arange(n)
        index[at] = taken[column]
        values = table[column].combine_chunks().take(pa.array(index))
        table = _with(table, column, _with_new_keys(values, at[random.random(len(at)) < 0.25], column, schema))
    return table


def rewritten_after(source: Memory, row: int, seed: int) -> Memory:
    """Rewrite what was not available yet at the time of the request of `row`, but for that request's own inputs: later
    rows and events, and labels not known by then."""
    schema, roles = source.schema, source.schema.roles
    times = np.array(request_times(source))
    now = int(times[row])
    table = source.table
    unit = 1
    for task in schema.tasks:
        if task.label_time:
            table = _rewrite_late_labels(table, task.column, task.label_time, task.window * unit, roles.time, now, seed)
    own = times == now
    if roles.request:
        own &= np.array(table[roles.request].to_pylist()) == table[roles.request][row].as_py()
    else:
        own &= np.arange(len(times)) == row
    for history in schema.histories:
        if history.layout == "inline":
            table = _rewrite_lists(replace(source, table=table), history, times, seed)
    keep = [column for column in (roles.request, roles.impression) if column]
    table = rewritten_rows(replace(source, table=table), (times >= now) & ~own, seed, keep, later=50)
    events = {}
    for history in schema.histories:
        if history.name in source.events:
            file = source.events[history.name]
            assert isinstance(file, Memory)
            events[history.name] = _rewritten_events(file, history, now, seed)
    return replace(source, table=table, events=events)


def _rewrite_late_labels(
    table: pa.Table, column: str, label_time: str, window: int, time: str, now: int, seed: int
) -> pa.Table:
    """Labels that are not known before `now` become any label that is not known before `now`."""
    random = np.random.default_rng(seed)
    labels, dates, times = (table[name].to_pylist() for name in (column, label_time, time))
    for i, (label, date, when) in enumerate(zip(labels, dates, times, strict=True)):
        closes = when + window
        if (max(date, when) if label and date is not None else closes) < now:
            continue
        if random.random() < 0.5 or closes < now:
            labels[i], dates[i] = 1, now + int(random.integers(0, 1000))
        else:
            labels[i], dates[i] = 0, None
    table = _with(table, column, pa.array(labels, table[column].type))
    return _with(table, label_time, pa.array(dates, table[label_time].type))


def _rewrite_lists(source: Memory, history: History, times: np.ndarray, seed: int) -> pa.Table:
    """In the lists of every row: events not available to its request become others of their time, and outcomes that it
    does not know of become any that it does not know of. Rows of one request keep equal lists."""
    table, requests = source.table, requests_of(source)
    number = {request: place for place, request in enumerate(dict.fromkeys(requests))}
    lists = {column: table[column].to_pylist() for column in list_columns(history)}
    others = {column: [value for one in lists[column] for value in one or []] for column in lists}
    for row, now in enumerate(times.tolist()):
        random = np.random.default_rng([seed, number[requests[row]]])
        for place, time in enumerate(lists[history.time][row] or []):
            if time + history.lag >= now:
                for column in (history.item, *(f.column for f in history.features)):
                    lists[column][row][place] = others[column][random.integers(len(others[column]))]
            for outcome in history.outcomes:
                value, date = lists[outcome.column][row][place], lists[outcome.time][row][place]
                closes = time + outcome.window
                if (max(date, time) if value and date is not None else closes) + outcome.lag >= now:
                    positive = random.random() < 0.5 or closes + outcome.lag < now
                    lists[outcome.column][row][place] = int(positive)
                    lists[outcome.time][row][place] = now + int(random.integers(0, 99)) if positive else None
    for column, values in lists.items():
        table = _with(table, column, pa.array(values, table[column].type))
    return table


def _rewritten_events(file: Memory, history: History, now: int, seed: int) -> Memory:
    available = np.array(file.table[history.time].to_pylist()) + history.lag
    schema = replace(file.schema, roles=replace(file.schema.roles, time=history.time))
    table = rewritten_rows(replace(file, schema=schema), available >= now, seed, [], later=50)
    return replace(file, table=table)


def list_columns(history: History) -> list[str]:
    columns = [history.item, history.time, *(f.column for f in history.features)]
    return [c for c in (*columns, *(c for o in history.outcomes for c in (o.column, o.time))) if c]


def _with_new_keys(values: pa.Array, at: np.ndarray, column: str, schema: Schema) -> pa.Array:
    """Keys that no row had before, at the places `at` of a column of keys."""
    roles = schema.roles
    keys = {f.column for f in schema.features if f.kind == "categorical"} | {roles.user, roles.item}
    if column not in keys or not len(at):
        return values
    new = values.to_pylist()
    for place in at:
        new[place] = f"new {place}" if pa.types.is_string(values.type) else 100 + int(place) % 27
    return pa.array(new, values.type)


def _with(table: pa.Table, column: str, values: pa.Array) -> pa.Table:
    return table.set_column(table.column_names.index(column), column, values)
