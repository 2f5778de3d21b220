"""DCN-V2 above its embeddings, in plain torch: what an expert writes by hand, for the two loops here."""

from __future__ import annotations

import torch
from torch import nn


class Dense(nn.Module):
    """[x_L ; MLP(x_0)] -> Linear, with x_{l+1} = x_0 ⊙ (W x_l + b) + x_l; `[B, F·D] -> [B]`."""

    def __init__(self, sizes: dict) -> None:
        super().__init__()
        flat = sizes["features"] * sizes["width"]
        self.cross = nn.ModuleList(nn.Linear(flat, flat) for _ in range(sizes["cross_layers"]))
        layers, before = [], flat
        for after in sizes["hidden"]:
            layers += [nn.Linear(before, after), nn.ReLU()]
            before = after
        self.mlp = nn.Sequential(*layers)
        self.out = nn.Linear(flat + before, 1)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_normal_(module.weight)
                nn.init.zeros_(module.bias)

    def forward(self, x0: torch.Tensor) -> torch.Tensor:
        x = x0
        for linear in self.cross:
            x = torch.addcmul(x, x0, linear(x))
        return self.out(torch.cat([x, self.mlp(x0)], dim=1)).squeeze(1)


def loss_of(dense: Dense, x: torch.Tensor, label: torch.Tensor, bf16: bool) -> torch.Tensor:
    """The mean log-loss. In bf16 the embeddings are cast once: the crosses' products then run in bf16 too, which
    autocast alone would leave in float32."""
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        logit = dense(x.bfloat16() if bf16 else x)
    return nn.functional.binary_cross_entropy_with_logits(logit.float(), label)
