"""The bf16 bodies of a RankMixer block beside torch in float64, which computes the same from the same weights."""

from __future__ import annotations

import copy

import pytest
import torch

from fullrank.kernels.bodies import bodies
from fullrank.kernels.mixed_norm import mixed_norm, runs_mixed_norm
from fullrank.kernels.token_ffn import runs_on_tiles, token_ffn
from fullrank.rankers.rankmixer_block import RankMixerBlock

has_tiles = torch.cpu.get_capabilities().get("amx_bf16", False)
needs_tiles = pytest.mark.skipif(not has_tiles, reason="this processor has no tiles of bf16")


def block_and_rows(tokens, rows, width, hidden, *, batch_major=False):
    torch.manual_seed(tokens * rows)
    block = RankMixerBlock(tokens, width, hidden // width)
    with torch.no_grad():
        for parameter in block.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    x_BTD = torch.randn(rows, tokens, width).bfloat16()
    x_TBD = x_BTD.transpose(0, 1)
    return block, x_TBD if batch_major else x_TBD.contiguous(), torch.randn(tokens, rows, width)


def learned(block, x_TBD, weight_TBD):
    """Output, gradient of x and of every parameter, under autocast if x is bf16."""
    x_TBD = x_TBD.detach().requires_grad_()
    block.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=x_TBD.dtype == torch.bfloat16):
        y_TBD = block(x_TBD)
    (y_TBD.to(weight_TBD.dtype) * weight_TBD).sum().backward()
    gradients = {name: parameter.grad for name, parameter in block.named_parameters()}
    return {"output": y_TBD.detach(), "x": x_TBD.grad, **gradients}


def away(found, expected):
    return float((found.double() - expected.double()).norm() / expected.double().norm())


SIZES = [(2, 32, 32, 32), (4, 70, 64, 128), (2, 300, 32, 64), (1, 33, 64, 64), (4, 70, 32, 64), (16, 33, 128, 256)]


@needs_tiles
@pytest.mark.parametrize("batch_major", [False, True])
@pytest.mark.parametrize(("tokens", "rows", "width", "hidden"), SIZES)
def test_output_and_all_gradients(tokens, rows, width, hidden, batch_major):
    block, x_TBD, weight_TBD = block_and_rows(tokens, rows, width, hidden, batch_major=batch_major)
    with bodies("compiled"):
        assert runs_on_tiles(x_TBD, block.ffn.weight1_TDH)
        found = learned(block, x_TBD, weight_TBD)
    expected = learned(copy.deepcopy(block).double(), x_TBD.double(), weight_TBD.double())
    assert found.keys() == expected.keys()
    errors = {name: away(found[name], expected[name]) for name in expected}
    assert max(errors.values()) < 8e-3, errors  # bf16 rounds by up to 4e-3
    with bodies("reference"):
        library = learned(block, x_TBD, weight_TBD)
    assert sum(errors.values()) < sum(away(library[name], expected[name]) for name in expected)


@needs_tiles
def test_same_bits_at_any_number_of_threads():
    block, x_TBD, weight_TBD = block_and_rows(4, 200, 64, 64)
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            with bodies("compiled"):
                found.append(learned(block, x_TBD, weight_TBD))
    finally:
        torch.set_num_threads(before)
    for name, tensor in found[0].items():
        assert torch.equal(tensor, found[1][name]), name
        assert torch.equal(tensor, found[2][name]), name


@needs_tiles
def test_rows_do_not_see_each_other_and_nothing_is_kept_without_gradients():
    block, x_TBD, _ = block_and_rows(2, 96, 64, 64)
    norm, ffn = block.ffn_norm.norm, block.ffn
    weights = (ffn.weight1_TDH, ffn.bias1_T1H, ffn.weight2_THD, ffn.bias2_T1D)

    def both(rows_TBD):
        s_TBD = mixed_norm(rows_TBD, norm.weight, norm.bias, norm.eps)
        return token_ffn(s_TBD, weights, norm.weight, norm.bias, norm.eps)

    with bodies("compiled"):
        assert runs_on_tiles(x_TBD, ffn.weight1_TDH)
        whole_TBD = both(x_TBD)
        with torch.no_grad():
            assert torch.equal(both(x_TBD), whole_TBD)
            assert torch.equal(both(x_TBD[:, 40:77]), whole_TBD[:, 40:77])
    assert whole_TBD.requires_grad


@needs_tiles
def test_weights_that_are_rounded_already_give_the_same_bits():
    block, x_TBD, _ = block_and_rows(4, 96, 64, 64)
    norm, ffn = block.ffn_norm.norm, block.ffn
    found = []
    for dtype in (torch.float32, torch.bfloat16):
        weights = (ffn.weight1_TDH.to(dtype), ffn.bias1_T1H, ffn.weight2_THD.to(dtype), ffn.bias2_T1D)
        with bodies("compiled"), torch.no_grad():
            assert runs_on_tiles(x_TBD, weights[0])
            found.append(token_ffn(x_TBD, weights, norm.weight, norm.bias, norm.eps))
    assert torch.equal(*found)


@needs_tiles
def test_a_gradient_that_is_the_same_for_all_tokens_is_read_where_it_lies():
    block, x_TBD, _ = block_and_rows(2, 64, 64, 64)
    weight_BD = torch.randn(64, 64).bfloat16()
    results = []
    for gradient_TBD in (weight_BD.expand(2, 64, 64), weight_BD.expand(2, 64, 64).contiguous()):
        x = x_TBD.detach().requires_grad_()
        with bodies("compiled"), torch.autocast("cpu", torch.bfloat16):
            block(x).backward(gradient_TBD)
        results.append(x.grad)
    assert torch.equal(*results)


@needs_tiles
def test_nan_stays_in_its_row():
    block, x_TBD, _ = block_and_rows(2, 64, 64, 64)
    x_TBD[0, 5, 3] = float("nan")
    with bodies("compiled"), torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        bad_B = block(x_TBD).isnan().any(-1).any(0)
    assert bad_B.nonzero().flatten().tolist() == [5]


@needs_tiles
def test_gelu_and_its_slope():
    from fullrank.kernels.cpu.compiled import compiled
    from fullrank.kernels.cpu.gelu import gelu, gelu_slope
    from fullrank.kernels.cpu.vectors import load, store

    @compiled
    def both(x, y, slope):
        for i in range(0, len(x), 16):
            store(y, i, gelu(load(x, i)))
            store(slope, i, gelu_slope(load(x, i)))

    x = torch.linspace(-12, 12, 4096, requires_grad=True)
    y, slope = torch.empty(4096), torch.empty(4096)
    both(x.detach().numpy(), y.numpy(), slope.numpy())
    expected = torch.nn.functional.gelu(x.double())
    (expected_slope,) = torch.autograd.grad(expected.sum(), x)
    assert ((y - expected).abs() <= 1.5e-5 * x.abs() + 1e-6).all()
    assert (slope - expected_slope).abs().max() < 2e-4


def test_what_is_left_to_torch():
    block, x_TBD, _ = block_and_rows(2, 32, 64, 64)
    weight_TDH = block.ffn.weight1_TDH
    assert not runs_on_tiles(x_TBD, weight_TDH)  # little work: no waiting for a compiler
    with bodies("compiled"):
        assert runs_on_tiles(x_TBD, weight_TDH) == has_tiles
        assert not runs_on_tiles(x_TBD.float(), weight_TDH)
        assert not runs_on_tiles(x_TBD, weight_TDH.bfloat16())  # a gradient is asked for
        assert not runs_on_tiles(x_TBD, weight_TDH[:, :, :48])
        assert not runs_mixed_norm(torch.zeros(8, 32, 32).bfloat16())  # parts of 4
    with bodies("reference"):
        assert not runs_on_tiles(x_TBD, weight_TDH)


@pytest.mark.parametrize(("placement", "dropout"), [("pre", 0.0), ("post", 0.5)])
def test_networks_with_pre_norm_or_dropout_are_computed_by_torch(placement, dropout):
    torch.manual_seed(0)
    block = RankMixerBlock(2, 32, 1, placement, dropout)
    x_TBD = torch.randn(2, 32, 32)
    found = []
    for which in ("compiled", "reference"):
        torch.manual_seed(1)
        with bodies(which), torch.autocast("cpu", torch.bfloat16):
            found.append(block.feed(x_TBD))
    assert torch.equal(*found)
