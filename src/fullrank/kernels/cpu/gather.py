"""Gather for a CPU: ids are checked and moved to their tables' rows, then rows are copied, the next on their way."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor

from fullrank.kernels.cpu.compiled import compiled, copy_row, prefetch
from fullrank.kernels.parts import even_cuts, in_parts

AHEAD = 24  # rows between asking for one and reading it; 8 and 48 are a tenth slower
GRAIN = 4096  # ids a thread


def gather_on_cpu(
    weight_RD: Tensor, ids_nF: Tensor, base_F: Tensor, num_rows_F: Tensor
) -> tuple[Tensor, Tensor] | None:
    """`gather`; None where some id is out of range."""
    width, columns = weight_RD.shape[1], ids_nF.shape[-1]
    rows_nF = torch.empty(ids_nF.shape, dtype=torch.int64)
    x_nFD = torch.empty((*ids_nF.shape, width))
    good = in_parts(
        _body(width),
        even_cuts(ids_nF.numel() // columns, max(1, GRAIN // columns)),
        weight_RD.detach().numpy().reshape(-1),
        ids_nF.numpy().reshape(-1),
        base_F.numpy(),
        num_rows_F.numpy(),
        rows_nF.numpy().reshape(-1),
        x_nFD.numpy().reshape(-1),
    )
    return (x_nFD, rows_nF) if all(good) else None


@compiled
def find_rows(low, high, ids, base, num_rows, rows):
    """The rows of the owners' ids; whether all are in their tables."""
    columns = len(base)
    good = True
    for n in range(low, high):
        for f in range(columns):
            id = ids[n * columns + f]
            good &= (id >= 0) & (id < num_rows[f])
            rows[n * columns + f] = id + base[f]
    return good


@cache
def _body(width: int) -> Any:
    @compiled
    def body(low, high, weight, ids, base, num_rows, rows, x):
        if not find_rows(low, high, ids, base, num_rows, rows):
            return False
        columns = len(base)
        end = high * columns
        for i in range(low * columns, end):
            prefetch(weight, rows[min(i + AHEAD, end - 1)] * width)
            copy_row(x, i * width, weight, rows[i] * width, width)
        return True

    return body
