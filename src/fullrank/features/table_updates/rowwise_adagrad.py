"""Row-wise Adagrad: one number of state a row."""

from __future__ import annotations

from torch import Tensor

from fullrank.features.table_plan import TableOptimizer
from fullrank.features.table_updates.row_grads import RowGrads
from fullrank.kernels.pages import zeros
from fullrank.kernels.update import rowwise_adagrad


class RowwiseAdagrad:
    """For touched rows:  acc <- acc + mean(g²) over the row's width;  w <- w - lr g / (sqrt(acc) + eps).

    One float a row instead of one an element (the state of embedding tables in Naumov et al. 2019, DLRM,
    arXiv:1906.00091, and Gupta et al. 2014, arXiv:1410.0402), and untouched rows cost nothing. Not where the
    elements of a row need rates of their own: that is `dense` Adagrad.
    """

    def __init__(self, optimizer: TableOptimizer, weight_RD: Tensor) -> None:
        self.optimizer = optimizer
        self.state = {"acc": zeros(weight_RD.shape[0], like=weight_RD)}

    def apply(self, weight_RD: Tensor, grads: RowGrads, *, lr: float, step: int, scale: float) -> None:
        del step  # Adagrad's rate falls with its sum alone
        eps = self.optimizer.eps
        rowwise_adagrad(weight_RD, self.state["acc"], grads.rows_U, grads.values_UD, lr=lr, eps=eps, scale=scale)
