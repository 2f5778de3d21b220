"""Encoded columns → records, in the order in which they will be read.

Columns on disk are contiguous, batches want rows: `pack` writes what a model asked for side by side, one record a
request and one a row, each at the place where it will be visited. What is packed is then read front to back: a batch is
a slice, and the requests of a slice of rows are a slice of requests.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fullrank.data.columns import Columns, EncodedBlock, Ragged, array, span_positions
from fullrank.data.inputs import Field, Inputs
from fullrank.data.packed import Packed, PackedBag, PackedBlock, join_ragged

LABEL_COLUMNS = ("@weight", "@sample_rate", "@propensity")
Views = Mapping[str, np.ndarray]  # key space -> local id of the data -> local id of the model
Windows = Mapping[str, int]  # task -> attribution window, in the unit of times


@dataclass(frozen=True)
class Unpacked:
    """A block before it is packed. `store`: which of a history's sources it reads from. `since_BK` (bool): labels that
    counted at an earlier state; they do not count again, so that a model that is trained state by state learns every
    label once. A label that was corrected after it had counted is one of them."""

    block: EncodedBlock
    store: int = 0
    since_BK: np.ndarray | None = None


@dataclass(frozen=True)
class Order:
    """Which rows and requests are visited, in their order, as numbers among those that were there. `request_of_row`
    ascends: the place of each visited row's request among the visited ones."""

    rows: np.ndarray
    requests: np.ndarray
    request_of_row: np.ndarray


# Of the rows of some blocks: request_of_row, the number of requests, known_BK. None: as they stand.
Arrange = Callable[[np.ndarray, int, np.ndarray], Order | None]


def visiting_order(
    request_of_row: np.ndarray,
    num_requests: int,
    *,
    kept: np.ndarray | None,
    random: np.random.Generator | None,
) -> Order | None:
    """Whole requests, shuffled if `random` is given; rows of a request keep their order.

    `kept` (ascending): the rows to visit; requests without any of them are left out. None: all rows, and all requests.
    """
    if kept is None and random is None:
        return None
    request_of_kept = request_of_row if kept is None else request_of_row[kept]
    size_R = np.bincount(request_of_kept, minlength=num_requests)
    requests = np.arange(num_requests) if kept is None else np.flatnonzero(size_R)
    if random is not None:
        random.shuffle(requests)
    if kept is None and len(request_of_row) == num_requests == np.count_nonzero(size_R):  # each row is a request
        return Order(requests, requests, np.arange(num_requests))
    end_R = size_R.cumsum()[requests]  # rows stand by request
    size_R = size_R[requests]
    rows, _ = span_positions(end_R - size_R, end_R)
    return Order(rows if kept is None else kept[rows], requests, np.repeat(np.arange(len(requests)), size_R))


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
    blocks: Sequence[Unpacked],
    inputs: Inputs,
    *,
    views: Views,
    as_of: int,
    windows: Windows,
    arrange: Arrange | None = None,
) -> Packed:
    """Blocks one after another, in the order that `arrange` decides; which labels count, `known_labels` says."""
    known = [_known(b, inputs, as_of, windows) for b in blocks]
    shift = np.cumsum([0, *(b.block.num_requests for b in blocks)])
    request_of_row = np.concatenate(
        [array(b.block.rows, "@request") + s for b, s in zip(blocks, shift, strict=False)]
    )
    order = arrange(request_of_row, int(shift[-1]), np.concatenate(known)) if arrange else None
    return Packed(
        requests=_owners(
            [b.block.requests for b in blocks],
            [b.block.num_requests for b in blocks],
            inputs.request,
            [_of_requests(b, inputs, s) for b, s in zip(blocks, shift, strict=False)],
            views,
            order and order.requests,
        ),
        rows=_owners(
            [b.block.rows for b in blocks],
            [b.block.num_rows for b in blocks],
            inputs.candidate,
            [_of_rows(b, inputs, known_BK) for b, known_BK in zip(blocks, known, strict=True)],
            views,
            order and order.rows,
        ),
        request_of_row=request_of_row if order is None else order.request_of_row,
    )


def _known(unpacked: Unpacked, inputs: Inputs, as_of: int, windows: Windows) -> np.ndarray:
    n, rows = unpacked.block.num_rows, unpacked.block.rows
    known_BK = known_labels(rows, n, inputs.task_names, as_of=as_of, windows=windows)
    return known_BK if unpacked.since_BK is None else known_BK & ~unpacked.since_BK


def _of_requests(unpacked: Unpacked, inputs: Inputs, before: int) -> dict[str, list[np.ndarray]]:
    columns, n = unpacked.block.requests, unpacked.block.num_requests
    found = {name: [array(columns, f"@{name}")] for name in ("user", "time") if f"@{name}" in columns}
    found["number"] = [np.arange(before, before + n, dtype=np.int32)]
    if inputs.histories:
        found["store"] = [np.full(n, unpacked.store, dtype=np.int32)]
    for h, history in enumerate(inputs.histories):
        for part in ("end", "length"):
            found[f"{part}{h}"] = [array(columns, f"@history.{history.name}.{part}")]
    return found


def _of_rows(unpacked: Unpacked, inputs: Inputs, known_BK: np.ndarray) -> dict[str, list[np.ndarray]]:
    columns, n = unpacked.block.rows, unpacked.block.num_rows
    values = [np.zeros(n, dtype=np.float32) for _ in inputs.tasks]
    for place, task in enumerate(inputs.task_names):
        if f"@label.{task}" in columns:
            values[place] = np.where(known_BK[:, place], array(columns, f"@label.{task}"), np.float32(0))
    found = {name: [array(columns, name)] for name in LABEL_COLUMNS if name in columns}
    return found | {"values": values, "known": list(known_BK.T)}


def pack_fields(columns: Columns, fields: tuple[Field, ...], n: int, views: Views) -> PackedBlock:
    """The `fields` of `n` owners, as they stand."""
    return _owners([columns], [n], fields, [{}], views, None)


def _owners(
    blocks: Sequence[Columns],
    sizes: Sequence[int],
    fields: tuple[Field, ...],
    extra: Sequence[dict[str, list[np.ndarray]]],
    views: Views,
    order: np.ndarray | None,
) -> PackedBlock:
    """The `fields` and the `extra` columns of the owners in all blocks, picked by `order`."""
    from fullrank.kernels.records import scatter  # with torch, which those who only ask what counts do without

    num = sum(sizes) if order is None else len(order)
    by_block = [_parts(columns, fields, views) | more for columns, more in zip(blocks, extra, strict=True)]
    parts = {name: (columns[0].dtype, (len(columns),)) for name, columns in by_block[0].items() if columns}
    vectors = [f for f in fields if f.kind == "vector"]
    parts |= {f"vector{at}": (np.dtype(np.float32), (f.dim,)) for at, f in enumerate(vectors)}
    parts = dict(sorted(parts.items(), key=lambda part: -part[1][0].itemsize))  # no gaps but behind the last
    records_n = np.empty(num, dtype=np.dtype([(name, *what) for name, what in parts.items()], align=True))
    place = None
    if order is not None:
        place = np.full(sum(sizes), -1, dtype=np.int32)
        place[order] = np.arange(num, dtype=np.int32)
    before = 0
    for columns, made, size in zip(blocks, by_block, sizes, strict=True):
        where = slice(before, before + size) if place is None else place[before : before + size]
        listed = [(values, name, at) for name, each in made.items() for at, values in enumerate(each)]
        scatter(listed, where, records_n)
        for at, field in enumerate(vectors):
            if isinstance(where, slice):
                records_n[f"vector{at}"][where] = array(columns, field.name)
            else:
                records_n[f"vector{at}"][where[where >= 0]] = array(columns, field.name)[where >= 0]
        before += size
    bags = tuple(_bag(blocks, f, views, order) for f in fields if f.kind == "multi")
    return PackedBlock(records_n, bags)


def _parts(columns: Columns, fields: tuple[Field, ...], views: Views) -> dict[str, list[np.ndarray]]:
    ids = [ids_of(array(columns, f.name), f, views) for f in fields if f.kind == "categorical"]
    numbers = [array(columns, f.name) for f in fields if f.kind == "numeric"]
    return {
        "ids": [values.astype(np.int32, copy=False) for values in ids],
        "numbers": [values.astype(np.float32, copy=False) for values in numbers],
    }


def ids_of(column: np.ndarray, field: Field, views: Views) -> np.ndarray:
    """The ids of a column as the model has them."""
    view = views.get(field.key_space)
    return column if view is None else view[column]


def _bag(blocks: Sequence[Columns], field: Field, views: Views, order: np.ndarray | None) -> PackedBag:
    def lists(name: str) -> Ragged:
        parts = [columns[name] for columns in blocks]
        whole = join_ragged([part for part in parts if isinstance(part, Ragged)])
        return whole if order is None else whole.take(order)

    ids = lists(field.name)
    weighted = f"{field.name}@weights" in blocks[0]
    return PackedBag(
        Ragged(ids_of(ids.values, field, views), ids.offsets), lists(f"{field.name}@weights") if weighted else None
    )
