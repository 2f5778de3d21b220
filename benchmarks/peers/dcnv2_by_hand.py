"""DCNv2 trained by a loop that an expert would write by hand in plain torch: one table for all features, rows gathered
outside the graph so that their gradient is a plain tensor, and one of several table optimizers, the fastest of which
`dcnv2_training.py` takes. Dense weights: torch's fused Adam.
"""

from __future__ import annotations

from itertools import cycle

import torch
from dcnv2_dense import Dense, loss_of
from torch import nn
from worker import Mode, Work, serve, work


class Torch:
    """`torch.optim.SparseAdam` or `Adagrad` on sparse gradients, as `nn.Embedding(sparse=True)` leaves them."""

    def __init__(self, weight: torch.Tensor, optimizer: type, lr: float) -> None:
        self.weight = nn.Parameter(weight)
        self.optimizer = optimizer([self.weight], lr=lr)

    def update(self, rows: torch.Tensor, grads: torch.Tensor) -> None:
        self.weight.grad = torch.sparse_coo_tensor(rows[None], grads, self.weight.shape, check_invariants=False)
        self.optimizer.step()


class DenseAdam(Torch):
    """Fused Adam over the whole table: for small ones."""

    def __init__(self, weight: torch.Tensor, lr: float) -> None:
        self.weight = nn.Parameter(weight)
        self.optimizer = torch.optim.Adam([self.weight], lr=lr, fused=True)
        self.weight.grad = torch.zeros_like(weight)

    def update(self, rows: torch.Tensor, grads: torch.Tensor) -> None:
        assert self.weight.grad is not None
        self.weight.grad.zero_().index_add_(0, rows, grads)
        self.optimizer.step()


class Rowwise:
    """Row-wise Adagrad: acc += mean(g²); w -= lr g / (sqrt(acc) + eps). Merged: of the summed gradient of each row.
    Not merged: of each look-up's own gradient, which is another algorithm, and cheaper where rows repeat little."""

    def __init__(self, weight: torch.Tensor, lr: float, merged: bool) -> None:
        self.weight, self.lr, self.merged = weight, lr, merged
        self.acc = torch.zeros(len(weight))

    def update(self, rows: torch.Tensor, grads: torch.Tensor) -> None:
        if self.merged:
            sorted_rows, order = rows.sort()
            rows, counts = torch.unique_consecutive(sorted_rows, return_counts=True)
            starts = counts.cumsum(0) - counts
            grads = nn.functional.embedding_bag(order, grads, starts, mode="sum")
        self.acc.index_add_(0, rows, grads.square().mean(1))
        rate = self.acc.index_select(0, rows).sqrt_().add_(1e-8).reciprocal_().mul_(-self.lr)
        self.weight.index_add_(0, rows, grads * rate[:, None])


class SGD:
    """w -= lr g of every look-up: no state, nothing merged. The least that a table step can do in plain torch."""

    def __init__(self, weight: torch.Tensor, lr: float) -> None:
        self.weight, self.lr = weight, lr

    def update(self, rows: torch.Tensor, grads: torch.Tensor) -> None:
        self.weight.index_add_(0, rows, grads, alpha=-self.lr)


MAKERS = {
    "SparseAdam": lambda weight: Torch(weight, torch.optim.SparseAdam, 1e-3),
    "sparse Adagrad": lambda weight: Torch(weight, torch.optim.Adagrad, 0.02),
    "row-wise Adagrad, merged": lambda weight: Rowwise(weight, 0.02, merged=True),
    "row-wise Adagrad, not merged": lambda weight: Rowwise(weight, 0.02, merged=False),
    "SGD": lambda weight: SGD(weight, 0.02),
    "dense fused Adam": lambda weight: DenseAdam(weight, 1e-3),
}


def modes(given: Work) -> dict[str, Mode]:
    sizes, found = given.sizes, {}
    base = torch.arange(sizes["features"]) * sizes["rows_of_a_feature"]
    batches = {
        kind: [((ids + base).reshape(-1), label) for ids, label in zip(ids_SBF, given.labels_SB, strict=True)]
        for kind, ids_SBF in given.ids_SBF.items()
    }
    for name, make in MAKERS.items():
        wanted = [dtype for dtype in ("fp32", "bf16") if given.wants(f"{name} {dtype}")]
        if not wanted:
            continue
        table = make(torch.randn(sizes["features"] * sizes["rows_of_a_feature"], sizes["width"]) * sizes["init_std"])
        dense = Dense(sizes)
        adam = torch.optim.Adam(dense.parameters(), lr=sizes["lr"], fused=True)
        for dtype in wanted:
            found[f"{name} {dtype}"] = Mode(stepper(table, dense, adam, batches["zipf"], dtype == "bf16"))
    return found


def stepper(table, dense, adam, batches, bf16):
    following = cycle(batches)

    def step() -> None:
        rows, label = next(following)
        with torch.no_grad():
            x = nn.functional.embedding(rows, table.weight)
        loss = loss_of(dense, x.requires_grad_().view(len(label), -1), label, bf16)
        loss.backward()
        adam.step()
        adam.zero_grad()
        with torch.no_grad():
            table.update(rows, x.grad)
        loss.item()

    return step


if __name__ == "__main__":
    torch.sparse.check_sparse_tensor_invariants.disable()  # torch warns where nothing is said
    serve(modes(work()))
