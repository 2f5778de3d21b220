"""The sparse mixture of a token's networks: golden numbers, who learns from what, and the share of open gates."""

from __future__ import annotations

import pytest
import torch
from test_rankmixer_block_bf16 import away

from fullrank.layers.per_token_moe import PerTokenMoE
from fullrank.rankers import RankMixer
from fullrank.rankers.rankmixer_block import SparseRankMixerBlock

T, D, H, E = 4, 8, 16, 3


def fill(shape, shift, fan):
    i = torch.arange(torch.Size(shape).numel(), dtype=torch.float64)
    return (torch.sin(0.37 * i**2 + shift) / fan**0.5).reshape(shape)


def golden():
    moe = PerTokenMoE(T, D, 2, E, 0.5).double()
    with torch.no_grad():
        for e in range(E):
            moe.weight1_TEDH[:, e] = fill((T, D, H), 0.1 + e, 8)
            moe.bias1_TE1H[:, e, 0] = fill((T, H), 0.2 + e, 10)
            moe.weight2_TEHD[:, e] = fill((T, H, D), 0.4 + e, 16)
            moe.bias2_TE1D[:, e, 0] = fill((T, D), 0.5 + e, 10)
        moe.infer_router.weight_TDE.copy_(fill((T, D, E), 0.6, 8))
        moe.infer_router.bias_T1E.copy_(fill((T, E), 0.7, 10).unsqueeze(1))
    return moe


@pytest.mark.parametrize("training", [False, True])
def test_appendix_a_mixture(training):
    moe, x_BTD = golden().train(training), fill((2, T, D), 0.3, 1)
    with torch.no_grad():
        y_TBD, gates_TBE = moe(x_BTD.transpose(0, 1))
    y_BTD = y_TBD.transpose(0, 1)
    assert float((gates_TBE > 0).double().mean()) == 13 / 24
    assert float(gates_TBE.sum()) == pytest.approx(5.885361, abs=1e-6)
    assert float(y_BTD.sum()) == pytest.approx(5.426560, abs=1e-6)
    assert float(y_BTD.square().sum()) == pytest.approx(4.703226, abs=1e-6)
    assert y_BTD[0, 0, :4].tolist() == pytest.approx([0.502417, 0.363101, 0.447929, -0.314575], abs=1e-6)
    assert y_BTD[1, -1, -4:].tolist() == pytest.approx([-0.047345, 0.030604, 0.208885, 0.103194], abs=1e-6)


def test_half_of_the_rows_by_either_router():
    moe, x_TBD = golden(), fill((T, 6, D), 0.3, 1)
    by_infer_B = torch.tensor([True, False, True, False, False, True])
    moe.requires_grad_(False)
    mixed_TBD, gates_TBE = moe(x_TBD, by_infer_B)
    whole_TBD, same_TBE = moe(x_TBD)
    assert torch.equal(gates_TBE, same_TBE)
    assert away(mixed_TBD[:, by_infer_B], whole_TBD[:, by_infer_B]) < 1e-12
    with torch.no_grad():
        moe.infer_router.load_state_dict(moe.train_router.state_dict())
    other_TBD, _ = moe(x_TBD)
    assert away(mixed_TBD[:, ~by_infer_B], other_TBD[:, ~by_infer_B]) < 1e-12


def norm_of(parameters):
    return sum(0.0 if p.grad is None else float(p.grad.norm()) for p in parameters)


def test_r8_the_task_teaches_both_routers_and_the_penalty_the_one_that_serves():
    torch.manual_seed(0)
    block = SparseRankMixerBlock(T, D, 2, "post", E, 0.5)
    x_TBD, by_infer_B = torch.randn(T, 32, D), torch.arange(32) % 2 == 0
    y_TBD, gates_TBE = block.feed(x_TBD, by_infer_B)
    (y_TBD * torch.randn_like(y_TBD)).sum().backward(retain_graph=True)
    assert norm_of(block.ffn.infer_router.parameters()) > 0
    assert norm_of(block.ffn.train_router.parameters()) > 0
    block.zero_grad()
    block.ffn.penalty(gates_TBE).backward()
    assert norm_of(block.ffn.infer_router.parameters()) > 0
    assert norm_of(block.ffn.train_router.parameters()) == 0
    with torch.no_grad():
        for parameter in block.ffn.train_router.parameters():
            parameter.fill_(float("nan"))
        assert block.eval().feed(x_TBD)[0].isfinite().all()


def test_r9_the_share_of_open_gates_follows_its_target():
    """A toy task: four kinds of rows, each another linear map; the target is reached within 2 points, twice."""
    torch.manual_seed(0)
    moe = PerTokenMoE(2, 8, 1, 4, 0.5)
    maps = torch.randn(4, 8, 8) / 8**0.5
    optimizer = torch.optim.Adam(moe.parameters(), lr=5e-3)

    def shares(steps):
        found = []
        for _ in range(steps):
            kind_B = torch.randint(0, 4, (256,))
            x_BD = torch.randn(256, 8) + 2 * torch.nn.functional.one_hot(kind_B, 8)
            wanted_BD = torch.einsum("bd,bdo->bo", x_BD, maps[kind_B])
            y_TBD, gates_TBE = moe(x_BD.expand(2, -1, -1), torch.rand(256) < 0.5)
            loss = (y_TBD - wanted_BD).square().mean() + moe.penalty(gates_TBE)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            found.append(float((gates_TBE > 0).float().mean()))
        return sum(found[-400:]) / 400

    assert shares(1200) == pytest.approx(0.5, abs=0.02)
    moe.active = 0.3
    assert shares(1200) == pytest.approx(0.3, abs=0.02)


def test_a_token_with_all_gates_closed_goes_by():
    block = SparseRankMixerBlock(T, D, 2, "pre", E, 0.5).eval()
    with torch.no_grad():
        block.ffn.infer_router.bias_T1E.fill_(-1e6)
        x_TBD = torch.randn(T, 5, D)
        assert torch.equal(block.feed(x_TBD)[0], x_TBD)


def test_the_weight_of_the_penalty_is_saved_and_stays_as_it_is_without_training():
    moe = golden()
    moe.penalty(torch.ones(T, 2, E, dtype=torch.float64))
    assert float(moe.state_dict()["weight_of_penalty"]) == pytest.approx(1.2e-4)
    moe.penalty(torch.zeros(T, 2, E, dtype=torch.float64))
    assert float(moe.weight_of_penalty) == pytest.approx(1e-4)
    moe.eval().penalty(torch.ones(T, 2, E, dtype=torch.float64))
    assert float(moe.weight_of_penalty) == pytest.approx(1e-4)


def test_what_is_refused():
    with pytest.raises(ValueError, match="at least 2 experts"):
        PerTokenMoE(2, 8, 1, 1, 0.5)
    with pytest.raises(ValueError, match="at least 1 expert"):
        RankMixer.Config(experts=0)
