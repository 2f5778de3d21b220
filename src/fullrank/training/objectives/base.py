"""What an objective reads and gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from fullrank.data.batch import Batch


class Scored(Protocol):
    """What an objective reads of a ranker's output: `logits[task]` [B], and losses of the model's own making."""

    @property
    def logits(self) -> Mapping[str, Tensor]: ...

    @property
    def aux(self) -> Mapping[str, Tensor]: ...


class Objective(Protocol):
    """Named scalar losses of a batch; what is descended is their sum. One that compares the rows of a request says so
    by an attribute `whole_requests` that is true: then the loader must not cut requests."""

    def __call__(self, output: Scored, batch: Batch) -> dict[str, Tensor]: ...


@dataclass(frozen=True)
class LabelColumn:
    """One task's labels of a batch and what says how its rows count (see `data.batch.Labels`): `value_B` float32,
    `known_B` bool, `weight_B` and `sample_rate_B` float32, `request_of_row_B` int64 in [0, `num_requests`)."""

    value_B: Tensor
    known_B: Tensor
    weight_B: Tensor
    sample_rate_B: Tensor
    request_of_row_B: Tensor
    num_requests: int


def mean_of_known(loss_B: Tensor, known_B: Tensor, weight_B: Tensor) -> Tensor:
    """``Σ_i w_i m_i ℓ_i / Σ_i w_i m_i``, m_i = 1 where the label is known; exactly 0 where nothing counts."""
    counted_B = torch.where(known_B, weight_B, 0.0)
    total = counted_B.sum()
    return (counted_B * loss_B).sum() / torch.where(total > 0, total, 1.0)
