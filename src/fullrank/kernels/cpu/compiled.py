"""What compiled bodies are made of: Numba without its lock, and vectors.

Numba's own loop over elements cannot know that two arrays don't overlap, and it has no bfloat16: what matters here is
written on vectors instead. `on_vectors` makes of an expression a function that a loop calls on some consecutive
elements of each of its arrays, their number being a constant of the loop: a whole row of a table (bodies are made by
`functools.cache`d functions of the width), or `LANES` elements and then one by one.

Arithmetic is float32, every operation rounded (no contraction). A bfloat16 tensor comes as its bits (`elements`); what
is stored in it is rounded to nearest, ties to even.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from inspect import Parameter, Signature, signature
from typing import TYPE_CHECKING, Any

import numpy as np
from llvmlite import ir
from numba import extending, njit, types
from numba.core import cgutils

if TYPE_CHECKING:
    from torch import Tensor

compiled: Any = njit(nogil=True, cache=True, error_model="numpy")
# Of small functions that compiled ones call: a call hands over every array in seven words, on the stack, and counts a
# reference to it, which two threads can't do at once: together more than the work of a few dozen instructions.
_inlined: dict[str, Any] = {"forceinline": True, "_nrt": False}  # options that Numba's types leave out
inlined: Any = njit(nogil=True, cache=True, error_model="numpy", **_inlined)
intrinsic: Any = extending.intrinsic(prefer_literal=True)  # of a function that gives (signature, instructions)
LANES = 16  # float32 of the longest register there is

WORD, HALF, NUMBER = ir.IntType(32), ir.IntType(16), ir.FloatType()
_BYTES = ir.IntType(8).as_pointer()


def elements(x: Tensor) -> np.ndarray:
    """A contiguous float32 or bfloat16 tensor, flat, as compiled bodies take it."""
    import torch  # here: bodies that are of numpy alone need not wait for it

    x = x.detach().view(-1)
    return x.view(torch.uint16).numpy() if x.dtype == torch.bfloat16 else x.numpy()


class Vector:
    """Some float32 inside a compiled function; operations write instructions."""

    def __init__(self, builder: Any, value: Any) -> None:
        self.builder, self.value = builder, value

    def __add__(self, other: Vector) -> Vector:
        return Vector(self.builder, self.builder.fadd(self.value, other.value))

    def __sub__(self, other: Vector) -> Vector:
        return Vector(self.builder, self.builder.fsub(self.value, other.value))

    def __mul__(self, other: Vector) -> Vector:
        return Vector(self.builder, self.builder.fmul(self.value, other.value))

    def __truediv__(self, other: Vector) -> Vector:
        return Vector(self.builder, self.builder.fdiv(self.value, other.value))

    def sqrt(self) -> Vector:
        kind = ir.FunctionType(self.value.type, [self.value.type])
        name = f"llvm.sqrt.v{self.value.type.count}f32"
        root = cgutils.get_or_insert_function(self.builder.module, kind, name)
        return Vector(self.builder, self.builder.call(root, [self.value]))

    def sigmoid(self) -> Vector:
        """1 / (1 + e^-x)."""
        one = ir.Constant(self.value.type, [1.0] * self.value.type.count)
        below = self.builder.fadd(one, exponential(self.builder, self.builder.fneg(self.value)))
        return Vector(self.builder, self.builder.fdiv(one, below))

    def sum(self) -> Vector:
        """The sum of all (in a fixed order) at every place."""
        return Vector(self.builder, _spread(self.builder, summed(self.builder, self.value), self.value.type))

    def zero_unless_above(self, other: Vector, low: float) -> Vector:
        """Itself where `other` > `low` or is NaN, elsewhere 0."""
        floor, zero = (ir.Constant(self.value.type, [number] * self.value.type.count) for number in (low, 0.0))
        above = self.builder.fcmp_unordered(">", other.value, floor)
        return Vector(self.builder, self.builder.select(above, self.value, zero))


def summed(builder: Any, value: Any, begin: Any = None) -> Any:
    """`begin` (0 if not given) and the sum of a vector's float32, by halves (a fixed order)."""
    kind = ir.FunctionType(NUMBER, [NUMBER, value.type])
    name = f"llvm.vector.reduce.fadd.v{value.type.count}f32"
    function = cgutils.get_or_insert_function(builder.module, kind, name)
    return builder.call(function, [NUMBER(0.0) if begin is None else begin, value], fastmath=("reassoc",))


def exponential(builder: Any, a: Any) -> Any:
    """`e^a` of some float32 to two units of the last place, 0 below -87, cut at 88: 2^(nearest integer), by its bits,
    times a Taylor polynomial of the rest. NaN stays NaN."""
    vector = a.type
    words = ir.VectorType(WORD, vector.count)

    def all_of(number: float) -> ir.Constant:
        return ir.Constant(vector, [number] * vector.count)

    def call(name: str, *arguments: Any) -> Any:
        kind = ir.FunctionType(vector, [vector] * len(arguments))
        name = f"llvm.{name}.v{vector.count}f32"
        return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), arguments)

    none = builder.fcmp_unordered("uno", a, a)
    low = builder.fcmp_unordered("<", a, all_of(-87.0))
    high = builder.fcmp_ordered(">", a, all_of(88.0))
    at = builder.select(low, all_of(0.0), builder.select(high, all_of(88.0), a))
    whole = call("rint", builder.fmul(at, all_of(1 / math.log(2.0))))
    first = 0.693359375  # ln 2 in two parts: the product with the first is exact
    rest = call("fma", whole, all_of(-first), at)
    rest = call("fma", whole, all_of(first - math.log(2.0)), rest)
    power = all_of(1 / math.factorial(7))
    for n in range(6, -1, -1):
        power = call("fma", power, rest, all_of(1 / math.factorial(n)))
    exponent = builder.shl(builder.fptosi(whole, words), ir.Constant(words, [23] * vector.count))
    power = builder.bitcast(builder.add(builder.bitcast(power, words), exponent), vector)
    return builder.select(none, a, builder.select(low, all_of(0.0), power))


def on_vectors(arrays: int, writes: tuple[int, ...]) -> Callable[[Callable[..., tuple[Vector, ...]]], Any]:
    """Of `expression(*vectors, *numbers) -> new vectors` a function for compiled code, `(array, place, array, place, …,
    number, …, count)`: it reads `count` (a literal) elements of each of so many `arrays` from its place on, and writes
    what the expression gives into those numbered `writes`. Numbers are float32 and reach every element."""

    def make(expression: Callable[..., tuple[Vector, ...]]) -> Any:
        def function(_: Any, *kinds: Any) -> Any:
            vector = ir.VectorType(NUMBER, kinds[-1].literal_value)
            own = kinds[: 2 * arrays : 2]

            def codegen(context: Any, builder: Any, _: Any, arguments: Any) -> Any:
                pairs = zip(arguments[: 2 * arrays : 2], arguments[1 : 2 * arrays : 2], own, strict=True)
                addresses = [
                    builder.gep(context.make_array(kind)(context, builder, array).data, [place])
                    for array, place, kind in pairs
                ]
                values = [_load(builder, *pair, vector) for pair in zip(addresses, own, strict=True)]
                values += [_spread(builder, number, vector) for number in arguments[2 * arrays : -1]]
                new = expression(*(Vector(builder, value) for value in values))
                for at, result in zip(writes, new, strict=True):
                    _store(builder, result.value, addresses[at], own[at])
                return context.get_dummy_value()

            places = (kind for array in own for kind in (array, types.int64))
            return types.void(*places, *[types.float32] * (len(kinds) - 1 - 2 * arrays), kinds[-1]), codegen

        # Numba wants to be told how many arguments there are: tuples of arrays it would count references of, in loops.
        names = ["context", *(f"at_{name}" for name in range(arrays)), *signature(expression).parameters, "count"]
        kind = Parameter.POSITIONAL_ONLY
        function.__signature__ = Signature([Parameter(name, kind) for name in names])  # pyright: ignore[reportFunctionMemberAccess]
        return intrinsic(function)

    return make


@intrinsic
def prefetch(_: Any, array: Any, place: Any) -> Any:
    """Ask for the cache line of `array[place]`, which will be read or written soon."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        address = builder.gep(context.make_array(array)(context, builder, arguments[0]).data, [arguments[1]])
        _prefetch(builder, builder.bitcast(address, _BYTES))
        return context.get_dummy_value()

    return types.void(array, types.int64), codegen


@intrinsic
def prefetch_at(_: Any, address: Any) -> Any:
    """As `prefetch`, of an address; nothing happens where its page is not in memory."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _prefetch(builder, builder.inttoptr(arguments[0], _BYTES))
        return context.get_dummy_value()

    return types.void(types.int64), codegen


def _prefetch(builder: Any, address: Any) -> None:
    """The instruction that asks for a cache line to read."""
    kind = ir.FunctionType(ir.VoidType(), [_BYTES, WORD, WORD, WORD])
    function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
    builder.call(function, [address, WORD(0), WORD(3), WORD(1)])


@intrinsic
def sum_of_squares(_: Any, array: Any, place: Any, count: Any) -> Any:
    """The sum of the squares of `array[place : place + count]`, in a fixed order."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        vector = ir.VectorType(NUMBER, count.literal_value)
        address = builder.gep(context.make_array(array)(context, builder, arguments[0]).data, [arguments[1]])
        value = _load(builder, address, array, vector)
        return summed(builder, builder.fmul(value, value))

    return types.float32(array, types.int64, count), codegen


@on_vectors(arrays=2, writes=(0,))
def copy_row(to: Vector, source: Vector) -> tuple[Vector, ...]:
    """to = source."""
    return (source,)


@on_vectors(arrays=2, writes=(0,))
def add_row(to: Vector, source: Vector, scale: Vector) -> tuple[Vector, ...]:
    """to += scale * source."""
    return (to + scale * source,)


def _load(builder: Any, address: Any, array: Any, vector: ir.VectorType) -> Any:
    """The instructions that read a vector of an array's elements as float32."""
    whole = array.dtype == types.float32
    stored = vector if whole else ir.VectorType(HALF, vector.count)
    value = builder.load(builder.bitcast(address, stored.as_pointer()))
    value.align = 4 if whole else 2
    if whole:
        return value
    words = ir.VectorType(WORD, vector.count)
    shift = ir.Constant(words, [16] * vector.count)
    return builder.bitcast(builder.shl(builder.zext(value, words), shift), vector)


def _store(builder: Any, value: Any, address: Any, array: Any) -> None:
    """The instructions that write it."""
    if array.dtype != types.float32:
        words = ir.VectorType(WORD, value.type.count)
        sixteen, one, half, nan = (ir.Constant(words, [n] * words.count) for n in (16, 1, 0x7FFF, 0x7FC0))
        bits = builder.bitcast(value, words)
        last = builder.and_(builder.lshr(bits, sixteen), one)
        rounded = builder.lshr(builder.add(bits, builder.add(last, half)), sixteen)
        is_nan = builder.fcmp_unordered("uno", value, value)  # which rounding would make an infinity, or a zero
        value = builder.trunc(builder.select(is_nan, nan, rounded), ir.VectorType(HALF, words.count))
    store = builder.store(value, builder.bitcast(address, value.type.as_pointer()))
    store.align = 4 if array.dtype == types.float32 else 2


def _spread(builder: Any, number: Any, vector: ir.VectorType) -> Any:
    """The number at every place of a vector."""
    undefined = ir.Constant(vector, ir.Undefined)
    first = builder.insert_element(undefined, number, WORD(0))
    return builder.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(WORD, vector.count), [0] * vector.count))
