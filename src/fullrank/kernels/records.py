"""Columns → records: owner i of every column written side by side at its own place. n owners · C columns.

In numpy, as are the columns of prepared data: they lie in files, and no gradient passes here.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fullrank.kernels.bodies import worth_compiling

LEAST = 32_768  # values
TILE = 1024  # owners whose records are made while they stay in a core's cache

Column = tuple[np.ndarray, str, int]  # values, the record's field, which of the field's values


def scatter(columns: Sequence[Column], place_n: np.ndarray | slice, records: np.ndarray) -> None:
    """`records[field][place_n[i], at] = values[i]` of every column.

    `records`: a structured array; a field is `[width]` of a type of 1, 4 or 8 bytes, and so are the columns, 1-D and
    contiguous. `place_n`: where each owner's record goes (int32; -1: nowhere), or a slice where they stand as they are.

    Reads each column front to back and writes each record once, whole: a gather of records later touches a few cache
    lines an owner, where one of columns touches as many as there are columns.
    """
    if not columns:
        return
    num = len(columns[0][0])
    if worth_compiling(num * len(columns), LEAST):
        from fullrank.kernels.cpu.records import scatter_on_cpu

        return scatter_on_cpu(columns, place_n, records)
    for start in range(0, num, TILE):
        end = min(start + TILE, num)
        made = np.empty(end - start, dtype=records.dtype)
        for values, field, at in columns:
            made[field][:, at] = values[start:end]
        if isinstance(place_n, slice):
            records[place_n][start:end] = made
        else:
            kept = place_n[start:end] >= 0
            records[place_n[start:end][kept]] = made[kept]
    return None
