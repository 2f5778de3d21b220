"""Gather of packed rows for a CPU: as `gather`'s, each row widened to float32 in the registers it is copied by."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from llvmlite import ir
from numba import types
from torch import Tensor

from fullrank.kernels.cpu.compiled import NUMBER, WORD, compiled, copy_row, elements, intrinsic, prefetch
from fullrank.kernels.cpu.gather import AHEAD, find_rows
from fullrank.kernels.gather_compact import SCALE
from fullrank.kernels.parts import even_cuts, in_parts

GRAIN = 4096  # ids a thread
BYTE = ir.IntType(8)


def gather_bfloat16_on_cpu(rows_RD: Tensor, ids_nF: Tensor, base_F: Tensor, num_rows_F: Tensor) -> Tensor | None:
    """`gather_bfloat16`; None where some id is out of range."""
    width = rows_RD.shape[1]
    return _gathered(_bfloat16_body(width), elements(rows_RD), width, ids_nF, base_F, num_rows_F)


def gather_int8_on_cpu(packed_RB: Tensor, ids_nF: Tensor, base_F: Tensor, num_rows_F: Tensor) -> Tensor | None:
    """`gather_int8`; None where some id is out of range."""
    width = packed_RB.shape[1] - SCALE
    return _gathered(_int8_body(width), packed_RB.numpy().reshape(-1), width, ids_nF, base_F, num_rows_F)


def _gathered(body: Any, rows: Any, width: int, ids_nF: Tensor, base_F: Tensor, num_rows_F: Tensor) -> Tensor | None:
    columns = ids_nF.shape[-1]
    x_nFD = torch.empty((*ids_nF.shape, width))
    good = in_parts(
        body,
        even_cuts(ids_nF.numel() // columns, max(1, GRAIN // columns)),
        rows,
        ids_nF.numpy().reshape(-1),
        base_F.numpy(),
        num_rows_F.numpy(),
        torch.empty(ids_nF.numel(), dtype=torch.int64).numpy(),
        x_nFD.numpy().reshape(-1),
    )
    return x_nFD if all(good) else None


@cache
def _bfloat16_body(width: int) -> Any:
    @compiled
    def body(low, high, rows, ids, base, num_rows, found, x):
        if not find_rows(low, high, ids, base, num_rows, found):
            return False
        columns = len(base)
        end = high * columns
        for i in range(low * columns, end):
            prefetch(rows, found[min(i + AHEAD, end - 1)] * width)
            copy_row(x, i * width, rows, found[i] * width, width)
        return True

    return body


@cache
def _int8_body(width: int) -> Any:
    size = SCALE + width

    @compiled
    def body(low, high, rows, ids, base, num_rows, found, x):
        if not find_rows(low, high, ids, base, num_rows, found):
            return False
        columns = len(base)
        end = high * columns
        for i in range(low * columns, end):
            # Of rows of 20 bytes every fourth lies across two lines.
            next = found[min(i + AHEAD, end - 1)] * size
            prefetch(rows, next)
            prefetch(rows, next + size - 1)
            _scaled_row(x, i * width, rows, found[i] * size, width)
        return True

    return body


@intrinsic
def _scaled_row(_: Any, to: Any, i: Any, rows: Any, j: Any, count: Any) -> Any:
    """`to[i + k] = scale * numbers[k]` of the packed row that begins at byte `j`."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        vector = ir.VectorType(NUMBER, count.literal_value)
        to, i, rows, j, _ = arguments
        row = builder.gep(context.make_array(signature.args[2])(context, builder, rows).data, [j])
        scale = builder.load(builder.bitcast(row, NUMBER.as_pointer()))
        scale.align = 1
        stored = builder.gep(row, [ir.Constant(WORD, SCALE)])
        numbers = builder.load(builder.bitcast(stored, ir.VectorType(BYTE, vector.count).as_pointer()))
        numbers.align = 1
        undefined = ir.Constant(vector, ir.Undefined)
        places = ir.Constant(ir.VectorType(WORD, vector.count), [0] * vector.count)
        scales = builder.shuffle_vector(builder.insert_element(undefined, scale, WORD(0)), undefined, places)
        read = builder.fmul(builder.sitofp(numbers, vector), scales)
        address = builder.gep(context.make_array(signature.args[0])(context, builder, to).data, [i])
        builder.store(read, builder.bitcast(address, vector.as_pointer())).align = 4
        return context.get_dummy_value()

    return types.void(to, types.int64, rows, types.int64, count), codegen
