"""Records for a CPU: a few records are made in the first cache, a piece of every column at a time, then each is copied
to where it belongs.

Columns of one length lie at distances that share their cache sets; reading one value of each in turn throws a line out
before its next value is read, ten times slower than lines read whole. Columns are handed over by address, so that one
body serves any number of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types

from fullrank.kernels.cpu.compiled import compiled, intrinsic, prefetch
from fullrank.kernels.parts import even_cuts, in_parts

TILE = 128  # records: some 20 KB, and eight lines of a column of 4 bytes
GRAIN = 4096  # records a thread
KINDS = (np.int64, np.int32, np.int8)


def scatter_on_cpu(columns: Sequence[Any], place_n: np.ndarray | slice, records: np.ndarray) -> None:
    """`scatter`."""
    step, begins = records.dtype.itemsize, records.dtype.fields or {}
    held, arguments = [], []
    for kind in KINDS:
        size = np.dtype(kind).itemsize
        mine = [(np.ascontiguousarray(values), name, at) for values, name, at in columns if values.itemsize == size]
        held += [values for values, _, _ in mine]  # an address keeps nothing alive
        arguments.append(np.array([values.ctypes.data for values, _, _ in mine], dtype=np.int64))
        to_C = [(begins[name][1] + at * size) // size for _, name, at in mine]
        arguments.append(np.array(to_C, dtype=np.int64))
    unit = next(kind for kind in KINDS if step % np.dtype(kind).itemsize == 0)
    first, places = (place_n.start, np.empty(0, np.int32)) if isinstance(place_n, slice) else (0, place_n)
    whole = records.view(np.int8).view(unit)
    in_parts(_body, even_cuts(len(held[0]), GRAIN), first, places, step, *arguments, whole)


@compiled
def _body(low, high, first, place, step, from8, to8, from4, to4, from1, to1, out):
    tile8 = np.empty(TILE * (step + 7) // 8 + 1, dtype=np.int64)
    tile4, tile1 = tile8.view(np.int32), tile8.view(np.int8)
    tile = tile8.view(out.dtype)
    width = step // out.itemsize
    for start in range(low, high, TILE):
        size = min(TILE, high - start)
        if len(place):
            for i in range(size):
                to = np.int64(place[start + i]) * width
                if to >= 0:
                    for line in range(0, width, 64 // out.itemsize):
                        prefetch(out, to + line)
        for c in range(len(from8)):
            _turn(from8[c], start, size, tile8, to8[c], step // 8)
        for c in range(len(from4)):
            _turn(from4[c], start, size, tile4, to4[c], step // 4)
        for c in range(len(from1)):
            _turn(from1[c], start, size, tile1, to1[c], step)
        for i in range(size):
            to = np.int64(place[start + i]) if len(place) else first + start + i
            if to >= 0:
                for at in range(width):
                    out[to * width + at] = tile[i * width + at]


@compiled
def _turn(address, start, size, tile, at, step):
    """A piece of a column into its field of every record of the tile."""
    for i in range(size):
        tile[np.uint64(at + i * step)] = _read(address, start + i, tile)  # unsigned: never counted from the end


@intrinsic
def _read(_: Any, address: Any, place: Any, like: Any) -> Any:
    """Value `place` of the array at `address`, of the type of `like`."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = context.get_data_type(signature.return_type)
        pointer = builder.inttoptr(arguments[0], ir.PointerType(kind))
        return builder.load(builder.gep(pointer, [arguments[1]]))

    return like.dtype(types.int64, types.int64, like), codegen
