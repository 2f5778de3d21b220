"""FTRL-proximal: sparse weights for linear models."""

from __future__ import annotations

from torch import Tensor

from fullrank.features.table_plan import TableOptimizer
from fullrank.features.table_updates.row_grads import RowGrads
from fullrank.kernels.pages import zeros
from fullrank.kernels.update import ftrl


class FTRL:
    """For touched rows, element by element, with a = `lr`, b = `beta`, and lambda1, lambda2 = `l1`, `weight_decay`:

        s = (sqrt(n + g²) - sqrt(n)) / a;  z <- z + g - s w;  n <- n + g²
        w <- 0 if |z| <= l1, else -(z - sign(z) l1) / ((b + sqrt(n)) / a + l2)

    An element that has never learned (n = 0) begins with the z of which its initial weight is the solution: our choice,
    the paper begins with w = 0, which `init_std=0` gives. A schedule does not reach it: its rate falls by itself, and w
    is made anew from all gradients at every step. Price: two more numbers an element. For linear weights (LR, the wide
    part), where `l1` sets rare ones to exactly 0; factors of width > 1 learn better by the others.

    Reference: McMahan et al., "Ad Click Prediction: a View from the Trenches", KDD 2013, algorithm 1.
    """

    def __init__(self, optimizer: TableOptimizer, weight_RD: Tensor) -> None:
        self.optimizer = optimizer
        self.state = {name: zeros(*weight_RD.shape, like=weight_RD) for name in ("z", "n")}

    def apply(self, weight_RD: Tensor, grads: RowGrads, *, lr: float, step: int, scale: float) -> None:
        del lr, step  # see above
        ftrl(
            weight_RD,
            self.state["z"],
            self.state["n"],
            grads.rows_U,
            grads.values_UD,
            lr=self.optimizer.lr,
            beta=self.optimizer.beta,
            l1=self.optimizer.l1,
            l2=self.optimizer.weight_decay,
            scale=scale,
        )
