"""Which consecutive rows are one request."""

from __future__ import annotations

import numpy as np

from fullrank.data.columns import Ragged, span_positions
from fullrank.data.normalised import Normalised
from fullrank.schema import Schema


def first_rows(schema: Schema, rows: Normalised) -> np.ndarray:
    """The first row of every request, ascending: consecutive rows with one request key and equal request-side values
    (user and context features but texts, inline lists) are one. Without request keys every row is its own."""
    if "@request" not in rows.columns:
        return np.arange(rows.num_rows)
    request = rows.array("@request")
    same = np.flatnonzero((request[1:] == request[:-1]) & (request[1:] != 0)) + 1  # rows equal to the one before
    names = ["@user"] if "@user" in rows.columns else []
    for feature in schema.features:
        if feature.of in ("user", "context") and feature.kind != "text":
            names += [feature.name, f"{feature.name}@weights"] if feature.weights else [feature.name]
    for history in schema.histories:
        if history.layout == "inline":
            names += [name for name in rows.columns if name.startswith(f"@history.{history.name}.")]
    compared: set[int] = set()  # `available` is often the array of `time`: once is enough
    for name in names:
        column = rows.columns[name]
        values = column.values if isinstance(column, Ragged) else column
        if len(same) and id(values) not in compared:
            compared.add(id(values))
            same = same[_equals_previous(column, same)]
    first = np.ones(rows.num_rows, dtype=bool)
    first[same] = False
    return np.flatnonzero(first)


def _equals_previous(column: np.ndarray | Ragged, index: np.ndarray) -> np.ndarray:
    """For each row of `index` whether its value is that of the row before."""
    if not isinstance(column, Ragged):
        equal = _equal(column[index], column[index - 1])
        return np.asarray(equal.all(axis=1)) if equal.ndim == 2 else equal
    lengths = np.diff(column.offsets)
    result = lengths[index] == lengths[index - 1]
    checked = index[result]
    positions, offsets = span_positions(column.offsets[checked], column.offsets[checked + 1])
    each = np.repeat(np.arange(len(checked)), np.diff(offsets))
    equal = _equal(column.values[positions], column.values[positions - lengths[checked][each]])
    same = np.ones(len(checked), dtype=bool)
    same[each[~equal]] = False
    result[result] = same
    return result


def _equal(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Equality in which NaN (missing) equals itself."""
    if left.dtype.kind != "f":
        return np.equal(left, right)
    return np.equal(left, right) | (np.isnan(left) & np.isnan(right))
