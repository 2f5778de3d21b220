"""The best items of every query. Q queries · N items · D width · k found."""

from __future__ import annotations

import torch
from torch import Tensor

from fullrank.kernels.bodies import runs_compiled

LEAST = 1 << 21  # scores


def top_k(queries_QD: Tensor, items_ND: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """(`scores_Qk`, `items_Qk`): the k largest of `queries_QD @ items_ND.T` of each query and whose they are (int64),
    best first; of equal scores the item of lower number first.

    The body for CPUs never holds all `[Q, N]` scores, but blocks of 2 MB; its products may differ from those of one
    large product in their last bits, and with them the order of scores that differ in nothing else. A score that is
    NaN, and a k outside 1..N, is a ValueError. Not for k near N (sort the scores instead), nor for items that change
    between queries. There is no gradient.
    """
    if not 1 <= k <= len(items_ND):
        raise ValueError(f"Expected k in 1..{len(items_ND)}, the number of items, got {k}.")
    work = len(queries_QD) * len(items_ND)
    if runs_compiled(work, LEAST, queries_QD, items_ND) and len(items_ND) < 1 << 32:
        from fullrank.kernels.cpu.top_k import top_k_on_cpu

        found = top_k_on_cpu(queries_QD.detach(), items_ND.detach(), k)
        if found is not None:
            return found
    scores_QN = queries_QD.detach() @ items_ND.detach().T
    if scores_QN.isnan().any():
        query, item = scores_QN.isnan().nonzero()[0].tolist()
        raise ValueError(f"Expected scores that are numbers, got NaN for query {query} and item {item}.")
    # torch.topk says nothing about ties. So it gets numbers without any: a score's bits in the order of the scores
    # (+ 0.0: there is one zero), and below them the item, the lower the better.
    words_QN = (scores_QN.float() + 0.0).view(torch.int32)
    order_QN = torch.where(words_QN < 0, words_QN ^ 0x7FFFFFFF, words_QN).long()
    last = len(items_ND) - 1
    keys_QN = (order_QN << 32) | torch.arange(last, -1, -1, device=order_QN.device)
    items_Qk = last - (keys_QN.topk(k).values & 0xFFFFFFFF)
    return scores_QN.gather(-1, items_Qk), items_Qk
