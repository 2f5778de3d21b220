"""GELU and its slope.

For results in bf16: odd polynomials of degree 19 around 1/2, fitted for the least largest error
on [-4.5, 4.5] and held constant outside.

Phi(x) is right to 1.5e-5 and the slope to 1.7e-4, where bf16 itself rounds numbers near 1 by 2e-3 to 4e-3. For float32
(`exact_…`): Phi by the rational approximation of erf of Abramowitz and Stegun (7.1.26), right to 1e-7.
"""

from __future__ import annotations

import numpy as np

from fullrank.kernels.cpu.compiled import inlined
from fullrank.kernels.cpu.vectors import absolute, clip, exp, fma, select_above, spread

_EDGE = np.float32(4.5)
_PHI = tuple(
    np.float32(a)
    for a in (
        0.39892468, -0.066420674, 0.0098917698, -0.0011427137, 0.00010173373,
        -6.8136833e-06, 3.2788878e-07, -1.0566941e-08, 2.0223997e-10, -1.7262864e-12,
    )
)  # fmt: skip
_SLOPE = tuple(
    np.float32(a)
    for a in (
        0.79762614, -0.2649256, 0.058609247, -0.008815838, 0.00094053784,
        -7.1221475e-05, 3.7218992e-06, -1.2680377e-07, 2.5212796e-09, -2.2107621e-11,
    )
)  # fmt: skip


@inlined
def _half_and_odd(x16, terms):
    at16 = clip(x16, spread(_EDGE))
    square16 = at16 * at16
    sum16 = spread(terms[9])
    for i in range(8, -1, -1):
        sum16 = fma(sum16, square16, spread(terms[i]))
    return fma(sum16, at16, spread(np.float32(0.5)))


@inlined
def gelu(x16):
    """x * Phi(x)."""
    return x16 * _half_and_odd(x16, _PHI)


@inlined
def gelu_slope(x16):
    """Phi(x) + x * phi(x)."""
    return _half_and_odd(x16, _SLOPE)


_STEP, _ROOT = np.float32(0.3275911 * 2**-0.5), np.float32(2 * np.pi) ** np.float32(-0.5)
_ERF = tuple(np.float32(a) for a in (0.254829592, -0.284496736, 1.421413741, -1.453152027, 1.061405429))


@inlined
def _density_and_phi(x16):
    """`exp(-x²/2)` and Phi(x)."""
    away16 = absolute(x16)
    one16 = spread(np.float32(1.0))
    t16 = one16 / fma(away16, spread(_STEP), one16)
    sum16 = spread(_ERF[4])
    for i in range(3, -1, -1):
        sum16 = fma(sum16, t16, spread(_ERF[i]))
    density16 = exp(spread(np.float32(-0.5)) * x16 * x16)
    tail16 = spread(np.float32(0.5)) * sum16 * t16 * density16  # Phi(-|x|)
    return density16, select_above(x16, spread(np.float32(0.0)), one16 - tail16, tail16)


@inlined
def exact_gelu(x16):
    """x * Phi(x)."""
    return x16 * _density_and_phi(x16)[1]


@inlined
def exact_gelu_slope(x16):
    """Phi(x) + x * phi(x)."""
    density16, phi16 = _density_and_phi(x16)
    return fma(x16 * spread(_ROOT), density16, phi16)
