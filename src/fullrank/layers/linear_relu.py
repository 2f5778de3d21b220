"""A Linear and its ReLU in one. Legend: B rows · I, O widths."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from fullrank.kernels.bias_relu import bias_relu_, bias_relu_backward
from fullrank.layers.precision import product_dtype


def linear_relu(x_BI: Tensor, weight_OI: Tensor, bias_O: Tensor) -> Tensor:
    """max(x Wᵀ + b, 0), `[B, I] -> [B, O]`, with bias, ReLU and their gradients in one pass each on a CPU. Under
    autocast it is bfloat16 as torch's Linear is. No second derivatives."""
    return _LinearReLU.apply(x_BI, weight_OI, bias_O, product_dtype(x_BI))


class _LinearReLU(Function):
    @staticmethod
    def forward(ctx: Any, x_BI: Tensor, weight_OI: Tensor, bias_O: Tensor, dtype: torch.dtype) -> Tensor:
        x_BI, weight_OI = x_BI.to(dtype), weight_OI.to(dtype)
        y_BO = bias_relu_(x_BI @ weight_OI.t(), bias_O)
        ctx.save_for_backward(x_BI, weight_OI, y_BO)
        return y_BO

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_BO: Tensor) -> tuple[Tensor | None, Tensor, Tensor, None]:
        x_BI, weight_OI, y_BO = ctx.saved_tensors
        grad_product_BO, grad_bias_O = bias_relu_backward(grad_BO.contiguous(), y_BO)
        grad_x_BI = grad_product_BO @ weight_OI if ctx.needs_input_grad[0] else None
        return grad_x_BI, grad_product_BO.t() @ x_BI, grad_bias_O, None
