"""Our learner for `time_to_auc.py`: DCNv2 of `ours_dcnv2.py`, in the dtype that the second argument names."""

from __future__ import annotations

import sys

import torch
from learning import Batches, Learner, teach
from ours_dcnv2 import batch_of, build, stepper

import fullrank
from fullrank.kernels.pages import keep_freed_memory


def make(sizes: dict, batches: Batches) -> Learner:
    ranker, optimizer, objective = build(sizes, sizes["seed"])
    rows = (batch_of(ids_BF, label_B) for ids_BF, label_B in batches)

    def predict(ids_BF: torch.Tensor) -> torch.Tensor:
        return ranker(batch_of(ids_BF, torch.zeros(len(ids_BF)))).logits["click"]

    return stepper(ranker, optimizer, objective, rows, sys.argv[2] == "bf16"), predict


if __name__ == "__main__":
    keep_freed_memory()  # as `train` does
    teach(make, fullrank=fullrank.__version__)
