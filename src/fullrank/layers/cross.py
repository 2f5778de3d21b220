"""Explicit feature crosses. Legend: B rows · D width of the flat input · L layers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from fullrank.kernels.cross import cross, cross_backward
from fullrank.layers.precision import product_dtype


class CrossLayer(nn.Module):
    """One DCN-v2 cross layer: `x_{l+1} = x_0 ⊙ (W x_l + b) + x_l`, `[B, D] -> [B, D]`.

    L layers (`CrossStack`) hold every product of up to L + 1 coordinates that W selects. Parameters: `D² + D`: with
    hundreds of fields, W is where the memory goes. Xavier-normal W, zero b.

    Reference: Wang et al., "DCN V2", 2021, arXiv:2008.13535, eq. 1.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, width)
        nn.init.xavier_normal_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, x0_BD: Tensor, x_BD: Tensor) -> Tensor:
        return torch.addcmul(x_BD, x0_BD, self.linear(x_BD))


class CrossStack(nn.ModuleList):
    """L cross layers on one x_0: `[B, D] -> (x_1, …, x_L)`, each `[B, D]`.

    What `CrossLayer` after `CrossLayer` gives, with the pointwise half of each fused on a CPU and the gradient of x_0
    summed where it is made. Under autocast all of it is bfloat16, also the sum x_0 ⊙ p + x (each element is computed in
    float32 and rounded once). No second derivatives.
    """

    def __init__(self, width: int, num_layers: int) -> None:
        super().__init__(CrossLayer(width) for _ in range(num_layers))

    def forward(self, x0_BD: Tensor) -> tuple[Tensor, ...]:
        parameters = [parameter for layer in self for parameter in layer.parameters()]  # weight, bias of each
        return _Stack.apply(x0_BD, product_dtype(x0_BD), *parameters)


class _Stack(Function):
    @staticmethod
    def forward(ctx: Any, x0_BD: Tensor, dtype: torch.dtype, *parameters: Tensor) -> tuple[Tensor, ...]:
        x0_BD = x0_BD.to(dtype).contiguous()
        weights = [weight_DD.to(dtype) for weight_DD in parameters[::2]]
        xs, products = [x0_BD], []
        for weight_DD, bias_D in zip(weights, parameters[1::2], strict=True):
            products.append(xs[-1] @ weight_DD.t())
            xs.append(cross(x0_BD, xs[-1], products[-1], bias_D))
        ctx.save_for_backward(*xs[:-1], *products, *weights)
        ctx.set_materialize_grads(False)
        return tuple(xs[1:])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        num_layers = len(grads)
        saved = ctx.saved_tensors
        xs, products, weights = saved[:num_layers], saved[num_layers : 2 * num_layers], saved[2 * num_layers :]
        grad_x0_BD = grad_BD = None
        is_ours = False  # what comes from outside may be read by others
        of_parameters: list[Tensor | None] = []
        for layer in reversed(range(num_layers)):
            own_BD = grads[layer]
            if own_BD is not None:
                grad_BD = own_BD.contiguous() if grad_BD is None else grad_BD.add_(own_BD)
            if grad_BD is None:
                of_parameters += [None, None]
                continue
            grad_p_BD, grad_x0_BD, grad_bias_D = cross_backward(grad_BD, xs[0], products[layer], grad_x0_BD)
            of_parameters += [grad_bias_D, grad_p_BD.t() @ xs[layer]]
            addmm = grad_BD.addmm_ if is_ours else grad_BD.addmm
            grad_BD, is_ours = addmm(grad_p_BD, weights[layer]), True
        if grad_BD is not None and grad_x0_BD is not None:
            grad_x0_BD += grad_BD
        return grad_x0_BD, None, *reversed(of_parameters)
