"""Dense semantics: torch's optimizer over the whole table."""

from __future__ import annotations

import torch
from torch import Tensor

from fullrank.features.table_plan import TableOptimizer
from fullrank.features.table_updates.row_grads import RowGrads


def _whole_gradient(weight_RD: Tensor, grads: RowGrads, scale: float, weight_decay: float) -> Tensor:
    """scale * g + weight_decay * w for every row of the table."""
    grad_RD = torch.zeros_like(weight_RD)
    grad_RD[grads.rows_U] = grads.values_UD if scale == 1 else grads.values_UD * scale
    return grad_RD.add_(weight_RD, alpha=weight_decay) if weight_decay else grad_RD


class DenseAdam:
    """torch.optim.Adam (Kingma & Ba 2015, arXiv:1412.6980, algorithm 1) with L2 weight decay, over every row:

        g <- g + weight_decay w;  m <- b1 m + (1 - b1) g;  v <- b2 v + (1 - b2) g²
        w <- w - lr / (1 - b1^t) * m / (sqrt(v) / sqrt(1 - b2^t) + eps)

    The operations and their order are those of torch's single-tensor form. Price: a whole-table gradient and a pass
    over three tables a step; not for tables of millions of rows.
    """

    def __init__(self, optimizer: TableOptimizer, weight_RD: Tensor) -> None:
        self.optimizer = optimizer
        self.state = {"exp_avg": torch.zeros_like(weight_RD), "exp_avg_sq": torch.zeros_like(weight_RD)}

    def apply(self, weight_RD: Tensor, grads: RowGrads, *, lr: float, step: int, scale: float) -> None:
        beta1, beta2 = self.optimizer.betas
        mean_RD, square_RD = self.state["exp_avg"], self.state["exp_avg_sq"]
        grad_RD = _whole_gradient(weight_RD, grads, scale, self.optimizer.weight_decay)
        mean_RD.lerp_(grad_RD, 1 - beta1)
        square_RD.mul_(beta2).addcmul_(grad_RD, grad_RD, value=1 - beta2)
        denominator_RD = square_RD.sqrt().div_((1 - beta2**step) ** 0.5).add_(self.optimizer.eps)
        weight_RD.addcdiv_(mean_RD, denominator_RD, value=-lr / (1 - beta1**step))


class DenseAdagrad:
    """torch.optim.Adagrad (Duchi et al. 2011) with L2 weight decay, over every row and element:

        g <- g + weight_decay w;  s <- s + g²;  w <- w - lr g / (sqrt(s) + eps)

    Without weight decay untouched rows do not move, but the pass over the table is still paid.
    """

    def __init__(self, optimizer: TableOptimizer, weight_RD: Tensor) -> None:
        self.optimizer = optimizer
        self.state = {"sum": torch.zeros_like(weight_RD)}

    def apply(self, weight_RD: Tensor, grads: RowGrads, *, lr: float, step: int, scale: float) -> None:
        del step  # Adagrad's rate falls with its sum alone
        sum_RD = self.state["sum"]
        grad_RD = _whole_gradient(weight_RD, grads, scale, self.optimizer.weight_decay)
        sum_RD.addcmul_(grad_RD, grad_RD, value=1)
        weight_RD.addcdiv_(grad_RD, sum_RD.sqrt().add_(self.optimizer.eps), value=-lr)
