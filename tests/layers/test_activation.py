"""Dice against its equation, and the MLP's choice of activation."""

import pytest
import torch
from torch import nn

from fullrank.layers.activation import Dice, make_activation
from fullrank.layers.mlp import MLP


@pytest.fixture
def dice():
    dice = Dice(3).double()
    with torch.no_grad():
        dice.alpha_D.copy_(torch.tensor([0.3, -0.2, 0.0]))
    return dice


def by_the_equation(x, mean, var, alpha):
    p = torch.sigmoid((x - mean) / torch.sqrt(var + 1e-8))
    return p * x + (1 - p) * alpha * x


def test_dice_in_training_takes_the_batch_and_in_evaluation_what_it_has_seen(dice):
    x = torch.randn(7, 3, dtype=torch.float64) * 2 + 1
    expected = by_the_equation(x, x.mean(0), x.var(0, unbiased=False), dice.alpha_D)
    torch.testing.assert_close(dice.train()(x), expected)
    mean, var = 0.1 * x.mean(0), 0.9 + 0.1 * x.var(0)
    torch.testing.assert_close(dice.eval()(x), by_the_equation(x, mean, var, dice.alpha_D))


@pytest.mark.parametrize("owners", [0, 1])
def test_a_training_batch_without_a_variance_takes_the_running_one(dice, owners):
    x = torch.randn(owners, 3, dtype=torch.float64)
    in_training = dice.train()(x)
    torch.testing.assert_close(in_training, dice.eval()(x))
    assert torch.equal(dice.norm.running_var, torch.ones(3, dtype=torch.float64))


def test_dice_of_rounded_numbers_is_in_single_precision(dice):
    x = torch.randn(7, 3).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        rounded = dice.float().train()(x)
    torch.testing.assert_close(rounded, dice(x.float()))


def test_dice_is_the_identity_where_alpha_is_one(dice):
    nn.init.ones_(dice.alpha_D)
    x = torch.randn(5, 3, dtype=torch.float64)
    torch.testing.assert_close(dice(x), x)


@pytest.mark.parametrize(
    ("kind", "made", "parameters"), [("relu", nn.ReLU, 0), ("prelu", nn.PReLU, 5), ("dice", Dice, 5)]
)
def test_the_mlp_has_the_activation_that_was_named(kind, made, parameters):
    mlp = MLP(4, (5, 5), 1, activation=kind)
    assert sum(isinstance(step, made) for step in mlp.steps) == 2
    assert isinstance(make_activation(kind, 5), made)
    assert sum(p.numel() for p in mlp.parameters()) == (4 * 5 + 5) + (5 * 5 + 5) + 6 + 2 * parameters
