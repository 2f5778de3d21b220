"""The float32 bodies of a RankMixer block beside torch in float64, which computes the same from the same weights."""

from __future__ import annotations

import copy

import pytest
import torch
from test_rankmixer_block_bf16 import away, block_and_rows, learned

from fullrank.kernels.bodies import bodies
from fullrank.kernels.mixed_norm import runs_mixed_norm
from fullrank.kernels.token_major import runs_between_products


@pytest.mark.parametrize("batch_major", [False, True])
@pytest.mark.parametrize(
    ("tokens", "rows", "width", "hidden"), [(2, 1, 32, 32), (4, 70, 64, 128), (4, 33, 32, 48), (16, 17, 128, 256)]
)
def test_output_and_all_gradients(tokens, rows, width, hidden, batch_major):
    block, x_TBD, weight_TBD = block_and_rows(tokens, rows, width, hidden, batch_major=batch_major)
    x_TBD = x_TBD.float()
    with bodies("compiled"):
        assert runs_mixed_norm(x_TBD) and runs_between_products(x_TBD, block.ffn.weight1_TDH)
        found = learned(block, x_TBD, weight_TBD)
    expected = learned(copy.deepcopy(block).double(), x_TBD.double(), weight_TBD.double())
    assert found.keys() == expected.keys()
    errors = {name: away(found[name], expected[name]) for name in expected}
    assert max(errors.values()) < 3e-6, errors
    with bodies("compiled"), torch.no_grad():
        assert torch.equal(block(x_TBD), found["output"])


def test_same_bits_at_any_number_of_threads():
    block, x_TBD, weight_TBD = block_and_rows(4, 200, 64, 64)
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            with bodies("compiled"):
                found.append(block.mix(x_TBD.float()).detach())
    finally:
        torch.set_num_threads(before)
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])
    del weight_TBD


def test_nan_stays_in_its_row():
    block, x_TBD, _ = block_and_rows(2, 64, 64, 64)
    x_TBD = x_TBD.float()
    x_TBD[0, 5, 3] = float("nan")
    with bodies("compiled"), torch.no_grad():
        bad_B = block(x_TBD).isnan().any(-1).any(0)
    assert bad_B.nonzero().flatten().tolist() == [5]


def test_gelu_and_its_slope_of_float32():
    from fullrank.kernels.cpu.compiled import compiled
    from fullrank.kernels.cpu.gelu import exact_gelu, exact_gelu_slope
    from fullrank.kernels.cpu.vectors import load, store

    @compiled
    def both(x, y, slope):
        for i in range(0, len(x), 16):
            store(y, i, exact_gelu(load(x, i)))
            store(slope, i, exact_gelu_slope(load(x, i)))

    x = torch.cat([torch.linspace(-15, 15, 8176), torch.tensor([0.0, -0.0, 1e-30, -1e-30, 1e20, 3e38, float("inf")])])
    x = torch.cat([x, torch.tensor([float("nan")]), torch.zeros(8)]).requires_grad_()
    y, slope = torch.empty(len(x)), torch.empty(len(x))
    both(x.detach().numpy(), y.numpy(), slope.numpy())
    expected = torch.nn.functional.gelu(x.double())
    (expected_slope,) = torch.autograd.grad(expected.sum(), x)
    assert y[8183].isnan() and slope[8183].isnan()
    numbers = x.isfinite()
    assert ((y - expected)[numbers].abs() <= 2.5e-7 * x[numbers].abs()).all()  # torch: 2.4e-7
    assert (slope - expected_slope)[numbers].abs().max() < 1e-6
    assert y[8182] == float("inf")


def test_under_autocast_torch_computes_what_lies_between_products():
    block, x_TBD, _ = block_and_rows(2, 32, 64, 64)
    weight_TDH = block.ffn.weight1_TDH
    with bodies("compiled"):
        assert runs_between_products(x_TBD.float(), weight_TDH)
        assert not runs_between_products(x_TBD.float(), weight_TDH[:, :, :24])
        with torch.autocast("cpu", torch.bfloat16):
            assert not runs_between_products(x_TBD.float(), weight_TDH)
    assert not runs_between_products(x_TBD.float(), weight_TDH)  # little work: no waiting for a compiler
    with bodies("reference"):
        assert not runs_between_products(x_TBD.float(), weight_TDH)
