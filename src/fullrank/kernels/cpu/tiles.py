"""Products of bf16 matrices by the processor's tile unit (AMX), for compiled bodies.

A tile is 16 rows of 64 bytes. `C += A · B` takes 16 rows of A (32 numbers each), 16 x 16 float32 of C, and B with
the two numbers of rows 2p and 2p + 1 side by side: a tile of *pairs*, row p holding 16 pairs. `left` operands are
plain rows of bf16 or such tiles; `right` operands are tiles of pairs, in columns of tiles.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import torch
from llvmlite import ir
from numba import types
from numba.core import cgutils

from fullrank.kernels.cpu.compiled import compiled, inlined, intrinsic
from fullrank.kernels.cpu.vectors import address, load, store, store_pairs, transpose

TILE = 256  # pairs in a tile
_BYTE, _WORD, _LONG = ir.IntType(8), ir.IntType(32), ir.IntType(64)


@cache
def has_tiles() -> bool:
    """Whether this processor has tiles for bf16, and the operating system lets this process use them."""
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("amx_bf16") and capabilities.get("avx512_bf16")) and torch.cpu._init_amx()


def _call(builder: Any, name: str, *arguments: Any) -> None:
    kind = ir.FunctionType(ir.VoidType(), [value.type for value in arguments])
    builder.call(cgutils.get_or_insert_function(builder.module, kind, f"llvm.x86.{name}"), arguments)


@intrinsic
def begin_tiles(_: Any) -> Any:
    """Eight tiles of 16 rows of 64 bytes, for this thread until `end_tiles`."""
    shape = [1, 0, *[0] * 14, *[64, 0] * 8, *[0] * 16, *[16] * 8, *[0] * 8]

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        constant = cgutils.create_constant_array(_BYTE, [_BYTE(value) for value in shape])
        memory = cgutils.alloca_once_value(builder, constant)
        _call(builder, "ldtilecfg", builder.bitcast(memory, _BYTE.as_pointer()))
        return context.get_dummy_value()

    return types.void(), codegen


@intrinsic
def end_tiles(_: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _call(builder, "tilerelease")
        return context.get_dummy_value()

    return types.void(), codegen


@intrinsic
def _zero(_: Any, tile: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _call(builder, "tilezero", _BYTE(tile.literal_value))
        return context.get_dummy_value()

    return types.void(tile), codegen


def _moves(name: str) -> Any:
    @intrinsic
    def move(_: Any, tile: Any, array: Any, place: Any, stride: Any) -> Any:
        """Tile from or to the array at `place`, its rows `stride` bytes apart."""

        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            where = address(context, builder, _BYTE, signature.args[1], arguments[1], arguments[2])
            _call(builder, name, _BYTE(tile.literal_value), where, arguments[3])
            return context.get_dummy_value()

        return types.void(tile, array, types.int64, types.int64), codegen

    return move


_load, _store = _moves("tileloadd64"), _moves("tilestored64")


@intrinsic
def _multiply(_: Any, to: Any, left: Any, right: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _call(builder, "tdpbf16ps", *(_BYTE(tile.literal_value) for tile in (to, left, right)))
        return context.get_dummy_value()

    return types.void(to, left, right), codegen


@inlined
def product(left, place, stride, step, below, right, column, beside, steps, to, at, width, add):
    """A block of 32 x 32 float32 at `to[at]`, rows `width` numbers apart; `add`: added to what is there.

    `left[place]`: rows `stride` bytes apart, the next 32 of the inner axis `step` elements on, the lower 16 rows
    `below` elements on. `right[column]`: a column of tiles, the next 16 columns `beside` elements on. `steps` times 32
    is the inner axis.
    """
    lower = at + 16 * width
    if add:
        _load(0, to, at, 4 * width)
        _load(1, to, at + 16, 4 * width)
        _load(2, to, lower, 4 * width)
        _load(3, to, lower + 16, 4 * width)
    else:
        _zero(0)
        _zero(1)
        _zero(2)
        _zero(3)
    for k in range(steps):
        _load(4, left, place + k * step, stride)  # all loads first: a tenth faster than between the products
        _load(5, left, place + below + k * step, stride)
        _load(6, right, column + k * TILE, 64)
        _load(7, right, column + beside + k * TILE, 64)
        _multiply(0, 4, 6)
        _multiply(1, 4, 7)
        _multiply(2, 5, 6)
        _multiply(3, 5, 7)
    _store(0, to, at, 4 * width)
    _store(1, to, at + 16, 4 * width)
    _store(2, to, lower, 4 * width)
    _store(3, to, lower + 16, 4 * width)


@compiled
def tile_memory(num, sample):
    """`num` elements like those of `sample`, beginning at a cache line."""
    size = sample.itemsize
    memory = np.empty(num + 64 // size, dtype=sample.dtype)
    skip = (-memory.ctypes.data % 64) // size
    return memory[skip : skip + num]


@compiled
def pack_weight(weight, place, inner, outer, to):
    """The matrix `[inner, outer]` of float32 at `weight[place]` as a right operand: for every 16 columns the tiles of
    the inner axis one after another."""
    tiles = inner // 32
    for p in range(inner // 2):
        row = place + 2 * p * outer
        at = (p // 16) * TILE + (p % 16) * 16
        for c in range(outer // 16):
            store_pairs(to, at + c * tiles * TILE, load(weight, row + c * 16), load(weight, row + outer + c * 16))


@compiled
def pack_weight_transposed(weight, place, outer, inner, scratch, to):
    """The transpose of the matrix `[outer, inner]` of float32 at `weight[place]` as a right operand."""
    tiles = inner // 32
    plain = scratch.view(np.int16)
    for c in range(outer // 16):
        for k in range(tiles):
            for row in range(16):
                at = place + (c * 16 + row) * inner + k * 32
                store(plain, row * 32, load(weight, at))
                store(plain, row * 32 + 16, load(weight, at + 16))
            transpose(to, (c * tiles + k) * TILE, scratch, 0)


@compiled
def pack_rows(x, place, stride, rows, columns, to):
    """`rows` rows of bf16 at `x[place]`, `stride` apart, as a right operand whose inner axis is the rows."""
    tiles = rows // 32
    for p in range(rows // 2):
        row = place + 2 * p * stride
        at = (p // 16) * TILE + (p % 16) * 16
        for c in range(columns // 16):
            store_pairs(to, at + c * tiles * TILE, load(x, row + c * 16), load(x, row + stride + c * 16))


@compiled
def pack_rows_transposed(x, place, stride, rows, columns, scratch, to):
    """The same rows transposed, as a left operand of tiles: for every 16 columns the tiles of the rows one after
    another."""
    tiles = rows // 32
    for k in range(tiles):
        for c in range(columns // 16):
            at = place + k * 32 * stride + c * 16
            for p in range(16):
                low, high = load(x, at + 2 * p * stride), load(x, at + (2 * p + 1) * stride)
                store_pairs(scratch, p * 16, low, high)
            transpose(to, (c * tiles + k) * TILE, scratch, 0)
