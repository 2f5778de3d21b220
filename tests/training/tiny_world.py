"""Hand-made batches, a loader over them and rankers small enough to train in milliseconds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from fullrank.data.batch import Batch, Candidates, FeatureBlock, Labels, Requests

TASKS = ("click", "buy")


@dataclass(frozen=True)
class Output:
    logits: dict[str, Tensor]
    aux: dict[str, Tensor] = field(default_factory=dict)
    taps: dict[str, Tensor] = field(default_factory=dict)


def block(ids_nF: Tensor) -> FeatureBlock:
    return FeatureBlock(ids_nF, torch.zeros(len(ids_nF), 0))


def make_batch(ids_B2: Tensor, values_BK: Tensor, known_BK: Tensor | None = None, **columns: Tensor) -> Batch:
    """One request a row: field 0 is the request's (user), field 1 the candidate's."""
    rows = len(ids_B2)
    ones = torch.ones(rows)
    user_R = columns.get("user_R", ids_B2[:, 0])
    return Batch(
        Requests(block(ids_B2[:, :1]), (), user_R, torch.arange(rows)),
        Candidates(block(ids_B2[:, 1:]), torch.arange(rows)),
        Labels(
            values_BK,
            torch.ones_like(values_BK, dtype=torch.bool) if known_BK is None else known_BK,
            columns.get("weight_B", ones),
            columns.get("sample_rate_B", ones),
            ones,
        ),
    )


class TinyLoader:
    """`num_rows` simulated rows in a new order every epoch; the interface of `data.loader.Loader`."""

    def __init__(self, num_rows: int, *, batch_size: int, seed: int = 0, shuffle: bool = True) -> None:
        self.num_rows, self.batch_size, self.seed, self.shuffle = num_rows, batch_size, seed, shuffle
        random = np.random.default_rng(num_rows)
        self.ids = torch.from_numpy(random.integers(2, 20, (num_rows, 2)))
        odd = (self.ids.sum(1) % 2).float()
        self.values = torch.stack([odd, (odd * (self.ids[:, 0] > 10)).float()], dim=1)
        self.known = torch.from_numpy(random.random((num_rows, 2)) < 0.9)
        self.values[~self.known] = 0

    def __len__(self) -> int:
        return -(-self.num_rows // self.batch_size)

    def epoch(self, epoch: int, start_row: int = 0) -> Iterator[Batch]:
        assert start_row % self.batch_size == 0
        order = np.arange(self.num_rows)
        if self.shuffle:
            order = np.random.default_rng([self.seed, epoch]).permutation(order)
        for start in range(start_row, self.num_rows, self.batch_size):
            rows = torch.from_numpy(order[start : start + self.batch_size])
            yield make_batch(self.ids[rows], self.values[rows], self.known[rows])
