"""A learner for `performance/time_to_auc.py`: the loop of `dcnv2_by_hand.py`, with the table optimizer and dtype that
the second argument names."""

from __future__ import annotations

import sys

import torch
from dcnv2_by_hand import MAKERS, stepper
from dcnv2_dense import Dense
from learning import Batches, Learner, teach
from torch import nn


def make(sizes: dict, batches: Batches) -> Learner:
    name, _, dtype = sys.argv[2].rpartition(" ")
    base = torch.arange(sizes["features"]) * sizes["rows_of_a_feature"]
    weight = torch.randn(sizes["features"] * sizes["rows_of_a_feature"], sizes["width"]) * sizes["init_std"]
    table = MAKERS[name](weight)
    dense = Dense(sizes)
    adam = torch.optim.Adam(dense.parameters(), lr=sizes["lr"], fused=True)
    rows = (((ids + base).reshape(-1), label) for ids, label in batches)

    def predict(ids: torch.Tensor) -> torch.Tensor:
        return dense(nn.functional.embedding(ids + base, table.weight).flatten(1))

    return stepper(table, dense, adam, rows, dtype == "bf16"), predict


if __name__ == "__main__":
    torch.sparse.check_sparse_tensor_invariants.disable()  # torch warns where nothing is said
    teach(make)
