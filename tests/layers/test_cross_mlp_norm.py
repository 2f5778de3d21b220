"""Cross layer, MLP and the placement of the norm, each against its equation."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fullrank.layers.cross import CrossLayer
from fullrank.layers.mlp import MLP
from fullrank.layers.norm import ResidualNorm


def test_cross_layer_is_equation_one():
    torch.manual_seed(0)
    layer = CrossLayer(4).double()
    nn.init.normal_(layer.linear.bias)
    x0, x = torch.randn(3, 4, dtype=torch.float64), torch.randn(3, 4, dtype=torch.float64)
    W, b = layer.linear.weight.detach().numpy(), layer.linear.bias.detach().numpy()
    expected = np.stack([x0[i].numpy() * (W @ x[i].numpy() + b) + x[i].numpy() for i in range(3)])
    np.testing.assert_allclose(layer(x0, x).detach().numpy(), expected, atol=1e-12)


def test_cross_layers_raise_the_degree_by_one_each():
    """With x0 = s · v and zero biases, L layers are a polynomial in s of degree L + 1, and no less."""
    torch.manual_seed(0)
    layers = [CrossLayer(3).double() for _ in range(3)]
    v = torch.randn(1, 3, dtype=torch.float64)

    def at(s):
        x0 = x = s * v
        for layer in layers:
            x = layer(x0, x)
        return x.squeeze(0).detach().numpy()

    grid = np.linspace(-1.0, 1.0, 9)
    values = np.stack([at(float(s)) for s in grid])
    coefficients = np.polynomial.polynomial.polyfit(grid, values, 8)
    assert np.abs(coefficients[5:]).max() < 1e-10
    assert np.abs(coefficients[4]).max() > 1e-4
    assert np.abs(coefficients[0]).max() < 1e-12


def test_mlp_without_extras_is_linear_relu_linear():
    torch.manual_seed(0)
    mlp = MLP(5, (4, 3), 2)
    x = torch.randn(6, 5)
    first, _, second, _, last = mlp.steps
    expected = F.linear(F.relu(F.linear(F.relu(F.linear(x, first.weight)), second.weight)), last.weight)
    torch.testing.assert_close(mlp(x), expected)
    assert mlp.width == 2 and all(not m.bias.any() for m in mlp.steps if isinstance(m, nn.Linear))


def test_mlp_without_hidden_layers():
    x = torch.randn(2, 5)
    assert torch.equal(MLP(5, ())(x), x) and MLP(5, ()).width == 5
    assert MLP(5, (), 1)(x).shape == (2, 1)


def test_mlp_with_batch_norm_and_dropout_trains_and_is_fixed_in_eval():
    torch.manual_seed(0)
    mlp = MLP(5, (4,), dropout=0.5, batch_norm=True)
    kinds = [type(m) for m in mlp.steps]
    assert kinds == [nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Dropout] and mlp.width == 4
    x = torch.randn(64, 5)
    mlp(x)
    mlp.eval()
    torch.testing.assert_close(mlp(x)[:1], mlp(x[:1]))


@pytest.mark.parametrize("placement", ["post", "pre"])
def test_residual_norm(placement):
    torch.manual_seed(0)
    block = ResidualNorm(4, placement)
    nn.init.normal_(block.norm.weight)
    nn.init.normal_(block.norm.bias)
    x = torch.randn(2, 3, 4)

    def ln(v):
        centred = v - v.mean(-1, keepdim=True)
        return centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt() * block.norm.weight + block.norm.bias

    expected = ln(x.sin() + x) if placement == "post" else ln(x).sin() + x
    torch.testing.assert_close(block(x, torch.sin), expected)
