"""A learner for `performance/time_to_auc.py`: DCNv2 out of FuxiCTR's layers, and dense Adam (`dcnv2_fuxictr.py`)."""

from __future__ import annotations

from importlib.metadata import version

import torch
from dcnv2_fuxictr import Model
from fuxictr.pytorch.torch_utils import get_optimizer
from learning import Batches, Learner, teach
from torch import nn


def columns(ids: torch.Tensor) -> dict[str, torch.Tensor]:
    return {f"c{place}": column for place, column in enumerate(ids.T.contiguous())}


def make(sizes: dict, batches: Batches) -> Learner:
    model = Model(sizes)
    adam = get_optimizer("adam", model.parameters(), sizes["lr"])

    def step() -> None:
        ids, label = next(batches)
        adam.zero_grad()
        loss = nn.functional.binary_cross_entropy_with_logits(model(columns(ids)), label)
        loss.backward()
        adam.step()
        loss.item()

    return step, lambda ids: model(columns(ids))


if __name__ == "__main__":
    teach(make, fuxictr=version("fuxictr"))
