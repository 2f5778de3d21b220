"""Pooling of ragged histories by a small network of each (row, event) pair, without padding and without the pairs.

Legend: B rows · E events · P (row, event) pairs · M width that a row and an event have in common · W width of an
event · A, H widths of the two hidden layers.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from fullrank.kernels.bodies import runs_compiled

LEAST = 32_768  # pairs; the bodies take some ten seconds to compile, once for each set of widths


@dataclass(frozen=True, kw_only=True)
class Gate:
    """`f(h) = h (alpha + (1 - alpha) g)`, a slope on one side of a corner: with `g = [h > 0]` ReLU (alpha 0) and PReLU;
    with `g = sigmoid((h - mean) / sqrt(var + eps))`, where `mean_A` and `var_A` are given, Dice.

    `of_pairs`: mean and variance are those of the pairs at hand, and the given ones move towards them by `momentum`
    (the variance's by what it would be unbiased)."""

    alpha_A: Tensor
    mean_A: Tensor | None = None
    var_A: Tensor | None = None
    eps: float = 0.0
    momentum: float = 0.0
    of_pairs: bool = False


@dataclass(frozen=True, kw_only=True)
class Unit:
    """`h_1 = e base + (q * k) product + bias_b`, `h_2 = f_1(h_1) weight2^T + bias2`, `w = f_2(h_2) weight3^T + bias3`,
    where k is the first M coordinates of the event e. Both gates are of one kind."""

    base_WA: Tensor
    product_MA: Tensor
    gate1: Gate
    weight2_HA: Tensor
    bias2_H: Tensor
    gate2: Gate
    weight3_1H: Tensor
    bias3_1: Tensor


def target_attention(
    query_BM: Tensor,
    events_EW: Tensor,
    bias_BA: Tensor,
    offsets: Tensor,
    request_of_row_B: Tensor,
    unit: Unit,
) -> Tensor:
    """`out_b = sum of w_e e` over the events of the row's request, `[B, W]`, with w of `unit`; an empty history is 0.

    Request r holds events `offsets[r]:offsets[r + 1]`. For `runs_here` alone: its plain-torch reference is the layer's
    own formula, which knows any number of hidden layers. Gradients once (none of gradients). The number of threads
    changes no bit.

    Memory: `P (H + 1)` floats until the backward, none of width A. Not where a request has one event or two: a row
    costs some `4 W A` products of its own, and `2 W W A` more in training with statistics of the pairs.
    """
    from fullrank.kernels.cpu.attention import TargetAttention, plan_of

    others = events_EW.shape[1] - query_BM.shape[1]
    plan = plan_of(offsets, request_of_row_B, whole_requests=torch.is_grad_enabled())
    return TargetAttention.apply(
        plan,
        (unit.gate1, unit.gate2),
        F.pad(query_BM, (0, others)),
        events_EW.contiguous(),
        bias_BA,
        unit.base_WA,
        F.pad(unit.product_MA, (0, 0, 0, others)),
        unit.gate1.alpha_A,
        unit.weight2_HA,
        unit.bias2_H,
        unit.gate2.alpha_A,
        unit.weight3_1H,
        unit.bias3_1,
    )


def runs_here(offsets: Tensor, request_of_row_B: Tensor, *parts: Tensor) -> bool:
    """Whether `target_attention` is to be asked for pairs of these rows; `parts` are its floats. A single pair has no
    variance."""
    num_pairs = int(offsets.diff().index_select(0, request_of_row_B).sum()) if offsets.is_cpu else 0
    return num_pairs > 1 and runs_compiled(num_pairs, LEAST, *parts)
