"""Per-token FFN: one network a token, computed as one product."""

import math

import pytest
import torch
import torch.nn.functional as F

from fullrank.layers.per_token_ffn import PerTokenFFN, xavier_normal_slices_

T, B, D, K = 5, 7, 6, 3


@pytest.fixture
def ffn():
    torch.manual_seed(0)
    ffn = PerTokenFFN(T, D, K).double()
    with torch.no_grad():
        ffn.bias1_T1H.normal_()
        ffn.bias2_T1D.normal_()
    return ffn


@pytest.mark.parametrize("token", range(T))
def test_r4_changing_the_weights_of_a_token_changes_only_its_row(ffn, token):
    x_TBD = torch.randn(T, B, D, dtype=torch.float64)
    before = ffn(x_TBD)
    for parameter in ffn.parameters():
        with torch.no_grad():
            parameter[token] += 0.1
        after = ffn(x_TBD)
        changed = (after != before).flatten(1).any(1)
        assert changed.tolist() == [t == token for t in range(T)]
        before = after


def test_r4_einsum_form_agrees(ffn):
    x_BTD = torch.randn(B, T, D, dtype=torch.float64)
    hidden = torch.einsum("btd,tdh->bth", x_BTD, ffn.weight1_TDH) + ffn.bias1_T1H.squeeze(1)
    hidden = 0.5 * hidden * (1 + torch.erf(hidden / math.sqrt(2)))
    expected = torch.einsum("bth,thd->btd", hidden, ffn.weight2_THD) + ffn.bias2_T1D.squeeze(1)
    torch.testing.assert_close(ffn(x_BTD.transpose(0, 1)).transpose(0, 1), expected, rtol=0, atol=1e-12)


def test_one_token_is_an_ordinary_ffn(ffn):
    x_TBD = torch.randn(T, B, D, dtype=torch.float64)
    hidden = F.gelu(F.linear(x_TBD[2], ffn.weight1_TDH[2].T, ffn.bias1_T1H[2, 0]))
    expected = F.linear(hidden, ffn.weight2_THD[2].T, ffn.bias2_T1D[2, 0])
    torch.testing.assert_close(ffn(x_TBD)[2], expected, rtol=0, atol=1e-12)


def test_parameter_count_formula():
    count = sum(p.numel() for p in PerTokenFFN(T, D, K).parameters())
    assert count == T * (2 * K * D**2 + K * D + D)


def test_initial_scale_is_that_of_one_matrix_not_of_a_convolution():
    torch.manual_seed(0)
    weight = xavier_normal_slices_(torch.empty(16, 48, 96))
    expected = math.sqrt(2 / (48 + 96))
    torch.testing.assert_close(weight.std((1, 2)), torch.full((16,), expected), rtol=0.05, atol=0)
    ffn = PerTokenFFN(4, 8, 2)
    assert not ffn.bias1_T1H.any() and not ffn.bias2_T1D.any()


def test_dropout_only_while_training():
    torch.manual_seed(0)
    ffn = PerTokenFFN(T, D, K, dropout=0.5)
    x_TBD = torch.randn(T, B, D)
    assert not torch.equal(ffn(x_TBD), ffn(x_TBD))
    ffn.eval()
    assert torch.equal(ffn(x_TBD), ffn(x_TBD))
