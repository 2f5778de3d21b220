"""`SiLU(a) ⊙ b` of rows `[a ; b]`, as one product makes them: on a CPU in one pass over memory each way.

N rows · H width of each half.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from fullrank.kernels.bodies import MAX_WIDTH, runs_compiled_elements


def swiglu(z: Tensor) -> Tensor:
    """`[..., 2 H] -> [..., H]`. No second derivatives."""
    if z.shape[-1] <= 2 * MAX_WIDTH and runs_compiled_elements(z):
        out: Any = _SwiGLU.apply(z)
        return out
    lifted, side = z.chunk(2, dim=-1)
    return F.silu(lifted) * side


class _SwiGLU(Function):
    @staticmethod
    def forward(ctx: Any, z: Tensor) -> Tensor:
        from fullrank.kernels.cpu.swiglu import swiglu_forward

        ctx.save_for_backward(z)
        return swiglu_forward(z)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> Tensor:  # type: ignore[override]  # torch: any outputs
        from fullrank.kernels.cpu.swiglu import swiglu_backward

        return swiglu_backward(g.contiguous(), *ctx.saved_tensors)
