"""DIN padded to the longest history of a batch: by hand (`Padded`, plain torch) and out of FuxiCTR's layers. Steps of
training, timed one by one when `benchmarks/din.py` asks for them.

    python din_models.py --model padded|fuxictr --work FOLDER

Needs torch, numpy and, for its model, FuxiCTR. Reads `sizes.json`, `candidate.npy` and `label.npy` [B], `lengths.npy`
[B] and `events.npy` [E]. A line on the standard input is one step; its answer is a line of JSON with its seconds. The
table learns by torch's SparseAdam in `padded`, by dense Adam in `fuxictr`, whose layers give dense gradients.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F


class Dice(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(width, eps=1e-8, affine=False)
        self.alpha = nn.Parameter(torch.zeros(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        p = self.norm(x).sigmoid()
        return p * x + (1 - p) * self.alpha * x


class Padded(nn.Module):
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


class Model(nn.Module):
    def __init__(self, sizes: dict, model: str) -> None:
        super().__init__()
        width = sizes["width"]
        self.table = nn.Embedding(sizes["items"], width, sparse=model == "padded")
        nn.init.normal_(self.table.weight, std=0.01)
        if model == "padded":
            self.unit: nn.Module = Padded(width, sizes["attention_hidden"])
        else:
            from fuxictr.pytorch.layers import DIN_Attention

            self.unit = DIN_Attention(width, sizes["attention_hidden"], "Dice")
        a, b = sizes["hidden"]
        self.mlp = nn.Sequential(nn.Linear(2 * width, a), nn.ReLU(), nn.Linear(a, b), nn.ReLU(), nn.Linear(b, 1))

    def forward(self, candidate: torch.Tensor, history: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        query, events = self.table(candidate), self.table(history)
        return self.mlp(torch.cat([query, self.unit(query, events, mask)], dim=1)).squeeze(1)


def stepper(folder: Path, sizes: dict, name: str) -> Callable[[], float]:
    """A function that makes one step and says its seconds."""
    torch.manual_seed(0)
    candidate, label, lengths, events = (
        torch.from_numpy(np.load(folder / f"{part}.npy", allow_pickle=False))
        for part in ("candidate", "label", "lengths", "events")
    )
    mask = torch.arange(int(lengths.max())) < lengths.unsqueeze(1)
    history = torch.zeros(mask.shape, dtype=torch.int64).masked_scatter(mask, events)
    model = Model(sizes, name)
    dense = [parameter for key, parameter in model.named_parameters() if key != "table.weight"]
    of_table = torch.optim.SparseAdam if name == "padded" else torch.optim.Adam
    rules = (torch.optim.Adam(dense, lr=1e-3), of_table([model.table.weight], lr=1e-3))

    def step() -> float:
        begun = time.perf_counter()
        loss = F.binary_cross_entropy_with_logits(model(candidate, history, mask.float()), label)
        loss.backward()
        for rule in rules:
            rule.step()
            rule.zero_grad()
        loss.item()
        return time.perf_counter() - begun

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=("padded", "fuxictr"), required=True)
    parser.add_argument("--work", type=Path, required=True)
    options = parser.parse_args()
    sizes = json.loads((options.work / "sizes.json").read_text())
    torch.set_num_threads(sizes["threads"])
    step = stepper(options.work, sizes, options.model)
    for _ in sys.stdin:
        print(json.dumps({"seconds": step()}), flush=True)


if __name__ == "__main__":
    main()
