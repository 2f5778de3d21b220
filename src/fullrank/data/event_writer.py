"""Encoded events → the flat columns of an event store, at places decided before (`by_user`) or in turn (`inline`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from fullrank.data import flat
from fullrank.data.columns import Ragged, span_positions
from fullrank.data.history import HistorySource
from fullrank.schema import History, Schema

Outcomes = Callable[[dict[str, np.ndarray]], None]  # corrects outcome columns of events in place


def event_dtypes(schema: Schema, history: History) -> dict[str, type]:
    """The columns of an event store and their types (docs/architecture.md, section 3)."""
    dtypes: dict[str, type] = {"item": np.int32, "time": np.int64, "available": np.int64}
    dtypes |= {code: np.uint64 for code, _ in code_columns(schema, history).values()}
    for feature in history.features:
        dtypes[feature.name] = np.int32 if feature.kind == "categorical" else np.float32
    for outcome in history.outcomes:
        dtypes[outcome.name] = np.float32
        dtypes[f"{outcome.name}@known_at"] = np.int64
    if of_the_log(history):
        dtypes.update({f"item.{name}": np.int32 for name in kept_attributes(schema, history)})
        if schema.roles.impression:
            dtypes["@impression"] = np.uint64
    return dtypes


def code_columns(schema: Schema, history: History) -> dict[str, tuple[str, str]]:
    """What an event store keeps codes of: column of ids → (column of codes, key space).

    An id is what its key had when the event was written; a key may get one later, and several may share a bucket. So
    the item's code is in every store. Other columns need one only where ids change (growing key spaces) and events are
    carried over (by_user): 8 bytes an event on disk, which no batch reads.
    """
    found = {"item": ("@item", history.key_space)}
    if history.layout != "by_user":
        return found
    spaces = {feature.name: feature.key_space for feature in history.features if feature.key_space}
    if of_the_log(history):
        spaces |= {f"item.{name}": schema.feature(name).key_space for name in kept_attributes(schema, history)}
    growing = {name: space for name, space in spaces.items() if schema.key_space(space).policy == "growing"}
    return found | {name: (f"{name}@code", space) for name, space in growing.items()}


def of_the_log(history: History) -> bool:
    """Whether the log's own rows are the events."""
    return history.layout == "by_user" and history.source == "log"


def kept_attributes(schema: Schema, history: History) -> list[str]:
    """Item attributes that an event keeps as they were at its time."""
    if history.key_space != "item":
        return []
    mutable = [f for f in schema.features if f.of == "item" and f.mutable and f.kind == "categorical"]
    return [f.name for f in mutable if schema.key_space(f.key_space).hashes == 1]


class PlacedEvents:
    """A by_user store whose size is known: events are put at their places, in any order."""

    def __init__(self, folder: Path, dtypes: Mapping[str, type], num_events: int):
        folder.mkdir(parents=True, exist_ok=True)
        self._columns = {
            name: flat.create(folder / f"{name}.npy", dtype, num_events) for name, dtype in dtypes.items()
        }

    def put(self, dest: np.ndarray, columns: Mapping[str, np.ndarray]) -> None:
        """Event i of `columns` to place `dest[i]`; -1 leaves it out."""
        chosen = dest >= 0
        for name, column in self._columns.items():
            column[dest[chosen]] = columns[name][chosen]

    def carry(
        self,
        carried: np.ndarray,
        prior: Mapping[int, HistorySource],
        encode_again: Callable[[dict[str, np.ndarray]], None],
        correct: Outcomes | None = None,
    ) -> None:
        """Copy events of earlier partitions (see `by_user.CARRIED`), in ids of this version (`encode_again`, in place),
        with what `correct` knows of them by now."""
        for piece in flat.pieces(len(carried)):
            records = carried[piece]
            for partition in np.unique(records["partition"]):
                mine = records[records["partition"] == partition]
                source = prior[int(partition)]
                columns = {name: np.asarray(source.columns[name][mine["place"]]) for name in self._columns}
                encode_again(columns)
                if correct is not None:
                    correct(columns)
                self.put(mine["dest"], columns)


class InlineEvents:
    """An inline store: the lists of one request after another."""

    def __init__(self, folder: Path, dtypes: Mapping[str, type], max_length: int):
        folder.mkdir(parents=True, exist_ok=True)
        self._max_length = max_length
        self._writers = {
            name: flat.FlatWriter(folder / f"{name}.npy", dtype) for name, dtype in dtypes.items()
        }
        self.num_events = 0

    def add(self, columns: Mapping[str, Ragged]) -> tuple[np.ndarray, np.ndarray]:
        """The newest `max_length` events of each request's list; returns `end` and `length` of each request."""
        item = columns["item"]
        length = np.minimum(np.diff(item.offsets), self._max_length)
        positions, offsets = span_positions(item.offsets[1:] - length, item.offsets[1:])
        for name, writer in self._writers.items():
            writer.append(columns[name].values[positions])
        end = offsets[1:] + self.num_events
        self.num_events += len(positions)
        return end, length.astype(np.int32)

    def close(self) -> None:
        for writer in self._writers.values():
            writer.close()
