"""DIN padded to the longest history of a batch: by hand (plain torch) and out of FuxiCTR's layers.

The table learns by torch's SparseAdam by hand, by dense Adam above FuxiCTR's layers, which give dense gradients; all
else by Adam. The padding itself is not timed. Modes: `padded, fp32`, `padded, bf16` and, where FuxiCTR is installed,
`fuxictr, fp32`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.metadata import version
from itertools import cycle
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from worker import Mode, Work, serve, work

Batch = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]


class Dice(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(width, eps=1e-8, affine=False)
        self.alpha = nn.Parameter(torch.zeros(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        p = self.norm(x).sigmoid()
        return p * x + (1 - p) * self.alpha * x


class PaddedUnit(nn.Module):
    """The unit as an expert would write it on `[B, L]`: its first Linear in parts, padding masked after the unit."""

    def __init__(self, width: int, hidden: list[int]) -> None:
        super().__init__()
        self.first = nn.Linear(4 * width, hidden[0])
        a, b = hidden
        self.rest = nn.Sequential(Dice(a), nn.Linear(a, b), Dice(b), nn.Linear(b, 1))

    def forward(self, query: torch.Tensor, events: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        query_part, key, difference, product = self.first.weight.chunk(4, dim=1)
        hidden = events @ (key - difference).T + (query.unsqueeze(1) * events) @ product.T
        hidden = hidden + F.linear(query, query_part + difference, self.first.bias).unsqueeze(1)
        weight = self.rest(hidden.flatten(0, 1)).view_as(mask) * mask
        return torch.bmm(weight.unsqueeze(1), events).squeeze(1)


class ByHand(nn.Module):
    def __init__(self, sizes: dict) -> None:
        super().__init__()
        width = sizes["width"]
        self.table = nn.Embedding(sizes["items"], width, sparse=True)
        self.unit = PaddedUnit(width, sizes["attention_hidden"])
        a, b = sizes["hidden"]
        self.mlp = nn.Sequential(nn.Linear(2 * width, a), nn.ReLU(), nn.Linear(a, b), nn.ReLU(), nn.Linear(b, 1))
        nn.init.normal_(self.table.weight, std=sizes["init_std"])

    def forward(self, candidate: torch.Tensor, history: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        query, events = self.table(candidate), self.table(history)
        return self.mlp(torch.cat([query, self.unit(query, events, mask)], dim=1)).squeeze(1)


class OfFuxiCTR(nn.Module):
    """`DIN_Attention` and `MLP_Block`; its `FeatureEmbedding` of one feature is the same `nn.Embedding`."""

    def __init__(self, sizes: dict) -> None:
        from fuxictr.pytorch.layers import DIN_Attention, MLP_Block

        super().__init__()
        width = sizes["width"]
        self.table = nn.Embedding(sizes["items"], width, padding_idx=0)
        self.unit = DIN_Attention(width, sizes["attention_hidden"], "Dice")
        self.mlp = MLP_Block(2 * width, hidden_units=sizes["hidden"], hidden_activations="ReLU", output_dim=1)
        nn.init.normal_(self.table.weight, std=sizes["init_std"])

    def forward(self, candidate: torch.Tensor, history: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        query, events = self.table(candidate), self.table(history)
        return self.mlp(torch.cat([query, self.unit(query, events, mask)], dim=1)).squeeze(1)


def padded(given: Work, folder: Path) -> list[Batch]:
    """Of each step: candidate [B], history [B, L] and its mask (float32), label [B]."""
    candidate_SB, lengths_SB, events_E = (
        torch.from_numpy(np.load(folder / f"{name}.npy", allow_pickle=False))
        for name in ("candidate", "lengths", "events")
    )
    made = []
    events_of_step = events_E.split(lengths_SB.sum(dim=1).tolist())
    for candidate, lengths, events, label in zip(
        candidate_SB, lengths_SB, events_of_step, given.labels_SB, strict=True
    ):
        mask = torch.arange(int(lengths.max())) < lengths.unsqueeze(1)
        history = torch.zeros(mask.shape, dtype=torch.int64).masked_scatter(mask, events)
        made.append((candidate, history, mask.float(), label))
    return made


def stepper(
    model: ByHand | OfFuxiCTR, of_table: torch.optim.Optimizer, lr: float, batches: list[Batch], bf16: bool
) -> Callable[[], None]:
    dense = [parameter for name, parameter in model.named_parameters() if name != "table.weight"]
    rules = (torch.optim.Adam(dense, lr=lr), of_table)
    following = cycle(batches)

    def step() -> None:
        candidate, history, mask, label = next(following)
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            logit = model(candidate, history, mask)
        loss = F.binary_cross_entropy_with_logits(logit.float(), label)
        loss.backward()
        for rule in rules:
            rule.step()
            rule.zero_grad()
        loss.item()

    return step


def main() -> None:
    given = work()
    batches, lr = padded(given, Path(sys.argv[1])), given.sizes["lr"]
    modes, about = {}, {}
    for dtype in ("fp32", "bf16"):
        if given.wants(f"padded, {dtype}"):
            model = ByHand(given.sizes)
            of_table = torch.optim.SparseAdam([model.table.weight], lr=lr)
            modes[f"padded, {dtype}"] = Mode(stepper(model, of_table, lr, batches, dtype == "bf16"))
    if given.wants("fuxictr, fp32"):
        model = OfFuxiCTR(given.sizes)
        of_table = torch.optim.Adam([model.table.weight], lr=lr)
        modes["fuxictr, fp32"] = Mode(stepper(model, of_table, lr, batches, False))
        about["fuxictr"] = version("fuxictr")
    serve(modes, **about)


if __name__ == "__main__":
    main()
