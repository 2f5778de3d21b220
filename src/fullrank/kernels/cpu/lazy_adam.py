"""Lazy Adam for a CPU: weight and both moments of a row are read and written once, the next ones on their way."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from torch import Tensor

from fullrank.kernels.cpu.compiled import compiled, intrinsic, load_row, prefetch, spread, store_row
from fullrank.kernels.parts import even_cuts, in_parts

AHEAD = 16  # rows between asking for one and writing it
GRAIN = 1024  # rows a thread


def lazy_adam_on_cpu(
    weight_RD: Tensor,
    mean_RD: Tensor,
    square_RD: Tensor,
    rows_U: Tensor,
    grad_UD: Tensor,
    betas: tuple[float, float],
    rate: float,
    bias: float,
    eps: float,
    scale: float,
    shrunk_U: Tensor | None,
) -> None:
    """`lazy_adam`."""
    whole = np.ones(1, np.float32)
    in_parts(
        _body(weight_RD.shape[1]),
        even_cuts(len(rows_U), GRAIN),
        weight_RD.detach().numpy().reshape(-1),
        mean_RD.numpy().reshape(-1),
        square_RD.numpy().reshape(-1),
        rows_U.numpy(),
        grad_UD.numpy().reshape(-1),
        whole if shrunk_U is None else shrunk_U.numpy(),
        tuple(map(np.float32, (1 - betas[0], betas[1], 1 - betas[1], rate, 1 / bias, eps, scale))),
    )


@cache
def _body(width: int) -> Any:
    @compiled
    def body(low, high, weight, mean, square, rows, grads, shrunk, constants):
        for u in range(low, high):
            ahead = rows[min(u + AHEAD, high - 1)] * width
            prefetch(weight, ahead)
            prefetch(mean, ahead)
            prefetch(square, ahead)
            factor = shrunk[u] if len(shrunk) > 1 else shrunk[0]
            _adam_row(weight, mean, square, rows[u] * width, grads, u * width, factor, constants, width)

    return body


@intrinsic
def _adam_row(
    _: Any, weight: Any, mean: Any, square: Any, i: Any, grads: Any, j: Any, factor: Any, constants: Any, width: Any
) -> Any:
    """Lazy Adam of the row at `i` with the gradient at `j`; `constants` as in `lazy_adam_on_cpu`."""
    vector = ir.VectorType(ir.FloatType(), width.literal_value)

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kinds = signature.args
        fresh1, beta2, fresh2, rate, inverse_bias, eps, scale = (
            spread(builder, builder.extract_value(arguments[7], at), vector) for at in range(7)
        )
        w, m, v = (load_row(context, builder, kinds[at], arguments[at], arguments[3], vector) for at in range(3))
        g = builder.fmul(scale, load_row(context, builder, kinds[4], arguments[4], arguments[5], vector))
        m = builder.fadd(m, builder.fmul(fresh1, builder.fsub(g, m)))
        v = builder.fadd(builder.fmul(v, beta2), builder.fmul(builder.fmul(fresh2, g), g))
        kind = ir.FunctionType(vector, [vector])
        root = cgutils.get_or_insert_function(builder.module, kind, f"llvm.sqrt.v{vector.count}f32")
        below = builder.fadd(builder.fmul(builder.call(root, [v]), inverse_bias), eps)
        w = builder.fmul(w, spread(builder, arguments[6], vector))
        w = builder.fsub(w, builder.fdiv(builder.fmul(rate, m), below))
        for at, value in enumerate((w, m, v)):
            store_row(context, builder, kinds[at], arguments[at], arguments[3], value)
        return context.get_dummy_value()

    kinds = (weight, mean, square, types.int64, grads, types.int64, types.float32, constants, width)
    return types.void(*kinds), codegen
