"""How large a ranker is, and what a row costs it."""

from __future__ import annotations

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from fullrank.data.batch import Batch
from fullrank.kernels.bodies import bodies
from fullrank.rankers import Ranker


def dense_parameters(ranker: Ranker) -> int:
    return sum(parameter.numel() for parameter in ranker.dense_parameters())


def mflop_forward(ranker: Ranker, batch: Batch) -> float:
    """MFLOP a row of this batch, forward, by torch's counter in the plain-torch bodies. (Attention as products: the
    fused one is unknown to the counter. Look-ups and what is done number by number are not counted.)"""
    with (
        bodies("reference"),
        torch.no_grad(),
        sdpa_kernel(SDPBackend.MATH),
        FlopCounterMode(display=False) as counter,
    ):
        ranker.eval()(batch)
    return counter.get_total_flops() / batch.num_rows / 1e6
