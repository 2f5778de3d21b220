"""ReLU of a Linear's product, with its bias. B rows · D width."""

from __future__ import annotations

import torch
from torch import Tensor

from fullrank.kernels.bodies import runs_compiled_elements


def bias_relu_(product_BD: Tensor, bias_D: Tensor) -> Tensor:
    """max(product + b, 0), in place. NaN stays NaN."""
    if runs_compiled_elements(product_BD):
        from fullrank.kernels.cpu.bias_relu import bias_relu_on_cpu

        return bias_relu_on_cpu(product_BD, bias_D)
    return product_BD.add_(bias_D).relu_()


def bias_relu_backward(grad_BD: Tensor, y_BD: Tensor) -> tuple[Tensor, Tensor]:
    """(grad of the product, grad of b) for the gradient of `y_BD = bias_relu_(…)`: g where y > 0, else 0, and its sum
    over rows, float32."""
    if runs_compiled_elements(grad_BD, y_BD):
        from fullrank.kernels.cpu.bias_relu import bias_relu_backward_on_cpu

        return bias_relu_backward_on_cpu(grad_BD, y_BD)
    grad_product_BD = torch.where(y_BD > 0, grad_BD, 0)
    return grad_product_BD, grad_product_BD.sum(0, dtype=torch.promote_types(torch.float32, grad_BD.dtype))
