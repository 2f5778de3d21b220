"""One record batch of a log → typed columns, or one error that names file, column, row and value.

The only door for data: prepare, predict and serve all come through here, so behind it nothing is checked again.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from fullrank.data.columns import NEVER, Columns
from fullrank.data.keys import Keys, codes_of_array
from fullrank.data.normalise_cells import Origin, Reader
from fullrank.data.normalise_history import inline_events, record_events, row_events
from fullrank.data.normalise_keys import keys_of, multi, secret_of
from fullrank.data.normalise_time import ticks, times
from fullrank.data.normalise_values import (
    flags,
    known_at,
    label_values,
    numeric,
    probabilities,
    texts,
    vectors,
    weights,
)
from fullrank.data.normalised import Normalised, codes_of
from fullrank.schema import Feature, History, Schema, Task

__all__ = ["Normalised", "Origin", "normalise", "normalise_events"]


def normalise(
    schema: Schema,
    records: pa.RecordBatch,
    origin: Origin,
    *,
    hash_key: bytes | None = None,
    labels: bool = True,
) -> Normalised:
    """The columns that the schema names, checked and typed (see `Normalised`).

    `labels=False` (predict, serve) asks for what is known before the row is shown: label columns and the columns that
    logging adds (impression, position, weight, sample_rate, propensity, exploration, bid, price, rows as history
    events) may be absent; where they are there, they are read. `time_sorted` is checked within the batch. `hash_key`
    hides the user, request and impression keys. Raises `DataError`.
    """
    reader = Reader(records, origin)
    made = _Made(schema, reader, hash_key, labels)
    made.time()
    made.roles()
    for feature in schema.all_features():
        made.feature(feature)
    for task in schema.tasks:
        made.task(task)
    for history in schema.histories:
        made.history(history)
    return Normalised(reader.num_rows, made.columns, made.texts, made.keys)


def normalise_events(
    schema: Schema, history: History, records: pa.RecordBatch, origin: Origin, *, hash_key: bytes | None = None
) -> Normalised:
    """A batch of records of a by_user history's own file (`source = "file"`): `@user`, `item`, `time`, `available`,
    features, outcomes and `OUTCOME@known_at`, one entry per event, in the file's order. Raises `DataError`."""
    columns, keys = record_events(schema, history, Reader(records, origin), hash_key)
    return Normalised(records.num_rows, columns, {}, keys)


class _Made:
    """The columns made so far. Roles that share a column with a feature share its codes."""

    def __init__(self, schema: Schema, reader: Reader, hash_key: bytes | None, labels: bool):
        self.schema, self.reader, self.hash_key, self.labels = schema, reader, hash_key, labels
        self.columns: Columns = {}
        self.texts: dict[str, pa.Array] = {}
        self.keys: dict[str, Keys] = {}
        self.row_time: np.ndarray | None = None

    def wanted(self, column: str) -> bool:
        """Whether to read a column that only a log needs: always when there are labels, else if it is there."""
        return bool(column) and (self.labels or self.reader.has(column))

    def time(self) -> None:
        column = self.schema.roles.time or self.schema.roles.order
        if not column:
            return
        cells = self.reader.cells(column, "role time" if self.schema.roles.time else "role order")
        time = self.row_time = self.columns["@time"] = times(cells, self.schema.unit_of(column))
        if self.schema.time_sorted and len(time) > 1 and (back := np.diff(time) < 0).any():
            at = int(np.argmax(back))
            before = f"a time not before the row before ({cells.array[at].as_py()!r}), as time_sorted promises"
            raise cells.error(at + 1, before, "Sort the file by time, or set time_sorted = false.")

    def roles(self) -> None:
        roles = self.schema.roles
        for role in ("user", "request", "impression", "item", "scenario", "campaign", "advertiser"):
            column = getattr(roles, role)
            if self.wanted(column) if role == "impression" else column:
                secret = secret_of(self.schema, column, "", self.hash_key)
                keys = keys_of(self.reader.cells(column, f"role {role}"), secret)
                self.columns[f"@{role}"], self.keys[f"@{role}"] = keys.codes, keys
        cells = self.reader.cells
        for role in ("position", "bid", "price"):
            if self.wanted(column := getattr(roles, role)):
                self.columns[f"@{role}"] = numeric(cells(column, f"role {role}"))
        if self.wanted(roles.exploration):
            self.columns["@exploration"] = flags(cells(roles.exploration, "role exploration"))
        if self.wanted(roles.weight):
            self.columns["@weight"] = weights(cells(roles.weight, "role weight"))
        for role in ("sample_rate", "propensity"):
            if self.wanted(column := getattr(roles, role)):
                self.columns[f"@{role}"] = probabilities(cells(column, f"role {role}"))

    def feature(self, feature: Feature) -> None:
        name = feature.name
        use = f"feature {name!r}"
        role = next((r for r in ("user", "item") if name == r and getattr(self.schema.roles, r)), None)
        secret = secret_of(self.schema, feature.column, feature.key_space, self.hash_key)
        if role:
            self.columns[name], self.keys[name] = self.columns[f"@{role}"], self.keys[f"@{role}"]
        elif feature.kind == "categorical":
            self.keys[name] = keys_of(self.reader.cells(feature.column, use), secret)
            self.columns[name] = self.keys[name].codes
        elif feature.kind == "multi":
            columns, self.keys[name] = multi(self.reader, feature, secret)
            self.columns.update(columns)
        elif feature.kind == "numeric":
            self.columns[name] = numeric(self.reader.cells(feature.column, use))
        elif feature.kind == "vector":
            self.columns[name] = vectors(self.reader, feature)
        else:
            self.texts[name] = texts(self.reader.cells(feature.column, use))

    def task(self, task: Task) -> None:
        if not self.wanted(task.column):
            return
        unit = self.schema.time_unit
        values = label_values(self.reader.cells(task.column, f"label of task {task.name!r}"), task)
        own = None
        if task.label_time and self.wanted(task.label_time):
            cells = self.reader.cells(task.label_time, f"label_time of task {task.name!r}")
            own = times(cells, self.schema.unit_of(task.label_time), missing=True)
        when = known_at(values, self.row_time, own, window=ticks(task.window, unit))
        if task.scenarios and self.schema.roles.scenario:
            wanted = codes_of_array(pa.array(task.scenarios)).codes
            when = np.where(np.isin(codes_of(self.columns["@scenario"]), wanted), when, NEVER)
        self.columns[f"@label.{task.name}"] = np.where(when == NEVER, np.float32(0), values).astype(np.float32)
        self.columns[f"@known_at.{task.name}"] = when

    def history(self, history: History) -> None:
        if history.layout == "inline":
            made = inline_events(self.schema, history, self.reader, self.row_time, self.hash_key)
        elif history.source == "log" and self.labels:
            assert self.row_time is not None  # the schema demands a time of a by_user history
            made = row_events(self.schema, history, self.reader, self.row_time, self.hash_key)
        else:
            return
        columns, keys = made
        self.columns.update(columns)
        self.keys.update(keys)
