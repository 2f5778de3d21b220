"""Reading rows of mapped files on a CPU, by more threads than it has cores: most of them wait."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import torch
from llvmlite import ir
from numba import types
from torch import Tensor

from fullrank.kernels.cpu.compiled import LANES, NUMBER, compiled, copy_row, intrinsic, prefetch, prefetch_at
from fullrank.kernels.disk_rows import Chunks, Held
from fullrank.kernels.parts import in_waiting_parts

AHEAD = 16  # rows between asking for one and reading it
GRAIN = 256  # rows a thread
_NO_SLOTS = np.zeros(0, dtype=np.int32)
_NO_ROWS = np.zeros(0, dtype=np.float32)


def read_rows_on_cpu(chunks: Chunks, rows_N: Tensor, count: int, held: Held | None) -> Tensor:
    """`read_rows`."""
    x_NC = torch.empty(len(rows_N), count)
    in_waiting_parts(
        _body(count),
        len(rows_N),
        GRAIN,
        chunks.addresses,
        chunks.rows.bit_length() - 1,
        chunks.width,
        rows_N.contiguous().numpy(),
        _NO_SLOTS if held is None else held.slot_S.numpy(),
        _NO_ROWS if held is None else held.rows_CD.numpy().reshape(-1),
        x_NC.numpy().reshape(-1),
    )
    return x_NC


@cache
def _body(count: int) -> Any:
    whole = count - count % LANES

    @compiled
    def body(low, high, addresses, shift, width, rows, slots, held, x):
        inside = (1 << shift) - 1
        for i in range(low, high):
            ahead = rows[min(i + AHEAD, high - 1)]
            prefetch_at(addresses[ahead >> shift] + 4 * width * (ahead & inside))
            if len(slots):
                prefetch(slots, rows[min(i + 2 * AHEAD, high - 1)])
            slot = slots[rows[i]] if len(slots) else 0
            if slot > 0:
                copy_row(x, i * count, held, slot * count, count)
                continue
            address = addresses[rows[i] >> shift] + 4 * width * (rows[i] & inside)
            for at in range(0, whole, LANES):
                copy_at(x, i * count + at, address + 4 * at, LANES)
            for at in range(whole, count):
                copy_at(x, i * count + at, address + 4 * at, 1)

    return body


@intrinsic
def copy_at(_: Any, array: Any, place: Any, address: Any, count: Any) -> Any:
    """`array[place : place + count]` (float32) = so many numbers that begin at an address; `count` is a literal."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        vector = ir.VectorType(NUMBER, count.literal_value)
        value = builder.load(builder.inttoptr(arguments[2], vector.as_pointer()))
        value.align = 4
        to = builder.gep(context.make_array(array)(context, builder, arguments[0]).data, [arguments[1]])
        store = builder.store(value, builder.bitcast(to, vector.as_pointer()))
        store.align = 4
        return context.get_dummy_value()

    return types.void(array, types.int64, types.int64, count), codegen
