"""From a ranker's output and a batch's labels to named losses. Outside the models: a model knows nothing of labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from fullrank.data.batch import Batch


class Scored(Protocol):
    """What an objective reads of a ranker's output: `logits[task]` [B], and losses of the model's own making."""

    @property
    def logits(self) -> Mapping[str, Tensor]: ...

    @property
    def aux(self) -> Mapping[str, Tensor]: ...


class Objective(Protocol):
    """Named scalar losses of a batch; what is descended is their sum."""

    def __call__(self, output: Scored, batch: Batch) -> dict[str, Tensor]: ...


@dataclass(frozen=True, kw_only=True)
class BinaryCrossEntropy:
    """The cross-entropy of every binary task, averaged over the weight of the rows whose label is known.

    ``L_k = Σ_i w_i m_ik ℓ(z_ik, y_ik) / Σ_i w_i m_ik`` with ``ℓ(z, y) = log(1 + e^z) - y z``, m_ik = 1 where label k
    of row i is known, and w_i the row's weight (times 1/s_i with `undo_sample_rate`). A task without a known row in
    the batch gives exactly 0 and a gradient of exactly 0. The model's own losses follow as ``aux.NAME``, unchanged.

    Args:
        tasks: the names of the label columns, in their order (`Inputs.task_names`); all are summed with weight 1.
        undo_sample_rate: count a row of which the share s was kept 1/s times, so that the model learns the rates of
            the traffic before sampling (and `pcoc` can be 1). Costs variance: rare large weights. Off, the model
            learns the rates of the sampled log.

    Being a mean over each batch, a row counts for more where few labels of its batch are known. Not for regression
    or multiclass tasks.
    """

    tasks: tuple[str, ...]
    undo_sample_rate: bool = False

    def __call__(self, output: Scored, batch: Batch) -> dict[str, Tensor]:
        labels = batch.labels
        if labels is None:
            raise ValueError("Expected a batch with labels, got one without: an objective needs them.")
        if labels.values_BK.shape[1] != len(self.tasks):
            got = f"{labels.values_BK.shape[1]} label columns"
            raise ValueError(f"Expected one label column for each task of {self.tasks}, got {got}.")
        weight_B = labels.weight_B / labels.sample_rate_B if self.undo_sample_rate else labels.weight_B
        losses = {}
        for column, task in enumerate(self.tasks):
            if task not in output.logits:
                raise ValueError(f"Expected logits of task {task!r}, got those of {list(output.logits)}.")
            losses[task] = _mean_loss(
                output.logits[task].float(), labels.values_BK[:, column], labels.known_BK[:, column], weight_B
            )
        return losses | {f"aux.{name}": loss for name, loss in output.aux.items()}


def _mean_loss(logit_B: Tensor, label_B: Tensor, known_B: Tensor, weight_B: Tensor) -> Tensor:
    counted_B = torch.where(known_B, weight_B, 0.0)
    # where, not a product: a nan or inf logit of an unknown row must not reach the sum or its gradient as 0 * nan
    loss_B = binary_cross_entropy_with_logits(torch.where(known_B, logit_B, 0.0), label_B, reduction="none")
    total = counted_B.sum()
    return (counted_B * loss_B).sum() / torch.where(total > 0, total, 1.0)
