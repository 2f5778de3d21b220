"""Row-wise Adagrad: one number of state a row."""

from __future__ import annotations

import torch
from torch import Tensor

from fullrank.features.table_plan import TableOptimizer
from fullrank.features.table_updates.row_grads import RowGrads


class RowwiseAdagrad:
    """For touched rows:  acc <- acc + mean(g²) over the row's width;  w <- w - lr g / (sqrt(acc) + eps).

    One float a row instead of one an element (the state of embedding tables in Naumov et al. 2019, DLRM,
    arXiv:1906.00091, and Gupta et al. 2014, arXiv:1410.0402), and untouched rows cost nothing. Not where the
    elements of a row need rates of their own: that is `dense` Adagrad.
    """

    def __init__(self, optimizer: TableOptimizer, weight_RD: Tensor) -> None:
        self.optimizer = optimizer
        self.state = {"acc": torch.zeros(weight_RD.shape[0], dtype=weight_RD.dtype, device=weight_RD.device)}

    def apply(self, weight_RD: Tensor, grads: RowGrads, *, lr: float, step: int) -> None:
        del step  # Adagrad's rate falls with its sum alone
        rows_U, grad_UD = grads.rows_U, grads.values_UD
        # The square of a norm: half the time of a mean of squares.
        square_U = torch.linalg.vector_norm(grad_UD, dim=-1).square_()
        acc_U = self.state["acc"].index_select(0, rows_U).add_(square_U, alpha=1 / grad_UD.shape[1])
        self.state["acc"].index_copy_(0, rows_U, acc_U)
        scale_U1 = acc_U.sqrt().add_(self.optimizer.eps).unsqueeze(-1)
        learned_UD = weight_RD.index_select(0, rows_U).addcdiv_(grad_UD, scale_U1, value=-lr)
        weight_RD.index_copy_(0, rows_U, learned_UD)  # rows are unique: half the time of index_add_
