"""The pointwise half of a DCN-v2 cross layer, beside its matrix products. B rows · D width."""

from __future__ import annotations

import torch
from torch import Tensor

from fullrank.kernels.bodies import runs_compiled_elements


def cross(x0_BD: Tensor, x_BD: Tensor, product_BD: Tensor, bias_D: Tensor) -> Tensor:
    """x_0 ⊙ p + x, having made the product W x what p is, in place: p = W x + b."""
    if runs_compiled_elements(x0_BD, x_BD, product_BD):
        from fullrank.kernels.cpu.cross import cross_on_cpu

        return cross_on_cpu(x0_BD, x_BD, product_BD, bias_D)
    return torch.addcmul(x_BD, x0_BD, product_BD.add_(bias_D))


def cross_backward(
    grad_BD: Tensor, x0_BD: Tensor, p_BD: Tensor, grad_x0_BD: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """(grad of p, grad of x_0, grad of b) for the gradient of `cross`: g ⊙ x_0, g ⊙ p (added in place to `grad_x0_BD`),
    and the sum of the first over rows, float32."""
    if runs_compiled_elements(grad_BD, x0_BD, p_BD):
        from fullrank.kernels.cpu.cross import cross_backward_on_cpu

        return cross_backward_on_cpu(grad_BD, x0_BD, p_BD, grad_x0_BD)
    grad_p_BD = grad_BD * x0_BD
    grad_x0_BD = grad_BD * p_BD if grad_x0_BD is None else grad_x0_BD.addcmul_(grad_BD, p_BD)
    return grad_p_BD, grad_x0_BD, grad_p_BD.sum(0, dtype=torch.promote_types(torch.float32, grad_p_BD.dtype))
