"""Lazy semantics: Adam's moments of touched rows, with a weight decay that reaches every row."""

from __future__ import annotations

from torch import Tensor

from fullrank.features.deferred_decay import DeferredDecay
from fullrank.features.table_plan import TableOptimizer
from fullrank.features.table_updates.row_grads import RowGrads
from fullrank.kernels.pages import zeros
from fullrank.kernels.update import lazy_adam


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
        self.state = {name: zeros(*weight_RD.shape, like=weight_RD) for name in ("exp_avg", "exp_avg_sq")}

    def apply(self, weight_RD: Tensor, grads: RowGrads, *, lr: float, step: int, scale: float) -> None:
        beta1, beta2 = self.optimizer.betas
        shrunk_U = None
        if self.decay is not None:
            self.decay.advance(lr * self.optimizer.weight_decay)
            shrunk_U = self.decay.settle(grads.rows_U, weight_RD.dtype)
        lazy_adam(
            weight_RD,
            self.state["exp_avg"],
            self.state["exp_avg_sq"],
            grads.rows_U,
            grads.values_UD,
            betas=self.optimizer.betas,
            rate=lr / (1 - beta1**step),
            bias=(1 - beta2**step) ** 0.5,
            eps=self.optimizer.eps,
            scale=scale,
            shrunk_U=shrunk_U,
        )
