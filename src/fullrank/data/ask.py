"""Asking a model about what was never logged: records that lack columns, and requests with candidates of one's own.

Three steps, shared by everything that uses a run: `complete` makes records whole (what is not there is missing, never
an error), `Transform.read` encodes them exactly as preparing does, and `requests_of` / `candidates_of` are the two
halves of a batch: a request is encoded once, its candidates in as many pieces as memory allows.
"""

# pyarrow.compute makes its functions when it is imported; a type checker cannot see them.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fullrank.data.assemble import ItemAttributes, Views, assemble
from fullrank.data.columns import NEVER, Columns, EncodedBlock
from fullrank.data.history import HistorySource
from fullrank.data.inputs import Inputs
from fullrank.data.normalise_cells import Cells, Origin, is_list, plain
from fullrank.data.normalise_lists import lists_of_texts
from fullrank.data.readers.delimited import ColumnKind
from fullrank.data.readers.tabular import columns_read
from fullrank.schema import History, Roles, Schema

if TYPE_CHECKING:
    from fullrank.data.batch import Candidates, Requests
    from fullrank.data.transform import Transform

_REQUEST_ROLES = ("user", "time", "order")
_ASKED_ROLES = (*_REQUEST_ROLES, "item", "request", "impression")


def asking(transform: Transform, inputs: Inputs, *, candidates: bool = True) -> Transform:
    """The same transform for records that ask: of the schema only what a model of `inputs` reads is left, no label and
    nothing that logging adds (a propensity, a weight), so that such columns may hold anything.

    Without `candidates`, every record is a request of its own whose candidates come from elsewhere (a catalogue): it
    has no item, and of the rows' own features only those of the pair.
    """
    schema = transform.schema
    fields = {field.name for field in (*inputs.request, *inputs.candidate) if candidates or field.of != "item"}
    histories = {history.name for history in inputs.histories}
    roles = _ASKED_ROLES if candidates else _REQUEST_ROLES
    less = Schema(
        name=schema.name,
        roles=Roles(**{role: getattr(schema.roles, role) for role in roles}),
        time_unit=schema.time_unit,
        features=tuple(feature for feature in schema.features if feature.name in fields),
        histories=tuple(history for history in schema.histories if history.name in histories),
    )
    used = less.used_key_spaces()
    spaces = tuple(space for space in schema.key_spaces if space.name in used)
    times = {schema.roles.time, *(history.time for history in less.histories)}
    times |= {outcome.time for history in less.histories for outcome in history.outcomes}
    units = tuple(own for own in schema.time_columns if own.name in times)
    return replace(transform, schema=replace(less, key_spaces=spaces, time_columns=units))


def columns_asked(schema: Schema) -> dict[str, ColumnKind]:
    """Every column that an asking schema reads of a record: no events, which a record is not one of."""
    inline = tuple(history for history in schema.histories if history.layout == "inline")
    return columns_read(replace(schema, histories=inline, key_spaces=()))


@dataclass(frozen=True)
class Completed:
    """Records with every column that an asking schema reads; `absent`: the columns that were not there."""

    records: pa.RecordBatch
    absent: tuple[str, ...]


def complete(schema: Schema, records: pa.RecordBatch, now: int) -> Completed:
    """The columns of `records` that an asking `schema` reads, and missing values in place of those that are not there.

    Args:
        now: the time (µs, or a position) of records without a column of time.

    A `multi` feature without its column of weights gets weights of 1, and an inline history without its items or times
    is empty: what is left of it says nothing (both our choice).
    """
    n, there = records.num_rows, dict(zip(records.schema.names, records.columns, strict=True))
    columns: dict[str, pa.Array] = {}

    def need(column: str, otherwise: pa.Array | None = None) -> None:
        if column and column not in columns:
            columns[column] = there.get(column, pa.nulls(n) if otherwise is None else otherwise)

    kind = pa.int64() if schema.time_unit == "position" else pa.timestamp("us")
    need(schema.roles.time or schema.roles.order, pa.array(np.full(n, now), pa.int64()).cast(kind))
    for column in (schema.roles.user, schema.roles.item, schema.roles.request):
        need(column)
    if schema.roles.impression in there:
        need(schema.roles.impression)
    for feature in schema.features:
        need(feature.column)
        if feature.weights and feature.column not in there:
            columns[feature.weights] = pa.nulls(n)
        elif feature.weights:
            need(feature.weights, _beside(there[feature.column], 1.0))
    for history in schema.histories:
        if history.layout == "inline":
            columns |= _lists(history, there, n)
    absent = tuple(name for name in columns if name not in there)
    return Completed(pa.RecordBatch.from_arrays(list(columns.values()), names=list(columns)), absent)


def _lists(history: History, there: Mapping[str, pa.Array], n: int) -> dict[str, pa.Array]:
    own = [history.item, history.time, *(feature.column for feature in history.features)]
    own += [column for outcome in history.outcomes for column in (outcome.column, outcome.time)]
    own = [column for column in own if column]
    if history.item not in there or (history.time and history.time not in there):
        return {column: pa.nulls(n) for column in own}
    return {column: there.get(column, _beside(there[history.item], None)) for column in own}


def _beside(lists: pa.Array, value: float | None) -> pa.Array:
    """Lists as long as these, of one value throughout."""
    lists = plain(lists)
    if pa.types.is_large_string(lists.type):
        lists = lists_of_texts(Cells(Origin("records"), "", lists))
    if not is_list(lists.type):
        return pa.nulls(len(lists))  # no list at all: normalise will say so of the column itself
    lengths = pc.list_value_length(lists).fill_null(0).to_numpy(zero_copy_only=False)
    offsets = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    values = pa.nulls(offsets[-1]) if value is None else pa.array(np.full(offsets[-1], value))
    return pa.LargeListArray.from_arrays(pa.array(offsets), values)


def requests_of(
    block: EncodedBlock,
    inputs: Inputs,
    *,
    sources: tuple[HistorySource, ...],
    items: ItemAttributes | None,
    views: Views,
) -> Requests:
    """The request part of a batch: every request of the block, in its order. `sources`, `items`, `views`: as for
    `assemble`."""
    one_each: Columns = {"@request": np.arange(block.num_requests, dtype=np.int32)}
    alone = EncodedBlock(block.requests, one_each, block.num_requests, block.num_requests)
    part = replace(inputs, candidate=(), tasks=())
    return assemble(
        alone, part, sources=sources, items=items, views=views, as_of=NEVER - 1, windows={}, labels=False
    ).requests


def candidates_of(columns: Columns, request_of_row: np.ndarray, inputs: Inputs, *, views: Views) -> Candidates:
    """The candidate part of a batch: row b is a candidate of request `request_of_row[b]` (ascending from 0, none left
    out) with the encoded `columns` of the candidate fields of `inputs`."""
    rows: Columns = {**columns, "@request": request_of_row.astype(np.int32)}
    part = replace(inputs, request=(), histories=(), tasks=())
    block = EncodedBlock({}, rows, int(request_of_row.max(initial=-1)) + 1, len(request_of_row))
    return assemble(
        block, part, sources=(), items=None, views=views, as_of=NEVER - 1, windows={}, labels=False
    ).candidates
