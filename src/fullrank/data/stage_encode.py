"""Fourth stage of preparing: encode every request once, put rows into blocks and events to their places."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from fullrank.data.ahead import ahead
from fullrank.data.by_user import Grouped
from fullrank.data.columns import EncodedBlock, array
from fullrank.data.encode_columns import encode_again
from fullrank.data.event_writer import (
    InlineEvents,
    Outcomes,
    PlacedEvents,
    code_columns,
    event_dtypes,
    kept_attributes,
    of_the_log,
)
from fullrank.data.history import HistorySource
from fullrank.data.manifest import SplitSize
from fullrank.data.normalised import Normalised
from fullrank.data.partition_writer import BlockWriter, take_requests
from fullrank.data.spill import Gathered
from fullrank.data.splits import SPLITS
from fullrank.data.stage_read import Read
from fullrank.data.stages import Done
from fullrank.data.transform import Transform
from fullrank.data.workers import threads, workers
from fullrank.schema import History, Schema


@dataclass(frozen=True)
class Encoded:
    """What a partition holds: sizes of its splits, events of its histories."""

    splits: dict[str, SplitSize]
    events: dict[str, int]


@dataclass(frozen=True)
class Earlier:
    """Earlier partitions: the event stores of each by_user history by partition number, oldest first, and what
    corrects the outcomes of events that are carried over."""

    stores: Mapping[str, Sequence[tuple[int, HistorySource]]]
    outcomes: Mapping[str, Outcomes | None]


def encode(
    read: Read,
    grouped: Grouped,
    split: np.ndarray,
    transform: Transform,
    folder: Path,
    work: Path,
    earlier: Earlier,
    block_rows: int,
    done: Done,
) -> Encoded:
    """Write the rows and events of a partition into `folder`."""
    schema = transform.schema
    writers = [BlockWriter(folder / name, block_rows) for name in SPLITS]
    placed = _placed(transform, grouped, folder, earlier)
    inline = {
        history.name: InlineEvents(
            folder / "events" / history.name, event_dtypes(schema, history), history.max_length
        )
        for history in schema.histories
        if history.layout == "inline"
    }

    def encoded(chunk: tuple[np.ndarray, Normalised]) -> tuple[np.ndarray, Normalised, EncodedBlock]:
        return *chunk, transform.encode(chunk[1])

    def write(numbers: np.ndarray, rows: Normalised, block: EncodedBlock) -> None:
        first_row = np.flatnonzero(np.diff(array(block.rows, "@request"), prepend=-1))
        origin = np.asarray(grouped.first[numbers[first_row]])  # row number of the first row of the request
        if "@time" in block.requests:
            block.requests["@time"] = np.asarray(grouped.request_time[origin])
        for history in schema.histories:
            column = f"@history.{history.name}"
            if history.layout == "inline":
                end, length = inline[history.name].add(transform.encode_events(rows, history.name, block))
            else:
                places = grouped.histories[history.name]
                end, length = np.asarray(places.end[origin]), np.asarray(places.length[origin])
            block.requests[f"{column}.end"], block.requests[f"{column}.length"] = end, length
            if of_the_log(history):
                events = _events_of_rows(
                    schema, history, transform, rows, block, grouped.request_time[numbers]
                )
                placed[history.name].put(np.asarray(grouped.histories[history.name].dest[numbers]), events)
        split_of_request = split[origin]
        for code, writer in enumerate(writers):
            chosen = np.flatnonzero(split_of_request == code)
            writer.add(block if len(chosen) == block.num_requests else take_requests(block, chosen))
        done(rows.num_rows)

    gathered = Gathered(read.rows, grouped.first, work / "moved").chunks()
    with workers() as pool, closing(ahead(pool, encoded, gathered, threads())) as blocks:
        for each in blocks:
            write(*each)
    for name, spill in read.events.items():
        dest = grouped.histories[name].dest
        for piece, events in spill.chunks():
            columns = {column: events.array(column) for column in events.columns if column != "@user"}
            placed[name].put(np.asarray(dest[piece]), transform.event_columns(name, columns))
    for store in inline.values():
        store.close()
    events = {name: places.num_events for name, places in grouped.histories.items()}
    return Encoded(
        splits={name: writer.close() for name, writer in zip(SPLITS, writers, strict=True)},
        events={**events, **{name: store.num_events for name, store in inline.items()}},
    )


def _placed(
    transform: Transform, grouped: Grouped, folder: Path, earlier: Earlier
) -> dict[str, PlacedEvents]:
    """The stores of by_user histories, with what is carried over in its places."""
    stores, schema = {}, transform.schema
    for history in schema.histories:
        if history.layout == "by_user":
            places = grouped.histories[history.name]
            dtypes = event_dtypes(schema, history)
            store = PlacedEvents(folder / "events" / history.name, dtypes, places.num_events)
            prior = dict(earlier.stores.get(history.name, ()))
            renew = partial(
                encode_again, code_columns=code_columns(schema, history), id_maps=transform.id_maps
            )
            store.carry(places.carried, prior, renew, earlier.outcomes.get(history.name))
            stores[history.name] = store
    return stores


def _events_of_rows(
    schema: Schema,
    history: History,
    transform: Transform,
    rows: Normalised,
    block: EncodedBlock,
    request_time: np.ndarray,
) -> dict[str, np.ndarray]:
    """What every row is as an event."""
    prefix = f"@history.{history.name}."
    columns = {
        name.removeprefix(prefix): rows.array(name) for name in rows.columns if name.startswith(prefix)
    }
    events = transform.event_columns(history.name, columns)
    events["available"] = np.maximum(
        columns["available"], request_time
    )  # not before the request it belongs to
    for name in kept_attributes(schema, history):
        events[f"item.{name}"], events[f"item.{name}@code"] = array(block.rows, name), rows.array(name)
    if schema.roles.impression:
        events["@impression"] = rows.array("@impression")
    return events
