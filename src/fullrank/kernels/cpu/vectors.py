"""Sixteen float32 in one register, as a value of compiled functions; bf16 in memory.

`load`, `load_halves` and `spread` make one, `+ - * /`, `fma`, `exp` and their kin work on them, `store` and
`store_pairs` write them. An array is of float32, or of bf16 as an int16 view, or of pairs of bf16 (the lower 16 bits
are the first of the pair) as an int32 view: Numba knows no bf16. Rounding to bf16 is to nearest even, as torch's.
"""

from __future__ import annotations

import operator
from typing import Any

from llvmlite import ir
from numba import extending, types
from numba.core import cgutils

from fullrank.kernels.cpu.compiled import exponential, intrinsic, summed

LANES = 16


class _Bf16(ir.Type):
    """LLVM's bfloat, which llvmlite does not name."""

    def _to_string(self) -> str:
        return "bfloat"


class _Vector(types.Type):
    def __init__(self) -> None:
        super().__init__(name="float32x16")


_vector: Any = _Vector()
_F32 = ir.VectorType(ir.FloatType(), LANES)
_I32 = ir.VectorType(ir.IntType(32), LANES)
_I16 = ir.VectorType(ir.IntType(16), LANES)
_BF16 = ir.VectorType(_Bf16(), LANES)


@extending.register_model(_Vector)
class _VectorModel(extending.models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, _F32)


def address(context: Any, builder: Any, of: ir.Type, kind: Any, array: Any, place: Any) -> Any:
    """Where the flat array's element `place` lies, as a pointer to `of`."""
    element = builder.gep(context.make_array(kind)(context, builder, array).data, [place])
    return builder.bitcast(element, of.as_pointer())


def _read(builder: Any, where: Any, align: int) -> Any:
    value = builder.load(where)
    value.align = align
    return value


def _rounded(builder: Any, value: Any) -> Any:
    """The 16 bits of each number as bf16."""
    return builder.bitcast(builder.fptrunc(value, _BF16), _I16)


def _loaded(context: Any, builder: Any, kind: Any, array: Any, place: Any, lanes: int) -> Any:
    """Float32, as it lies there or of bf16."""
    if kind.dtype == types.int16:
        bits = _read(builder, address(context, builder, ir.VectorType(ir.IntType(16), lanes), kind, array, place), 2)
        words = ir.VectorType(ir.IntType(32), lanes)
        shifted = builder.shl(builder.zext(bits, words), ir.Constant(words, [16] * lanes))
        return builder.bitcast(shifted, ir.VectorType(ir.FloatType(), lanes))
    return _read(builder, address(context, builder, ir.VectorType(ir.FloatType(), lanes), kind, array, place), 4)


@intrinsic
def load(_: Any, array: Any, place: Any) -> Any:
    """`array[place : place + 16]`."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array, place = arguments
        return _loaded(context, builder, signature.args[0], array, place, LANES)

    return _vector(array, types.int64), codegen


@intrinsic
def load_halves(_: Any, array: Any, low: Any, high: Any) -> Any:
    """`array[low : low + 8]` and, beside it, `array[high : high + 8]`."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array, *places = arguments
        halves = [_loaded(context, builder, signature.args[0], array, place, LANES // 2) for place in places]
        return builder.shuffle_vector(*halves, ir.Constant(_I32, list(range(LANES))))

    return _vector(array, types.int64, types.int64), codegen


@intrinsic
def store(_: Any, array: Any, place: Any, value: Any) -> Any:
    """`array[place : place + 16] = value`."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        (kind, *_), (array, place, value) = signature.args, arguments
        value = _rounded(builder, value) if kind.dtype == types.int16 else value
        builder.store(value, address(context, builder, value.type, kind, array, place)).align = kind.dtype.bitwidth // 8
        return context.get_dummy_value()

    return types.void(array, types.int64, value), codegen


@intrinsic
def store_pairs(_: Any, array: Any, place: Any, low: Any, high: Any) -> Any:
    """`array[place + i] = (low[i], high[i])` (pairs of bf16) for 16 places."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        first, second = (builder.zext(_rounded(builder, value), _I32) for value in arguments[2:])
        pairs = builder.or_(first, builder.shl(second, ir.Constant(_I32, [16] * LANES)))
        where = address(context, builder, _I32, signature.args[0], *arguments[:2])
        builder.store(pairs, where).align = 4
        return context.get_dummy_value()

    return types.void(array, types.int64, low, high), codegen


@intrinsic
def transpose(_: Any, to: Any, i: Any, source: Any, j: Any) -> Any:
    """The 16 x 16 matrix of 32 bits at `source[j]` (rows one after another) transposed to `to[i]`."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kinds, word = signature.args, ir.IntType(32)

        def at(kind: Any, array: Any, place: Any, row: int) -> Any:
            return builder.gep(address(context, builder, _I32, kind, array, place), [ir.Constant(ir.IntType(64), row)])

        rows = [_read(builder, at(kinds[2], arguments[2], arguments[3], row), 4) for row in range(LANES)]
        for width in (1, 2, 4, 8):  # swap blocks of `width` across the diagonal of blocks of 2 * width
            lower = [lane if not lane & width else lane - width + LANES for lane in range(LANES)]
            upper = [lane + width if not lane & width else lane + LANES for lane in range(LANES)]
            masks = [ir.Constant(ir.VectorType(word, LANES), mask) for mask in (lower, upper)]
            for row in range(LANES):
                if not row & width:
                    pair = rows[row], rows[row + width]
                    rows[row], rows[row + width] = (builder.shuffle_vector(*pair, mask) for mask in masks)
        for row, value in enumerate(rows):
            builder.store(value, at(kinds[0], arguments[0], arguments[1], row)).align = 4
        return context.get_dummy_value()

    return types.void(to, types.int64, source, types.int64), codegen


@intrinsic
def spread(_: Any, number: Any) -> Any:
    """The number (float32) in all sixteen places."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        one = builder.insert_element(ir.Constant(_F32, ir.Undefined), arguments[0], ir.IntType(32)(0))
        return builder.shuffle_vector(one, ir.Constant(_F32, ir.Undefined), ir.Constant(_I32, [0] * LANES))

    return _vector(types.float32), codegen


@intrinsic
def number(_: Any, array: Any, place: Any) -> Any:
    """`array[place]`, of bf16, too."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array, place = arguments
        one = _loaded(context, builder, signature.args[0], array, place, 1)
        return builder.extract_element(one, ir.IntType(32)(0))

    return types.float32(array, types.int64), codegen


@intrinsic
def put(_: Any, array: Any, place: Any, value: Any) -> Any:
    """`array[place] = value`, in bf16, too."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        (kind, *_), (array, place, value) = signature.args, arguments
        if kind.dtype == types.int16:
            value = builder.bitcast(builder.fptrunc(value, _Bf16()), ir.IntType(16))
        builder.store(value, address(context, builder, value.type, kind, array, place))
        return context.get_dummy_value()

    return types.void(array, types.int64, types.float32), codegen


@intrinsic
def total(_: Any, value: Any) -> Any:
    """The sum of the sixteen, by halves (a fixed order)."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return summed(builder, arguments[0])

    return types.float32(value), codegen


@intrinsic
def fma(_: Any, a: Any, b: Any, c: Any) -> Any:
    """`a * b + c`, rounded once."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _call(builder, "fma", *arguments)

    return _vector(a, b, c), codegen


@intrinsic
def clip(_: Any, a: Any, bound: Any) -> Any:
    """`a` between `-bound` and `bound`; NaN becomes a bound."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        a, bound = arguments
        below = builder.select(builder.fcmp_ordered("<", a, bound), a, bound)
        least = builder.fneg(bound)
        return builder.select(builder.fcmp_ordered(">", below, least), below, least)

    return _vector(a, bound), codegen


@intrinsic
def absolute(_: Any, a: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _call(builder, "fabs", *arguments)

    return _vector(a), codegen


@intrinsic
def select_above(_: Any, a: Any, b: Any, yes: Any, no: Any) -> Any:
    """`yes` where a > b, elsewhere `no`."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        a, b, yes, no = arguments
        return builder.select(builder.fcmp_ordered(">", a, b), yes, no)

    return _vector(a, b, yes, no), codegen


@intrinsic
def exp(_: Any, a: Any) -> Any:
    """`exponential`."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return exponential(builder, arguments[0])

    return _vector(a), codegen


def _call(builder: Any, name: str, *arguments: Any) -> Any:
    kind = ir.FunctionType(_F32, [_F32] * len(arguments))
    function = cgutils.get_or_insert_function(builder.module, kind, f"llvm.{name}.v{LANES}f32")
    return builder.call(function, arguments)


def _operator(symbol: Any, instruction: str) -> None:
    @intrinsic
    def operation(_: Any, a: Any, b: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return getattr(builder, instruction)(*arguments)

        return _vector(a, b), codegen

    @extending.overload(symbol)
    def overloaded(a, b):  # without types: its names must be those of the function it gives
        if a is _vector and b is _vector:
            return lambda a, b: operation(a, b)
        return None


_operator(operator.add, "fadd")
_operator(operator.sub, "fsub")
_operator(operator.mul, "fmul")
_operator(operator.truediv, "fdiv")
