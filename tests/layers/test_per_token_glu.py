"""The gated network of a token: its parts alone, its degree, and how far it shrinks ranks."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from fullrank.diagnostics import effective_rank
from fullrank.layers.per_token_glu import PerTokenGLU


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_each_token_is_its_equation():
    glu = PerTokenGLU(3, 4, 6, bias=True, inner_skip=True).double()
    with torch.no_grad():
        for parameter in glu.parameters():
            parameter.normal_(generator=torch.Generator().manual_seed(parameter.numel()))
    m = drawn(5, 3, 4)
    found = glu(m)
    for t in range(3):

        def linear(layer, x, t=t):
            return x @ layer.weight_TdD[t] + layer.bias_TD[t]

        a = m[:, t]
        hidden = (F.gelu(linear(glu.lift, a)) + linear(glu.inner_skip, a)) * linear(glu.gate, a)
        torch.testing.assert_close(found[:, t], linear(glu.reduce, hidden) + linear(glu.skip, a))


@pytest.mark.parametrize("part", ["reduce", "gate"])
def test_e2_without_one_factor_the_linear_skip_is_left(part):
    glu, m = PerTokenGLU(3, 4, 6).double(), drawn(5, 3, 4)
    with torch.no_grad():
        getattr(glu, part).weight_TdD.zero_()
    torch.testing.assert_close(glu(m), torch.einsum("btd,tdo->bto", m, glu.skip.weight_TdD))


def test_e3_the_gated_term_is_of_the_second_degree():
    glu, m = PerTokenGLU(3, 4, 6, activation="relu").double(), drawn(5, 3, 4)
    linear = glu.skip(m)
    torch.testing.assert_close(glu(2 * m) - 2 * linear, 4 * (glu(m) - linear))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_e6_relu_shrinks_more_than_gelu_and_gelu_more_than_glu(seed):
    """Stable rank of white noise, 16 x 64, after a network shared by all tokens, r = 3, without a skip."""
    torch.manual_seed(seed)
    x = drawn(64, 16, 64, seed=seed)
    ranks = {}
    for name, activation, gated in (("relu", "relu", False), ("gelu", "gelu", False), ("glu", "gelu", True)):
        network = PerTokenGLU(1, 64, 192, activation=activation, gated=gated).double()
        with torch.no_grad():
            network.skip.weight_TdD.zero_()
            y = network(x.reshape(-1, 1, 64)).view(x.shape)
        ranks[name] = float(effective_rank(y, "stable").mean())
    before = float(effective_rank(x, "stable").mean())
    assert ranks["relu"] < ranks["gelu"] < ranks["glu"] < before


def test_an_inner_skip_needs_a_gate():
    with pytest.raises(ValueError, match="gated=True"):
        PerTokenGLU(1, 2, 3, gated=False, inner_skip=True)
