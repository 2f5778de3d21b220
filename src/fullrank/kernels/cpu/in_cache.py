"""Products and activations of a few dozen rows that lie in the first cache, as instructions on vectors.

Every array is flat float32; `N`, `A` are widths that are constants of the compiled function. A product keeps a tile of
its result in registers while it runs along the inner axis: no library is called, so a chain of products and activations
never leaves the cache. Product and sum may be fused into one rounding where the processor does that.
"""

from __future__ import annotations

import math
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils

from fullrank.kernels.cpu.compiled import intrinsic, summed

LANES = 16  # a compiler splits these where the processor's vectors are shorter
FUSED = ("contract",)
FLOAT, WORD, PLACE = ir.FloatType(), ir.IntType(32), ir.IntType(64)


@intrinsic
def multiply(
    _: Any, to: Any, i: Any, rows: Any, a: Any, j: Any, row_step: Any, step: Any, b: Any, k: Any, inner: Any, N: Any
) -> Any:
    """`to[r, :] += sum over x < inner of A[r, x] B[x, :]`, with to `[rows, N]` from i, `A[r, x] = a[j + r row_step +
    x step]` and B `[inner, N]` from k. Neither factor may overlap the result."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _product(context, builder, signature.args, arguments, N.literal_value, has_bias=False)
        return context.get_dummy_value()

    n = types.int64
    return types.void(to, n, n, a, n, n, n, b, n, n, N), codegen


@intrinsic
def affine(
    _: Any,
    to: Any,
    i: Any,
    rows: Any,
    a: Any,
    j: Any,
    row_step: Any,
    step: Any,
    b: Any,
    k: Any,
    inner: Any,
    N: Any,
    bias: Any,
    m: Any,
) -> Any:
    """`multiply`, with every row of the result begun as `bias[m : m + N]` instead of what is there."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _product(context, builder, signature.args, arguments, N.literal_value, has_bias=True)
        return context.get_dummy_value()

    n = types.int64
    return types.void(to, n, n, a, n, n, n, b, n, n, N, bias, n), codegen


def _product(context: Any, builder: Any, kinds: Any, arguments: Any, N: int, has_bias: bool) -> None:
    to, i, rows, a, j, row_step, step, b, k, inner = arguments[:10]
    pieces = _pieces(N)
    at_once = 8 if len(pieces) <= 3 else 4  # rows: 20 to 24 of 32 registers hold sums
    groups = [pieces[low : low + 6] for low in range(0, len(pieces), 6)]
    single = ir.VectorType(FLOAT, 1)

    def tile(first: Any, count: int, group: list[tuple[int, ir.VectorType]]) -> None:
        places = [builder.add(first, PLACE(r)) for r in range(count)]
        results = [builder.add(i, builder.mul(row, PLACE(N))) for row in places]
        sums = []
        for result in results:
            for at, vector in group:
                kind, array, begin = (kinds[11], arguments[11], arguments[12]) if has_bias else (kinds[0], to, result)
                sums.append(_begun(context, builder, kind, array, builder.add(begin, PLACE(at)), vector))
        left = [builder.add(j, builder.mul(row, row_step)) for row in places]
        with cgutils.for_range(builder, inner) as loop:
            right = builder.add(k, builder.mul(loop.index, PLACE(N)))
            values = [_load(context, builder, kinds[7], b, builder.add(right, PLACE(at)), v) for at, v in group]
            shift = builder.mul(loop.index, step)
            for r in range(count):
                number = _load(context, builder, kinds[3], a, builder.add(left[r], shift), single)
                number = builder.extract_element(number, WORD(0))
                for p, (_, vector) in enumerate(group):
                    term = builder.fmul(_spread(builder, number, vector), values[p], flags=FUSED)
                    _grow(builder, sums[r * len(group) + p], term)
        for r, result in enumerate(results):
            for p, (at, _) in enumerate(group):
                value = builder.load(sums[r * len(group) + p])
                _store(context, builder, kinds[0], to, builder.add(result, PLACE(at)), value)

    whole = builder.udiv(rows, PLACE(at_once))
    with cgutils.for_range(builder, whole) as loop:
        for group in groups:
            tile(builder.mul(loop.index, PLACE(at_once)), at_once, group)
    done = builder.mul(whole, PLACE(at_once))
    with cgutils.for_range(builder, builder.sub(rows, done)) as loop:
        for group in groups:
            tile(builder.add(done, loop.index), 1, group)


@intrinsic
def copy_rows(_: Any, to: Any, i: Any, source: Any, j: Any, rows: Any, N: Any) -> Any:
    """`to[i :] = source[j :]`, rows of N."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        to, i, source, j, rows, _ = arguments
        kinds = signature.args
        with cgutils.for_range(builder, rows) as loop:
            for at, vector in _pieces(N.literal_value):
                shift = builder.add(builder.mul(loop.index, PLACE(N.literal_value)), PLACE(at))
                value = _load(context, builder, kinds[2], source, builder.add(j, shift), vector)
                _store(context, builder, kinds[0], to, builder.add(i, shift), value)
        return context.get_dummy_value()

    n = types.int64
    return types.void(to, n, source, n, n, N), codegen


@intrinsic
def add_rows(_: Any, to: Any, i: Any, scale: Any, source: Any, j: Any, rows: Any, N: Any) -> Any:
    """`to[i :] += scale source[j :]`, rows of N."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        to, i, scale, source, j, rows, _ = arguments
        kinds = signature.args
        with cgutils.for_range(builder, rows) as loop:
            for at, vector in _pieces(N.literal_value):
                shift = builder.add(builder.mul(loop.index, PLACE(N.literal_value)), PLACE(at))
                place = builder.add(i, shift)
                value = _load(context, builder, kinds[3], source, builder.add(j, shift), vector)
                before = _load(context, builder, kinds[0], to, place, vector)
                after = _fused(builder, _spread(builder, scale, vector), value, before)
                _store(context, builder, kinds[0], to, place, after)
        return context.get_dummy_value()

    n = types.int64
    return types.void(to, n, types.float32, source, n, n, N), codegen


@intrinsic
def add_product(_: Any, to: Any, i: Any, source: Any, j: Any, a: Any, k: Any, b: Any, m: Any, N: Any) -> Any:
    """`to[i :] = source[j :] + a[k :] * b[m :]`, element by element of N."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kinds = signature.args
        for at, vector in _pieces(N.literal_value):
            x, y, z = (
                _load(context, builder, kinds[n], arguments[n], builder.add(arguments[n + 1], PLACE(at)), vector)
                for n in (2, 4, 6)
            )
            value = builder.fadd(x, builder.fmul(y, z, flags=FUSED), flags=FUSED)
            _store(context, builder, kinds[0], arguments[0], builder.add(arguments[1], PLACE(at)), value)
        return context.get_dummy_value()

    n = types.int64
    return types.void(to, n, source, n, a, n, b, n, N), codegen


@intrinsic
def dot(_: Any, a: Any, i: Any, b: Any, j: Any, N: Any) -> Any:
    """`sum of a[i + x] b[j + x]` over x < N, by halves of vectors (a fixed order)."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kinds, total = signature.args, FLOAT(0.0)
        for at, vector in _pieces(N.literal_value):
            x, y = (
                _load(context, builder, kinds[n], arguments[n], builder.add(arguments[n + 1], PLACE(at)), vector)
                for n in (0, 2)
            )
            total = summed(builder, builder.fmul(x, y), total)
        return total

    return types.float32(a, types.int64, b, types.int64, N), codegen


@intrinsic
def moments(_: Any, sums: Any, i: Any, h: Any, j: Any, rows: Any, A: Any) -> Any:
    """With `sums[i:]` as `[3, A]` and d = h[r, :] - sums[0]: `sums[1] += sum of d, sums[2] += sum of d²` over rows."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        sums, i, h, j, rows, _ = arguments
        kinds, width = signature.args, A.literal_value
        for at, vector in _pieces(width):
            places = [builder.add(i, PLACE(n * width + at)) for n in range(3)]
            shift = _load(context, builder, kinds[0], sums, places[0], vector)
            totals = [_begun(context, builder, kinds[0], sums, place, vector) for place in places[1:]]
            with cgutils.for_range(builder, rows) as loop:
                place = builder.add(j, builder.add(builder.mul(loop.index, PLACE(width)), PLACE(at)))
                off = builder.fsub(_load(context, builder, kinds[2], h, place, vector), shift)
                _grow(builder, totals[0], off)
                _grow(builder, totals[1], builder.fmul(off, off, flags=FUSED))
            for place, total in zip(places[1:], totals, strict=True):
                _store(context, builder, kinds[0], sums, place, builder.load(total))
        return context.get_dummy_value()

    n = types.int64
    return types.void(sums, n, h, n, n, A), codegen


@intrinsic
def gate_forward(
    _: Any, to: Any, i: Any, opened: Any, h: Any, j: Any, rows: Any, gate: Any, smooth: Any, A: Any
) -> Any:
    """`to = h (alpha + (1 - alpha) g)` of rows of A, and `opened = g` from 0 on, for `gate_backward`. `gate` is
    `[5, A]`: mean, 1 / deviation, alpha and two that `gate_backward` reads. g = sigmoid((h - mean) / deviation) if
    `smooth`, else [h > 0]."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        to, i, opened, h, j, rows, gate = arguments[:7]
        kinds, width = signature.args, A.literal_value
        for at, vector in _pieces(width):
            mean, inverse, alpha, _, _, rest = _constants(context, builder, kinds[6], gate, width, at, vector)
            with cgutils.for_range(builder, rows) as loop:
                shift = builder.add(builder.mul(loop.index, PLACE(width)), PLACE(at))
                value = _load(context, builder, kinds[3], h, builder.add(j, shift), vector)
                if smooth.literal_value:
                    g = _sigmoid(builder, builder.fmul(builder.fsub(value, mean), inverse), vector)
                else:
                    is_open = builder.fcmp_ordered(">", value, _of(vector, 0.0))
                    g = builder.select(is_open, _of(vector, 1.0), _of(vector, 0.0))
                _store(context, builder, kinds[2], opened, shift, g)
                result = builder.fmul(value, _fused(builder, rest, g, alpha))
                _store(context, builder, kinds[0], to, builder.add(i, shift), result)
        return context.get_dummy_value()

    n = types.int64
    return types.void(to, n, opened, h, n, n, gate, smooth, A), codegen


@intrinsic
def gate_backward(
    _: Any, grad: Any, opened: Any, h: Any, j: Any, rows: Any, gate: Any, sums: Any, m: Any, smooth: Any, A: Any
) -> Any:
    """The gradient of what `gate_forward` gave, in place, becomes that of h. `gate[3] + gate[4] h` is what mean and
    deviation add to it, both being functions of all h. `sums[m:]`, `[4, A]`, grows by the sums over rows of the
    gradients of alpha, of s = (h - mean) / deviation, of that times s, and of h (what is written)."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        grad, opened, h, j, rows, gate, sums, m = arguments[:8]
        kinds, width = signature.args, A.literal_value
        for at, vector in _pieces(width):
            mean, inverse, alpha, p, r, rest = _constants(context, builder, kinds[5], gate, width, at, vector)
            places = [builder.add(m, PLACE(n * width + at)) for n in range(4)]
            totals = [_begun(context, builder, kinds[6], sums, place, vector) for place in places]
            with cgutils.for_range(builder, rows) as loop:
                shift = builder.add(builder.mul(loop.index, PLACE(width)), PLACE(at))
                value = _load(context, builder, kinds[2], h, builder.add(j, shift), vector)
                given = _load(context, builder, kinds[0], grad, shift, vector)
                g = _load(context, builder, kinds[1], opened, shift, vector)
                result = builder.fmul(given, _fused(builder, rest, g, alpha))
                weighed = builder.fmul(builder.fmul(given, value), builder.fsub(_of(vector, 1.0), g))
                _grow(builder, totals[0], weighed)
                if smooth.literal_value:
                    standard = builder.fmul(builder.fsub(value, mean), inverse)
                    of_standard = builder.fmul(builder.fmul(weighed, g), rest)
                    _grow(builder, totals[1], of_standard)
                    _grow(builder, totals[2], builder.fmul(of_standard, standard, flags=FUSED))
                    result = _fused(builder, of_standard, inverse, result)
                    result = _fused(builder, r, value, builder.fadd(result, p))
                _grow(builder, totals[3], result)
                _store(context, builder, kinds[0], grad, shift, result)
            for place, total in zip(places, totals, strict=True):
                _store(context, builder, kinds[6], sums, place, builder.load(total))
        return context.get_dummy_value()

    n = types.int64
    return types.void(grad, opened, h, n, n, gate, sums, n, smooth, A), codegen


def _pieces(width: int) -> list[tuple[int, ir.VectorType]]:
    """Where the vectors of a row begin, and their kinds: as many whole ones as fit, then powers of two."""
    pieces, at, lanes = [], 0, LANES
    while at < width:
        while lanes > width - at:
            lanes //= 2
        pieces.append((at, ir.VectorType(FLOAT, lanes)))
        at += lanes
    return pieces


def _load(context: Any, builder: Any, kind: Any, array: Any, place: Any, vector: ir.VectorType) -> Any:
    value = builder.load(builder.bitcast(_address(context, builder, kind, array, place), vector.as_pointer()))
    value.align = 4
    return value


def _store(context: Any, builder: Any, kind: Any, array: Any, place: Any, value: Any) -> None:
    address = _address(context, builder, kind, array, place)
    builder.store(value, builder.bitcast(address, value.type.as_pointer())).align = 4


def _address(context: Any, builder: Any, kind: Any, array: Any, place: Any) -> Any:
    return builder.gep(context.make_array(kind)(context, builder, array).data, [place])


def _spread(builder: Any, number: Any, vector: ir.VectorType) -> Any:
    """The number at every place of a vector."""
    undefined = ir.Constant(vector, ir.Undefined)
    first = builder.insert_element(undefined, number, WORD(0))
    return builder.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(WORD, vector.count), [0] * vector.count))


def _begun(context: Any, builder: Any, kind: Any, array: Any, place: Any, vector: ir.VectorType) -> Any:
    """A variable, which the compiler keeps in a register, that begins as what is in the array."""
    total = cgutils.alloca_once(builder, vector)
    builder.store(_load(context, builder, kind, array, place, vector), total)
    return total


def _grow(builder: Any, total: Any, term: Any) -> None:
    builder.store(builder.fadd(builder.load(total), term, flags=FUSED), total)


def _fused(builder: Any, a: Any, b: Any, c: Any) -> Any:
    """a b + c."""
    return builder.fadd(builder.fmul(a, b, flags=FUSED), c, flags=FUSED)


def _of(vector: ir.VectorType, number: float) -> ir.Constant:
    return ir.Constant(vector, [number] * vector.count)


def _constants(context: Any, builder: Any, kind: Any, gate: Any, width: int, at: int, vector: ir.VectorType) -> Any:
    """The five rows of a gate at a piece, and 1 - alpha."""
    rows = [_load(context, builder, kind, gate, PLACE(n * width + at), vector) for n in range(5)]
    return [*rows, builder.fsub(_of(vector, 1.0), rows[2])]


def _sigmoid(builder: Any, x: Any, vector: ir.VectorType) -> Any:
    """`1 / (1 + exp(-x))` to a few units of the last place, |x| cut at 30. `2^t` is 2^(nearest integer), by its bits,
    times a Taylor polynomial of the rest; the reciprocal begins as a subtraction of bits (an eighth off) and three
    Newton steps square its error: together less than the time of a division."""
    words = ir.VectorType(WORD, vector.count)
    for sign, bound in (("<", -30.0), (">", 30.0)):
        x = builder.select(builder.fcmp_ordered(sign, x, _of(vector, bound)), _of(vector, bound), x)
    t = builder.fmul(x, _of(vector, -1.0 / math.log(2.0)))
    kind = ir.FunctionType(vector, [vector])
    rint = cgutils.get_or_insert_function(builder.module, kind, f"llvm.rint.v{vector.count}f32")
    whole = builder.call(rint, [t])
    rest = builder.fsub(t, whole)
    power = _of(vector, math.log(2.0) ** 7 / math.factorial(7))
    for n in range(6, -1, -1):
        power = _fused(builder, power, rest, _of(vector, math.log(2.0) ** n / math.factorial(n)))
    exponent = builder.shl(builder.fptosi(whole, words), ir.Constant(words, [23] * vector.count))
    power = builder.bitcast(builder.add(builder.bitcast(power, words), exponent), vector)
    below = builder.fadd(power, _of(vector, 1.0))
    magic = ir.Constant(words, [0x7EF311C3] * vector.count)
    guess = builder.bitcast(builder.sub(magic, builder.bitcast(below, words)), vector)
    for _ in range(3):
        error = builder.fsub(_of(vector, 2.0), builder.fmul(below, guess, flags=FUSED), flags=FUSED)
        guess = builder.fmul(guess, error)
    return guess
