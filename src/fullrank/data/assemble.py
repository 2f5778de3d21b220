"""Encoded columns → batch. The only maker of batches: the loader and `Transform.apply` both end here.

Two steps, so that a loader pays the first once a block and the second once a batch: `pack` lays the columns a model
asked for side by side (`[n, F]`, one gather a batch instead of F), `take` picks rows and reads their histories.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from fullrank.data.columns import Columns, EncodedBlock, Ragged, array
from fullrank.data.history import HistorySource, Spans
from fullrank.data.id_map import MISSING_ID
from fullrank.data.inputs import Field, HistoryInputs, Inputs

if TYPE_CHECKING:
    from torch import Tensor

    from fullrank.data.batch import Batch, FeatureBlock, HistoryBatch

MICROSECONDS = 1_000_000
LABEL_COLUMNS = ("@weight", "@sample_rate", "@propensity")
Views = Mapping[str, np.ndarray]  # key space -> local id of the data -> local id of the model
Windows = Mapping[str, int]  # task -> attribution window, in the unit of times


class ItemAttributes(Protocol):
    """What a batch needs of the item table: encoded attributes by item id (and code, since items of a hashed key space
    share ids), of items seen before some moment."""

    def attributes(
        self,
        name: str,
        item_ids: np.ndarray,
        before_E: np.ndarray | None = None,
        codes_E: np.ndarray | None = None,
    ) -> np.ndarray | Ragged: ...


@dataclass(frozen=True)
class PackedBag:
    ids: Ragged
    weights: Ragged | None


@dataclass(frozen=True)
class PackedBlock:
    """Fields of n owners side by side: a `FeatureBlock` in numpy, before rows are picked."""

    ids_nF: np.ndarray
    numbers_nF: np.ndarray
    bags: tuple[PackedBag, ...]
    vectors_nD: tuple[np.ndarray, ...]

    def take(self, index: np.ndarray) -> PackedBlock:
        bags = tuple(PackedBag(b.ids.take(index), b.weights.take(index) if b.weights else None) for b in self.bags)
        vectors = tuple(vector[index] for vector in self.vectors_nD)
        return PackedBlock(self.ids_nF[index], self.numbers_nF[index], bags, vectors)


@dataclass(frozen=True)
class Packed:
    """A block (or several, joined) ready for batches. `sources[h][store_R[r]]` holds request r's events of h."""

    request: PackedBlock
    candidate: PackedBlock
    request_of_row: np.ndarray
    user_R: np.ndarray
    time_R: np.ndarray
    spans: tuple[Spans, ...]
    store_R: np.ndarray
    values_BK: np.ndarray
    known_BK: np.ndarray
    extra: tuple[np.ndarray, ...]  # one per LABEL_COLUMNS


def _ids(column: np.ndarray, field: Field, views: Views) -> np.ndarray:
    view = views.get(field.key_space)
    return column if view is None else view[column]


def _bag(columns: Columns, field: Field, views: Views) -> PackedBag:
    ids = columns[field.name]
    weights = columns.get(f"{field.name}@weights")
    assert isinstance(ids, Ragged) and not isinstance(weights, np.ndarray)
    return PackedBag(Ragged(_ids(ids.values, field, views), ids.offsets), weights)


def pack_fields(columns: Columns, fields: tuple[Field, ...], n: int, views: Views) -> PackedBlock:
    """The `fields` of `n` owners, in their order within each kind."""
    categorical = [f for f in fields if f.kind == "categorical"]
    numeric = [f for f in fields if f.kind == "numeric"]
    ids_nF = np.empty((n, len(categorical)), dtype=np.int32)
    for place, field in enumerate(categorical):
        ids_nF[:, place] = _ids(array(columns, field.name), field, views)
    numbers_nF = np.empty((n, len(numeric)), dtype=np.float32)
    for place, field in enumerate(numeric):
        numbers_nF[:, place] = array(columns, field.name)
    bags = tuple(_bag(columns, f, views) for f in fields if f.kind == "multi")
    vectors = tuple(np.asarray(array(columns, f.name), dtype=np.float32) for f in fields if f.kind == "vector")
    return PackedBlock(ids_nF, numbers_nF, bags, vectors)


def known_labels(rows: Columns, n: int, tasks: tuple[str, ...], *, as_of: int, windows: Windows) -> np.ndarray:
    """known_BK (bool): which labels of `n` rows count at `as_of`.

    A label counts if it is known at `as_of` and its window is closed by then. A positive that came early waits with
    the negatives of its time: known positives beside unknown negatives would be a sample of positives.
    """
    known_BK = np.zeros((n, len(tasks)), dtype=bool)
    for place, task in enumerate(tasks):
        if f"@known_at.{task}" in rows:  # absent where there is nothing to compare with (predict, serve)
            known_BK[:, place] = array(rows, f"@known_at.{task}") <= as_of
            if windows.get(task) and "@time" in rows:
                known_BK[:, place] &= array(rows, "@time") <= as_of - windows[task]
    return known_BK


def pack(
    block: EncodedBlock,
    inputs: Inputs,
    *,
    views: Views,
    as_of: int,
    windows: Windows,
    store: int = 0,
    since_BK: np.ndarray | None = None,
) -> Packed:
    """Lay the columns that `inputs` names side by side and decide which labels count (see `known_labels`).

    `since_BK` (bool): labels that counted at an earlier state; they do not count again, so that a model that is
    trained state by state learns every label once. A label that was corrected after it had counted is one of them.
    """
    n, rows = block.num_rows, block.rows
    known = known_labels(rows, n, inputs.task_names, as_of=as_of, windows=windows)
    if since_BK is not None:
        known &= ~since_BK
    values = np.zeros((n, len(inputs.tasks)), dtype=np.float32)
    for place, task in enumerate(inputs.task_names):
        if f"@label.{task}" in rows:
            values[:, place] = np.where(known[:, place], array(rows, f"@label.{task}"), 0.0)
    spans = []
    for history in inputs.histories:
        column = f"@history.{history.name}"
        spans.append(Spans(array(block.requests, f"{column}.end"), array(block.requests, f"{column}.length")))
    return Packed(
        request=pack_fields(block.requests, inputs.request, block.num_requests, views),
        candidate=pack_fields(rows, inputs.candidate, n, views),
        request_of_row=array(rows, "@request").astype(np.int64),
        user_R=_or_else(block.requests, "@user", block.num_requests, np.uint64(0)),
        time_R=_or_else(block.requests, "@time", block.num_requests, np.int64(0)),
        spans=tuple(spans),
        store_R=np.full(block.num_requests, store, dtype=np.int32),
        values_BK=values,
        known_BK=known,
        extra=tuple(_or_else(rows, name, n, np.float32(1.0)) for name in LABEL_COLUMNS),
    )


def _or_else(columns: Columns, name: str, n: int, value: np.generic) -> np.ndarray:
    """The column, or `n` times `value` where the log has no such role."""
    return array(columns, name) if name in columns else np.full(n, value)


def take(
    packed: Packed,
    index: np.ndarray,
    inputs: Inputs,
    *,
    sources: tuple[tuple[HistorySource, ...], ...],
    items: ItemAttributes | None,
    views: Views,
    labels: bool = True,
) -> Batch:
    """The batch of rows `index`, in that order. Requests come in order of their first row; each is read once.

    `sources[h]` are the event stores of history h that `packed.store_R` points into.
    """
    import torch

    from fullrank.data.batch import Batch, Candidates, Labels, Requests

    request_of_row = packed.request_of_row[index]
    unique, first, inverse = np.unique(request_of_row, return_index=True, return_inverse=True)
    by_first_row = np.argsort(first, kind="stable")
    requests = unique[by_first_row]
    rank = np.empty_like(by_first_row)
    rank[by_first_row] = np.arange(len(rank))
    time_R = packed.time_R[requests]
    histories = []
    for place, history in enumerate(inputs.histories):
        spans = Spans(packed.spans[place].end_R[requests], packed.spans[place].length_R[requests])
        histories.append(
            _read_history(history, sources[place], packed.store_R[requests], spans, time_R, items, views)
        )
    return Batch(
        Requests(
            features=_tensors(packed.request.take(requests)),
            histories=tuple(histories),
            user_R=torch.from_numpy(packed.user_R[requests].view(np.int64)),
            time_R=torch.from_numpy(time_R),
        ),
        Candidates(_tensors(packed.candidate.take(index)), torch.from_numpy(rank[inverse].astype(np.int64))),
        Labels(
            torch.from_numpy(packed.values_BK[index]),
            torch.from_numpy(packed.known_BK[index]),
            *(torch.from_numpy(column[index]) for column in packed.extra),
        )
        if labels
        else None,
    )


def _read_history(
    inputs: HistoryInputs,
    stores: tuple[HistorySource, ...],
    store_R: np.ndarray,
    spans: Spans,
    time_R: np.ndarray,
    items: ItemAttributes | None,
    views: Views,
) -> HistoryBatch:
    """The newest events of every request as one jagged block; requests may point into several stores."""
    import torch

    from fullrank.data.batch import HistoryBatch

    used = np.unique(store_R)
    pieces, lengths, order = [], np.zeros(len(store_R), dtype=np.int64), []
    for store in used:
        at = np.flatnonzero(store_R == store)
        positions, offsets = stores[store].newest(Spans(spans.end_R[at], spans.length_R[at]), inputs.last_n)
        time_E = np.repeat(time_R[at], np.diff(offsets))
        pieces.append(_event_columns(inputs, stores[store], positions, time_E))
        lengths[at] = np.diff(offsets)
        order.append(at)
    if not pieces:  # no request at all
        pieces = [_event_columns(inputs, stores[0], np.empty(0, np.int64), np.empty(0, np.int64))]
    columns = pieces[0]
    offsets = np.zeros(len(store_R) + 1, dtype=np.int64)
    np.cumsum(lengths, out=offsets[1:])
    if len(pieces) > 1:  # put the stores' events back into the order of the requests
        place = np.argsort(np.concatenate(order), kind="stable")
        at_offsets = np.concatenate([[0], np.cumsum(lengths[np.concatenate(order)])])
        index = Ragged(np.arange(at_offsets[-1]), at_offsets).take(place).values
        columns = {name: np.concatenate([piece[name] for piece in pieces])[index] for name in columns}
    before_E = np.repeat(time_R, lengths)
    return HistoryBatch(_event_block(inputs, columns, before_E, items, views), torch.from_numpy(offsets))


def _event_columns(
    inputs: HistoryInputs, store: HistorySource, positions: np.ndarray, time_E: np.ndarray
) -> dict[str, np.ndarray]:
    """Stored columns at `positions`; outcomes not yet known at the request's time are NaN."""
    columns: dict[str, np.ndarray] = {}
    for field in inputs.fields:
        if field.name == "age":
            seconds = (time_E - store.columns["time"][positions]) / MICROSECONDS
            columns["age"] = np.log10(1.0 + np.maximum(seconds, 0.0)).astype(np.float32)
        elif f"{field.name}@known_at" in store.columns:
            known = store.columns[f"{field.name}@known_at"][positions] < time_E
            columns[field.name] = np.where(known, store.columns[field.name][positions], np.float32(np.nan))
        elif field.name in store.columns:
            columns[field.name] = store.columns[field.name][positions]
    if len(columns) < len(inputs.fields) and "@item" in store.columns:  # the item table has the rest
        columns["@item"] = store.columns["@item"][positions]
    return columns


def _event_block(
    inputs: HistoryInputs,
    stored: dict[str, np.ndarray],
    before_E: np.ndarray,
    items: ItemAttributes | None,
    views: Views,
) -> FeatureBlock:
    """Event columns, with the attributes of the events' items as they were known before the request's time."""
    columns: Columns = dict(stored)
    item_ids = _ids(stored["item"], inputs.fields[0], views)
    for field in inputs.fields:
        if field.name not in columns:
            if items is None:  # no row has named an item yet
                columns[field.name] = _missing(field, len(item_ids))
                continue
            name = field.name.removeprefix("item.")
            columns[field.name] = items.attributes(name, item_ids, before_E, stored.get("@item"))
    return _tensors(pack_fields(columns, inputs.fields, len(item_ids), views))


def _missing(field: Field, n: int) -> np.ndarray | Ragged:
    """What `n` events have of an attribute that no item has: id 1, or an empty bag."""
    if field.kind == "multi":
        return Ragged(np.empty(0, dtype=np.int32), np.zeros(n + 1, dtype=np.int64))
    return np.full(n, MISSING_ID, dtype=np.int32)


def _tensors(packed: PackedBlock) -> FeatureBlock:
    import torch

    from fullrank.data.batch import Bag, FeatureBlock

    def tensor(array: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array))

    return FeatureBlock(
        ids_nF=tensor(packed.ids_nF.astype(np.int64)),
        numbers_nF=tensor(packed.numbers_nF),
        bags=tuple(
            Bag(
                tensor(bag.ids.values.astype(np.int64)),
                tensor(bag.ids.offsets),
                tensor(bag.weights.values) if bag.weights else None,
            )
            for bag in packed.bags
        ),
        vectors_nD=tuple(tensor(vector) for vector in packed.vectors_nD),
    )


def assemble(
    block: EncodedBlock,
    inputs: Inputs,
    *,
    sources: tuple[HistorySource, ...],
    items: ItemAttributes | None,
    views: Views,
    as_of: int,
    windows: Windows,
    labels: bool = True,
) -> Batch:
    """The whole block as one batch, rows in their order. `sources`: one event store per history of `inputs`."""
    packed = pack(block, inputs, views=views, as_of=as_of, windows=windows)
    stores = tuple((source,) for source in sources)
    every = np.arange(block.num_rows)
    return take(packed, every, inputs, sources=stores, items=items, views=views, labels=labels)
