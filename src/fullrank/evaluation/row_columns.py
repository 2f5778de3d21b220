"""Columns of prepared data beside predictions: one entry a row, in the order of an unshuffled loader."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from fullrank.data.columns import Columns, DataError, Ragged
from fullrank.schema import did_you_mean

if TYPE_CHECKING:
    from fullrank.data.partitions import BlockRef, PreparedData


def row_columns(data: PreparedData, split: str, names: Sequence[str]) -> dict[str, np.ndarray]:
    """The named columns of a split, a request's columns repeated for each of its rows.

    Row i is row i of `predict_split` with an unshuffled loader of the same data and split: both go by `data.blocks`.
    Names are those of docs/architecture.md, section 2 (`@time` is the row's own); `@request` is the number of the
    row's request in the split, int64. Ids of data that are `pinned` are those of the pinned version.

    Takes the columns' own bytes a row (int32 ids: 4) and reads no other column. Raises DataError for a column that is
    not there or has more than one value a row (multi, vector).
    """
    rows, first_request = data.num_rows(split), 0
    found: dict[str, np.ndarray] = {}
    place = 0
    for block in data.blocks(split):
        columns = _block_columns(data, block, [*names])
        columns["@request"] = columns["@request"].astype(np.int64) + first_request
        for name in names:
            if name not in found:
                found[name] = np.empty(rows, dtype=columns[name].dtype)
            found[name][place : place + block.num_rows] = columns[name]
        place += block.num_rows
        first_request += block.num_requests
    if not found:  # a split without rows: what its columns are of, another one says
        some = next(block for each in sorted(data.splits) for block in data.blocks(each))
        found = {name: column[:0] for name, column in _block_columns(data, some, [*names]).items() if name in names}
    return found


def _block_columns(data: PreparedData, block: BlockRef, names: list[str]) -> dict[str, np.ndarray]:
    partition = data.partitions[block.partition]
    rows = partition.columns(block, "rows", ["@request", *names])
    requests = partition.columns(block, "requests", [name for name in names if name not in rows])
    request_of_row = _flat(rows, "@request")
    result: dict[str, np.ndarray] = {"@request": request_of_row}
    for name in names:
        if name in rows:
            column = _flat(rows, name)
        elif name in requests:
            column = _flat(requests, name)[request_of_row]
        else:
            every = partition.columns(block, "rows", None) | partition.columns(block, "requests", None)
            there = [column for column in every if isinstance(every[column], np.ndarray)]
            raise DataError(f"No column {name!r} in {partition.folder}; there are {there}.{did_you_mean(name, there)}")
        view = data.views.get(_key_space(data, name))
        result[name] = column if view is None else view[column]
    return result


def _flat(columns: Columns, name: str) -> np.ndarray:
    column = columns[name]
    if isinstance(column, Ragged) or column.ndim != 1:
        raise DataError(f"Column {name!r} has several values a row: a slice needs a column with one.")
    return column


def _key_space(data: PreparedData, name: str) -> str:
    return next((feature.key_space for feature in data.schema.all_features() if feature.name == name), "")
