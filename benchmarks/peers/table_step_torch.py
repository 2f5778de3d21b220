"""The table step of torch: one `nn.Embedding(sparse=True)` for all features, and `SparseAdam` or `Adagrad`."""

from __future__ import annotations

from itertools import cycle

import torch
from torch import nn
from worker import Mode, serve, work

OPTIMIZERS = {"SparseAdam": torch.optim.SparseAdam, "sparse Adagrad": torch.optim.Adagrad}


def main() -> None:
    given = work()
    sizes = given.sizes
    modes = {}
    for name, make in OPTIMIZERS.items():
        table = nn.Embedding(sizes["features"] * sizes["rows_of_a_feature"], sizes["width"], sparse=True)
        nn.init.normal_(table.weight, std=sizes["init_std"])
        optimizer = make(table.parameters(), lr=0.02)
        base = torch.arange(sizes["features"]) * sizes["rows_of_a_feature"]
        for kind, ids_SBF in given.ids_SBF.items():
            modes[f"{name}, {kind}"] = mode(table, optimizer, cycle([ids_BF + base for ids_BF in ids_SBF]))
    serve(modes)


def mode(table: nn.Embedding, optimizer, following) -> Mode:
    waiting = []

    def before() -> None:
        x = table(next(following))
        waiting[:] = [x, torch.randn_like(x)]

    def step() -> None:
        x, grad = waiting
        x.backward(grad)
        optimizer.step()
        optimizer.zero_grad()

    return Mode(step, before)


if __name__ == "__main__":
    torch.sparse.check_sparse_tensor_invariants.disable()  # torch warns where nothing is said
    main()
