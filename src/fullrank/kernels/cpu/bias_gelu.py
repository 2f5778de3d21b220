"""`GELU(z + b_t)` for a CPU. B rows of width H a token; all arrays are flat float32."""

from __future__ import annotations

from fullrank.kernels.cpu.compiled import compiled
from fullrank.kernels.cpu.gelu import exact_gelu, exact_gelu_slope
from fullrank.kernels.cpu.vectors import load, store


@compiled
def bias_gelu_forward(low, high, z, bias, h, B, H, keep):
    """Rows `low … high - 1` of all tokens'; `keep`: z becomes `z + b`. h may be z."""
    for row in range(low, high):
        of_token = row // B * H
        for c in range(0, H, 16):
            z16 = load(z, row * H + c) + load(bias, of_token + c)
            if keep:
                store(z, row * H + c, z16)
            store(h, row * H + c, exact_gelu(z16))


@compiled
def bias_gelu_backward(low, high, g, z, dz, dbias, B, H):
    """Tokens `low … high - 1`."""
    for t in range(low, high):
        for row in range(t * B, t * B + B):
            for c in range(0, H, 16):
                dz16 = load(g, row * H + c) * exact_gelu_slope(load(z, row * H + c))
                store(dz, row * H + c, dz16)
                store(dbias, t * H + c, load(dbias, t * H + c) + dz16)
