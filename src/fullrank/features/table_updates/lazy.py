"""Lazy semantics: Adam's moments of touched rows, with a weight decay that reaches every row."""

from __future__ import annotations

import torch
from torch import Tensor

from fullrank.features.deferred_decay import DeferredDecay
from fullrank.features.table_plan import TableOptimizer
from fullrank.features.table_updates.row_grads import RowGrads


class LazyAdam:
    """At step t every row shrinks, w <- (1 - lr_t * weight_decay) w, and then each *touched* row learns:

        m <- b1 m + (1 - b1) g;  v <- b2 v + (1 - b2) g²
        w <- w - lr_t / (1 - b1^t) * m / (sqrt(v) / sqrt(1 - b2^t) + eps)

    t is the step of the run, not of the row. This is not Adam: there an untouched row's moments fade and the row
    coasts on its momentum; here moments and row stand still but for the decay. Use `dense` to reproduce a recipe that
    trained tables with Adam. Price: two more numbers an element, and one a row with weight decay.
    """

    def __init__(self, optimizer: TableOptimizer, weight_RD: Tensor, decay: DeferredDecay | None) -> None:
        self.optimizer = optimizer
        self.decay = decay
        self.state = {"exp_avg": torch.zeros_like(weight_RD), "exp_avg_sq": torch.zeros_like(weight_RD)}

    def apply(self, weight_RD: Tensor, grads: RowGrads, *, lr: float, step: int) -> None:
        beta1, beta2 = self.optimizer.betas
        rows_U, grad_UD = grads.rows_U, grads.values_UD
        learned_UD = weight_RD.index_select(0, rows_U)
        if self.decay is not None:
            self.decay.advance(lr * self.optimizer.weight_decay)
            learned_UD *= self.decay.settle(rows_U, weight_RD.dtype).unsqueeze(-1)
        mean_RD, square_RD = self.state["exp_avg"], self.state["exp_avg_sq"]
        mean_UD = mean_RD.index_select(0, rows_U).lerp_(grad_UD, 1 - beta1)
        square_UD = square_RD.index_select(0, rows_U).mul_(beta2).addcmul_(grad_UD, grad_UD, value=1 - beta2)
        mean_RD.index_copy_(0, rows_U, mean_UD)
        square_RD.index_copy_(0, rows_U, square_UD)
        denominator_UD = square_UD.sqrt_().div_((1 - beta2**step) ** 0.5).add_(self.optimizer.eps)
        learned_UD.addcdiv_(mean_UD, denominator_UD, value=-lr / (1 - beta1**step))
        weight_RD.index_copy_(0, rows_U, learned_UD)
