"""The layer of OneTrans by hand: shared weights and own ones."""

from __future__ import annotations

import itertools
from functools import partial

import pytest
import torch
from torch.nn import functional as F

from fullrank.layers.linear import xavier_linear
from fullrank.layers.mixed_part import MixedPart
from fullrank.layers.per_token_linear import PerTokenLinear


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def normed(x: torch.Tensor) -> torch.Tensor:
    return x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt()


@pytest.mark.parametrize("own", [False, True])
def test_every_number_of_the_equation_once_more(own: bool) -> None:
    part = MixedPart(4, 2, 3, partial(PerTokenLinear, 3) if own else xavier_linear).double()
    with torch.no_grad():
        for seed, parameter in enumerate(part.parameters()):
            parameter.copy_(drawn(*parameter.shape, seed=seed))
    x, read = drawn(5, 3, 4, seed=90), drawn(5, 3, 2, 2, seed=91)
    k, v = part.heads(x)
    q, merged = part.queries(x), part.merge(x, read)
    for b, t in itertools.product(range(5), range(3)):

        def by(linear: torch.nn.Module, y: torch.Tensor, t: int = t) -> torch.Tensor:
            if isinstance(linear, PerTokenLinear):
                made = y @ linear.weight_TdD[t]
                return made if linear.bias_TD is None else made + linear.bias_TD[t]
            return F.linear(y, linear.weight, linear.bias)  # type: ignore[arg-type]

        inner = normed(x[b, t]) * part.norm_in.weight
        for found, linear in ((q, part.query), (k, part.key), (v, part.value)):
            torch.testing.assert_close(found[b, t].flatten(), by(linear, inner))
        s = x[b, t] + by(part.out, read[b, t].flatten())
        expected = s + by(part.reduce, F.gelu(by(part.lift, normed(s) * part.norm_feed.weight)))
        torch.testing.assert_close(merged[b, t], expected)
