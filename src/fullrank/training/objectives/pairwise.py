"""Pairwise: every positive row of a request before every negative one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import softplus

from fullrank.training.objectives.base import LabelColumn
from fullrank.training.objectives.request_sides import ComparedRows, compared_rows

PAIRS_AT_ONCE = 1 << 20  # a few arrays of 4 MB; large enough that the loop over chunks costs nothing


@dataclass(frozen=True, kw_only=True)
class RequestPairwise:
    """The logistic loss of every pair of a positive and a negative known row of one request (RankNet: Burges et al.
    2005, with target probability 1).

    ``ℓ_r = Σ_{i positive, j negative} w_i w_j log(1 + e^{z_j - z_i}) / Σ_{i, j} w_i w_j``; the loss is the mean of ℓ_r
    over the requests that have a pair: a request of many pairs counts as much as one of one pair (our choice). Without
    any pair, loss and gradient are exactly 0. `sample_rate` is not undone.

    Price: a request of P positives and N negatives has P · N pairs, so time grows with the square of a request's rows.
    Memory does not: pairs are made, summed and forgotten about a million at a time, and the gradient (which is not
    itself differentiable) is summed with the loss.

    As with `RequestSoftmax` only differences inside a request are learned: no probabilities without a calibration.
    Needs whole requests in a batch. Not for requests of thousands of rows with hundreds of positives: there the
    softmax, which is linear in rows, learns from the same comparison.
    """

    whole_requests: ClassVar[bool] = True

    def __call__(self, logit_B: Tensor, column: LabelColumn) -> Tensor:
        rows = compared_rows(column)
        if not rows.num_requests:
            return logit_B[:0].sum()  # 0 with a gradient of 0, whatever the logits are
        loss: Any = _PairLoss.apply(logit_B[rows.row_N], column.weight_B[rows.row_N], rows)
        return loss


class _PairLoss(torch.autograd.Function):
    """Loss and gradient in one pass over chunks of pairs: nothing of a chunk is kept for the backward."""

    @staticmethod
    def forward(ctx: Any, z_N: Tensor, weight_N: Tensor, rows: ComparedRows) -> Tensor:
        positive_P = rows.positive_N.nonzero().squeeze(-1)
        # Negatives sorted by request: those of request r are negative_M[start_R[r] : start_R[r] + count_R[r]].
        negative_M = (~rows.positive_N).nonzero().squeeze(-1)
        negative_M = negative_M[torch.argsort(rows.request_N[negative_M], stable=True)]
        count_R = torch.bincount(rows.request_N[negative_M], minlength=rows.num_requests)
        start_R = count_R.cumsum(0) - count_R
        share_N = weight_N / _side_sums(weight_N, rows)  # w / Σ w of its side: the product is a pair's share of ℓ_r
        request_P = rows.request_N[positive_P]
        pairs_P = count_R[request_P]
        loss, grad_N = z_N.new_zeros(()), torch.zeros_like(z_N)
        for first, last in _chunks(pairs_P):
            counts = pairs_P[first:last]
            of_pair = torch.repeat_interleave(counts)  # the pair's positive, counted from `first`
            inside = torch.arange(len(of_pair), device=z_N.device) - (counts.cumsum(0) - counts)[of_pair]
            i = positive_P[first:last][of_pair]
            j = negative_M[start_R[request_P[first:last]][of_pair] + inside]
            share = share_N[i] * share_N[j]
            behind = z_N[j] - z_N[i]
            loss += (share * softplus(behind)).sum()
            slope = share * behind.sigmoid()
            grad_N.index_add_(0, j, slope).index_add_(0, i, -slope)
        ctx.save_for_backward(grad_N / rows.num_requests)
        return loss / rows.num_requests

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None, None]:
        (grad_N,) = ctx.saved_tensors
        return grad_N * upstream[0], None, None


def _side_sums(weight_N: Tensor, rows: ComparedRows) -> Tensor:
    """For every row, the weight of the rows of its class in its request."""
    side_N = rows.request_N * 2 + rows.positive_N
    return weight_N.new_zeros(2 * rows.num_requests).index_add(0, side_N, weight_N)[side_N]


def _chunks(pairs_P: Tensor) -> list[tuple[int, int]]:
    """Ranges of positives of about `PAIRS_AT_ONCE` pairs each; a positive's own pairs are never cut."""
    chunk_P = (pairs_P.cumsum(0) - pairs_P) // PAIRS_AT_ONCE
    sizes = torch.unique_consecutive(chunk_P, return_counts=True)[1].tolist()
    chunks, first = [], 0
    for size in sizes:
        chunks.append((first, first + size))
        first += size
    return chunks
