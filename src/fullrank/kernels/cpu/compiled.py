"""What compiled bodies are made of: Numba without its lock, and operations on whole rows of a table.

A row operation reads and writes `width` consecutive float32 as one vector, `width` being a constant of the compiled
function (bodies are made by `functools.cache`d functions of the width). Numba's own loop over the elements cannot know
that two arrays don't overlap, so it stays scalar: two to four times slower on rows of 16.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import extending, njit, types
from numba.core import cgutils

compiled: Any = njit(nogil=True, cache=True, error_model="numpy")
intrinsic: Any = extending.intrinsic(prefer_literal=True)  # of a function that gives (signature, instructions)


def load_row(context: Any, builder: Any, kind: Any, array: Any, place: Any, vector: ir.VectorType) -> Any:
    """The instructions that read the row of `array` that begins at `place`."""
    value = builder.load(builder.bitcast(_address(context, builder, kind, array, place), vector.as_pointer()))
    value.align = 4
    return value


def store_row(context: Any, builder: Any, kind: Any, array: Any, place: Any, value: Any) -> None:
    """The instructions that write it."""
    address = _address(context, builder, kind, array, place)
    builder.store(value, builder.bitcast(address, value.type.as_pointer())).align = 4


def spread(builder: Any, number: Any, vector: ir.VectorType) -> Any:
    """The number at every place of a vector."""
    undefined, word = ir.Constant(vector, ir.Undefined), ir.IntType(32)
    first = builder.insert_element(undefined, number, word(0))
    return builder.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(word, vector.count), [0] * vector.count))


def _address(context: Any, builder: Any, kind: Any, array: Any, place: Any) -> Any:
    return builder.gep(context.make_array(kind)(context, builder, array).data, [place])


@intrinsic
def prefetch(_: Any, array: Any, place: Any) -> Any:
    """Ask for the cache line of `array[place]`, which will be read or written soon."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        address = _address(context, builder, signature.args[0], *arguments)
        byte, word = ir.IntType(8).as_pointer(), ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [byte, word, word, word])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        builder.call(function, [builder.bitcast(address, byte), word(0), word(3), word(1)])
        return context.get_dummy_value()

    return types.void(array, types.int64), codegen


@intrinsic
def copy_row(_: Any, to: Any, i: Any, source: Any, j: Any, width: Any) -> Any:
    """`to[i : i + width] = source[j : j + width]`."""
    vector = ir.VectorType(ir.FloatType(), width.literal_value)

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kinds = signature.args
        value = load_row(context, builder, kinds[2], arguments[2], arguments[3], vector)
        store_row(context, builder, kinds[0], arguments[0], arguments[1], value)
        return context.get_dummy_value()

    return types.void(to, types.int64, source, types.int64, width), codegen


@intrinsic
def add_row(_: Any, to: Any, i: Any, scale: Any, source: Any, j: Any, width: Any) -> Any:
    """`to[i : i + width] += scale * source[j : j + width]`; product and sum are rounded each."""
    vector = ir.VectorType(ir.FloatType(), width.literal_value)

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kinds = signature.args
        value = load_row(context, builder, kinds[3], arguments[3], arguments[4], vector)
        before = load_row(context, builder, kinds[0], arguments[0], arguments[1], vector)
        after = builder.fadd(before, builder.fmul(spread(builder, arguments[2], vector), value))
        store_row(context, builder, kinds[0], arguments[0], arguments[1], after)
        return context.get_dummy_value()

    return types.void(to, types.int64, types.float32, source, types.int64, width), codegen


@intrinsic
def sum_of_squares(_: Any, source: Any, j: Any, width: Any) -> Any:
    """The sum of the squares of `source[j : j + width]`, by halves (a fixed order)."""
    vector = ir.VectorType(ir.FloatType(), width.literal_value)

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        value = load_row(context, builder, signature.args[0], arguments[0], arguments[1], vector)
        number = ir.FloatType()
        kind = ir.FunctionType(number, [number, vector])
        name = f"llvm.vector.reduce.fadd.v{vector.count}f32"
        function = cgutils.get_or_insert_function(builder.module, kind, name)
        return builder.call(function, [number(0.0), builder.fmul(value, value)], fastmath=("reassoc",))

    return types.float32(source, types.int64, width), codegen
