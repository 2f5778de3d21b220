"""Third stage of preparing: what is fitted, from the training rows alone (the item table apart: see there)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from fullrank.data import flat
from fullrank.data.columns import Ragged
from fullrank.data.event_writer import of_the_log
from fullrank.data.id_map import IdMap
from fullrank.data.item_table import ItemTable, ItemTableBuilder
from fullrank.data.key_counter import KeyCounter
from fullrank.data.keys import Keys
from fullrank.data.normalised import Normalised, codes_of
from fullrank.data.scalers import Scalers, ScalersFitter
from fullrank.data.stage_read import Read
from fullrank.data.stages import Done
from fullrank.data.workers import workers
from fullrank.schema import Schema


def key_columns(schema: Schema) -> dict[str, str]:
    """Normalised columns of a log row that keys are counted in → their key space.

    A log column that several names share (the item of a row, and of the event the row is) counts once a key space.
    """
    found: dict[tuple[str, str], str] = {}
    for feature in schema.all_features():
        if feature.key_space:
            found.setdefault((feature.key_space, feature.column), feature.name)
    for history in schema.histories:
        if history.layout == "by_user" and not of_the_log(history):
            continue
        spaces = [(history.key_space, history.item or schema.roles.item, "item")]
        spaces += [(f.key_space, f.column, f.name) for f in history.features if f.key_space]
        for space, column, name in spaces:
            found.setdefault((space, column), f"@history.{history.name}.{name}")
    return {name: space for (space, _), name in found.items()}


def extend_ids(
    schema: Schema,
    read: Read,
    split: np.ndarray,
    last_training: int | None,
    maps: Mapping[str, IdMap],
    work: Path,
    budget: int,
    done: Done,
) -> dict[str, IdMap]:
    """The id maps after the training rows of this input.

    Events of a file are no labelled rows: those available before the last training request count (our choice).
    """
    counters = {name: KeyCounter(work / "keys", budget) for name, id_map in maps.items() if id_map.can_grow}
    columns: dict[str, list[str]] = {space: [] for space in counters}
    for name, space in key_columns(schema).items():
        if space in counters:
            columns[space].append(name)
    with workers() as pool:
        for _, rows in training_rows(read, split):
            times = rows.array("@time") if "@time" in rows.columns else None

            def count(space: str, rows: Normalised = rows, times: np.ndarray | None = times) -> None:
                for name in columns[space]:
                    _count(counters[space], rows.keys[name], rows.columns[name], times)

            list(pool.map(count, counters))  # a space each: a counter is not for several threads
            done(rows.num_rows)
    for history in schema.histories:
        if history.name in read.events and last_training is not None:
            spaces = {
                "item": history.key_space,
                **{f.name: f.key_space for f in history.features if f.key_space},
            }
            for _, events in read.events[history.name].chunks():
                past = events.take(events.array("available") < last_training)
                for name, space in spaces.items():
                    if space in counters:
                        _count(counters[space], past.keys[name], past.columns[name], past.array("time"))

    def extended(name: str) -> IdMap:
        return maps[name].extend(counters[name].finish(_least(maps[name])), last_training)

    with workers() as pool:
        return {**maps, **dict(zip(counters, pool.map(extended, counters), strict=True))}


def _least(id_map: IdMap) -> int:
    """How often a key must come for its count to matter: a growing map keeps counts of keys that it does not admit."""
    return id_map.space.min_count if id_map.space.policy == "frozen" else 1


def _count(counter: KeyCounter, keys: Keys, column: np.ndarray | Ragged, times: np.ndarray | None) -> None:
    if times is not None and isinstance(column, Ragged):
        times = np.repeat(times, np.diff(column.offsets))
    counter.add(keys, codes_of(column), times)


def fit_scalers(schema: Schema, read: Read, split: np.ndarray, last_training: int | None) -> Scalers:
    """The scalers of the training rows, and of the file events before the last training request."""
    fitter = ScalersFitter(schema)
    for numbers, rows in training_rows(read, split):
        fitter.add(rows, numbers)
    for name, spill in read.events.items():
        for piece, events in spill.chunks():
            if last_training is not None:
                past = np.flatnonzero(events.array("available") < last_training)
                fitter.add_events(name, events.take(past), past + piece.start)
    return fitter.finish()


def fit_items(
    schema: Schema, read: Read, maps: Mapping[str, IdMap], scalers: Scalers, known: ItemTable | None
) -> ItemTable | None:
    """The item table after all rows of this input; None for a log without items. Its ids come from training rows."""
    if not schema.roles.item:
        return None
    builder = ItemTableBuilder(schema, known)
    for piece, rows in read.rows.chunks():
        builder.add(rows, np.arange(piece.start, piece.stop))
    return builder.finish(maps, scalers)


def training_rows(read: Read, split: np.ndarray) -> Iterator[tuple[np.ndarray, Normalised]]:
    """The training rows with their numbers, a chunk at a time."""
    for piece, rows in read.rows.chunks():
        train = np.flatnonzero(split[piece] == 0)
        if len(train):
            yield train + piece.start, rows if len(train) == rows.num_rows else rows.take(train)


def last_training_time(schema: Schema, request_time: np.ndarray, split: np.ndarray) -> int | None:
    """The latest request time among training rows; None without a time or without such rows."""
    if not (schema.roles.time or schema.roles.order):
        return None
    latest: int | None = None
    for piece in flat.pieces(len(split)):
        times = request_time[piece][split[piece] == 0]
        if len(times):
            latest = int(times.max()) if latest is None else max(latest, int(times.max()))
    return latest
