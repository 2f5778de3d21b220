"""torch-rechub's own `DCNv2` (parallel, full-rank crosses): one table a feature with dense gradients, BatchNorm in its
MLP (it has no other), `torch.optim.Adam` over every weight with lr 1e-3 as its trainer does. Less than its trainer
does: no weight decay. It ends in a sigmoid, so its loss is the binary cross-entropy of probabilities.
"""

from __future__ import annotations

from importlib.metadata import version
from itertools import cycle

import torch
from torch import nn
from torch_rechub.basic.features import SparseFeature
from torch_rechub.basic.initializers import RandomNormal
from torch_rechub.models.ranking import DCNv2
from worker import Mode, serve, work


def main() -> None:
    given = work()
    sizes = given.sizes
    start = RandomNormal(0, sizes["init_std"])
    features = [
        SparseFeature(f"c{place}", sizes["rows_of_a_feature"], sizes["width"], padding_idx=0, initializer=start)
        for place in range(sizes["features"])
    ]
    mlp = {"dims": list(sizes["hidden"]), "dropout": 0.0, "activation": "relu"}
    model = DCNv2(features, sizes["cross_layers"], mlp, use_low_rank_mixture=False)
    adam = torch.optim.Adam(model.parameters(), lr=sizes["lr"])
    batches = cycle(
        [
            ({f"c{place}": column for place, column in enumerate(ids_BF.T.contiguous())}, label)
            for ids_BF, label in zip(given.ids_SBF["zipf"], given.labels_SB, strict=True)
        ]
    )

    def step() -> None:
        columns, label = next(batches)
        loss = nn.functional.binary_cross_entropy(model(columns), label)
        adam.zero_grad()
        loss.backward()
        adam.step()
        loss.item()

    serve({"fp32": Mode(step)}, torch_rechub=version("torch-rechub"))


if __name__ == "__main__":
    main()
