"""DCNv2 out of FuxiCTR's layers (its wheel has layers and no models): `FeatureEmbedding` (one table a feature, dense
gradients), `CrossNetV2` beside `MLP_Block`, and its default optimizer, `torch.optim.Adam` over every weight with
lr 1e-3. Less than its own `fit` does: gradients are not clipped.
"""

from __future__ import annotations

from importlib.metadata import version
from itertools import cycle
from types import SimpleNamespace

import torch
from fuxictr.pytorch.layers import CrossNetV2, FeatureEmbedding, MLP_Block
from fuxictr.pytorch.torch_utils import get_optimizer
from torch import nn
from worker import Mode, serve, work


class Model(nn.Module):
    def __init__(self, sizes: dict) -> None:
        super().__init__()
        feature = {"type": "categorical", "source": "", "vocab_size": sizes["rows_of_a_feature"], "padding_idx": 0}
        features = SimpleNamespace(features={f"c{place}": feature for place in range(sizes["features"])})
        flat = sizes["features"] * sizes["width"]
        normal = f"partial(nn.init.normal_, std={sizes['init_std']})"
        self.embedding = FeatureEmbedding(features, sizes["width"], embedding_initializer=normal)
        self.cross = CrossNetV2(flat, sizes["cross_layers"])
        self.mlp = MLP_Block(flat, sizes["hidden"], "ReLU")
        self.out = nn.Linear(sizes["hidden"][-1] + flat, 1)
        for module in self.modules():
            if type(module) is nn.Linear:
                nn.init.xavier_normal_(module.weight)
                nn.init.zeros_(module.bias)

    def forward(self, columns: dict[str, torch.Tensor]) -> torch.Tensor:
        x = self.embedding(columns, flatten_emb=True)
        return self.out(torch.cat([self.cross(x), self.mlp(x)], dim=1)).squeeze(1)


def main() -> None:
    given = work()
    model = Model(given.sizes)
    adam = get_optimizer("adam", model.parameters(), given.sizes["lr"])
    batches = cycle(
        [
            ({f"c{place}": column for place, column in enumerate(ids_BF.T.contiguous())}, label)
            for ids_BF, label in zip(given.ids_SBF["zipf"], given.labels_SB, strict=True)
        ]
    )

    def step() -> None:
        columns, label = next(batches)
        adam.zero_grad()
        loss = nn.functional.binary_cross_entropy_with_logits(model(columns), label)
        loss.backward()
        adam.step()
        loss.item()

    serve({"fp32": Mode(step)}, fuxictr=version("fuxictr"))


if __name__ == "__main__":
    main()
