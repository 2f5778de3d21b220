"""One step of an arena's touched rows, in place. R rows of the arena · U rows that got a gradient · D width.

Rows are unique, so the order in which they are updated changes no bit. Gradients are multiplied by `scale` on their
way.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fullrank.kernels.bodies import runs_compiled, runs_triton

LEAST = 2048  # rows


def rowwise_adagrad(
    weight_RD: Tensor, acc_R: Tensor, rows_U: Tensor, grad_UD: Tensor, *, lr: float, eps: float, scale: float
) -> None:
    """acc <- acc + mean(g²) over the row;  w <- w - lr g / (sqrt(acc) + eps)."""
    if runs_compiled(len(rows_U), LEAST, weight_RD, grad_UD):
        from fullrank.kernels.cpu.rowwise_adagrad import rowwise_adagrad_on_cpu

        return rowwise_adagrad_on_cpu(weight_RD, acc_R, rows_U, grad_UD, lr, eps, scale)
    if runs_triton(weight_RD, acc_R, grad_UD):
        from fullrank.kernels.gpu.rowwise_adagrad import rowwise_adagrad_on_gpu

        return rowwise_adagrad_on_gpu(weight_RD, acc_R, rows_U, grad_UD, lr, eps, scale)
    # The square of a norm: half the time of a mean of squares.
    square_U = torch.linalg.vector_norm(grad_UD, dim=-1).square_()
    acc_U = acc_R.index_select(0, rows_U).add_(square_U, alpha=scale * scale / grad_UD.shape[1])
    acc_R.index_copy_(0, rows_U, acc_U)
    scale_U1 = acc_U.sqrt().add_(eps).unsqueeze(-1)
    learned_UD = weight_RD.index_select(0, rows_U).addcdiv_(grad_UD, scale_U1, value=-lr * scale)
    weight_RD.index_copy_(0, rows_U, learned_UD)  # rows are unique: half the time of index_add_
    return None


def lazy_adam(
    weight_RD: Tensor,
    mean_RD: Tensor,
    square_RD: Tensor,
    rows_U: Tensor,
    grad_UD: Tensor,
    *,
    betas: tuple[float, float],
    rate: float,
    bias: float,
    eps: float,
    scale: float,
    shrunk_U: Tensor | None,
) -> None:
    """m <- b1 m + (1 - b1) g;  v <- b2 v + (1 - b2) g²;  w <- shrunk w - rate m / (sqrt(v) / bias + eps).

    `rate` is lr / (1 - b1^t), `bias` sqrt(1 - b2^t). `shrunk_U`: what each row is multiplied by first (None: 1).
    """
    if runs_compiled(len(rows_U), LEAST, weight_RD, grad_UD):
        from fullrank.kernels.cpu.lazy_adam import lazy_adam_on_cpu

        tensors = (weight_RD, mean_RD, square_RD, rows_U, grad_UD)
        return lazy_adam_on_cpu(*tensors, betas, rate, bias, eps, scale, shrunk_U)
    if runs_triton(weight_RD, mean_RD, square_RD, grad_UD):
        from fullrank.kernels.gpu.lazy_adam import lazy_adam_on_gpu

        tensors = (weight_RD, mean_RD, square_RD, rows_U, grad_UD)
        return lazy_adam_on_gpu(*tensors, betas, rate, bias, eps, scale, shrunk_U)
    beta1, beta2 = betas
    grad_UD = grad_UD if scale == 1 else grad_UD * scale
    learned_UD = weight_RD.index_select(0, rows_U)
    if shrunk_U is not None:
        learned_UD *= shrunk_U.unsqueeze(-1)
    mean_UD = mean_RD.index_select(0, rows_U).lerp_(grad_UD, 1 - beta1)
    square_UD = square_RD.index_select(0, rows_U).mul_(beta2).addcmul_(grad_UD, grad_UD, value=1 - beta2)
    mean_RD.index_copy_(0, rows_U, mean_UD)
    square_RD.index_copy_(0, rows_U, square_UD)
    denominator_UD = square_UD.sqrt_().div_(bias).add_(eps)
    learned_UD.addcdiv_(mean_UD, denominator_UD, value=-rate)
    weight_RD.index_copy_(0, rows_U, learned_UD)
    return None


def ftrl(
    weight_RD: Tensor,
    z_RD: Tensor,
    n_RD: Tensor,
    rows_U: Tensor,
    grad_UD: Tensor,
    *,
    lr: float,
    beta: float,
    l1: float,
    l2: float,
    scale: float,
) -> None:
    """z <- z + g - (sqrt(n + g²) - sqrt(n)) / lr w;  n <- n + g²;  w <- -(z - sign(z) l1) / ((beta + sqrt(n)) / lr
    + l2), 0 where |z| <= l1. Where n is 0, z begins where it gives the w that is there."""
    if runs_compiled(len(rows_U), LEAST, weight_RD, grad_UD):
        from fullrank.kernels.cpu.ftrl import ftrl_on_cpu

        return ftrl_on_cpu(weight_RD, z_RD, n_RD, rows_U, grad_UD, lr, beta, l1, l2, scale)
    grad_UD = grad_UD if scale == 1 else grad_UD * scale
    w_UD, n_UD = weight_RD.index_select(0, rows_U), n_RD.index_select(0, rows_U)
    begins_UD = -w_UD * (beta / lr + l2) - w_UD.sign() * l1
    z_UD = torch.where(n_UD == 0, begins_UD, z_RD.index_select(0, rows_U))
    summed_UD = n_UD + grad_UD.square()
    z_UD += grad_UD - (summed_UD.sqrt() - n_UD.sqrt()) / lr * w_UD
    w_UD = -(z_UD - z_UD.sign() * l1) / ((beta + summed_UD.sqrt()) / lr + l2)
    weight_RD.index_copy_(0, rows_U, torch.where(z_UD.abs() <= l1, 0.0, w_UD))
    z_RD.index_copy_(0, rows_U, z_UD)
    n_RD.index_copy_(0, rows_U, summed_UD)
    return None
