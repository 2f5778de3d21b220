"""Learned mixers: what they contain, what they reach, and what they raise the rank to."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import layer_norm

from fullrank.layers.mixing import mix
from fullrank.layers.token_mixers import FullMixing, KroneckerMixing, SegmentMixing
from fullrank.rankers.rankelastor_block import RankElastorBlock

T, D = 4, 8


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def permutation(tokens=T, width=D):
    """RankMixer's map of all numbers of a row, as a matrix."""
    unit = torch.eye(tokens * width, dtype=torch.float64).view(-1, tokens, width)
    return mix(unit).flatten(1).T


def test_e1_full_mixing_contains_rankmixers():
    x = drawn(5, T, D)
    paper = RankElastorBlock(T, D, form="paper", mixer="full", ffn="glu", expansion=2).double()
    weight = paper.mixing.linear.weight
    same, moved = torch.eye(T * D, dtype=torch.float64), permutation()
    for w, expected in ((0 * same, x), (moved - same, mix(x)), (moved, x + mix(x))):
        with torch.no_grad():
            weight.copy_(w)
        torch.testing.assert_close(paper.mix(x), layer_norm(expected, (D,)), rtol=0, atol=1e-12)


def test_e1_full_mixing_of_the_repository_begins_at_x():
    block = RankElastorBlock(T, D, form="repository", mixer="full", ffn="glu", expansion=2, units=(D,)).double()
    x = drawn(5, T, D)
    with torch.no_grad():
        block.mixing.linear.weight.zero_()
    block.norm = torch.nn.Identity()
    assert torch.equal(block.mix(x), x)


def test_e1_kronecker_mixing_begins_as_rankmixers_permutation():
    x = drawn(5, T, D).float()
    assert torch.equal(KroneckerMixing(T, D)(x), mix(x))


def test_kronecker_mixing_is_its_product():
    mixing = KroneckerMixing(T, D).double()
    with torch.no_grad():
        mixing.parts_PP.copy_(drawn(T * T, T * T, seed=1))
        mixing.inside_dd.copy_(drawn(D // T, D // T, seed=2))
    x = drawn(3, T, D)
    whole = torch.kron(mixing.parts_PP, mixing.inside_dd.T.contiguous())
    torch.testing.assert_close(mixing(x).flatten(1), x.flatten(1) @ whole.T, rtol=0, atol=1e-12)


def reaches(mixing, x):
    """`[T, T]`: whether token j changes when token i does."""
    before = mixing(x)
    found = torch.zeros(T, T, dtype=torch.bool)
    for i in range(T):
        changed = x.clone()
        changed[:, i] += 1
        found[i] = (mixing(changed) - before).abs().amax((0, 2)) > 1e-9
    return found


def test_who_meets_whom():
    x = drawn(2, T, D)
    assert reaches(FullMixing(T, D, bias=True).double(), x).all()
    assert reaches(KroneckerMixing(T, D).double(), x).all()
    assert torch.equal(reaches(SegmentMixing(T, D, T).double(), x), torch.eye(T, dtype=torch.bool))
    halves = torch.block_diag(torch.ones(2, 2), torch.ones(2, 2)).bool()
    assert torch.equal(reaches(SegmentMixing(T, D, 2).double(), x), halves)


@pytest.mark.parametrize(("tokens", "width", "of_mix"), [(16, 64, 4), (4, 8, 2), (4, 32, 4)])
def test_e5_a_rank_of_one_is_raised_to_the_most_there_is(tokens, width, of_mix):
    x = drawn(1, tokens, 1) * drawn(1, 1, width, seed=1)
    full = FullMixing(tokens, width, bias=False).double()
    assert torch.linalg.matrix_rank(full(x)).item() == min(tokens, width)
    assert torch.linalg.matrix_rank(mix(x)).item() == of_mix == min(tokens, width // tokens)
    assert torch.linalg.matrix_rank(mix(x) + x).item() <= of_mix + 1


def test_what_is_refused():
    with pytest.raises(ValueError, match="16 x 768 = 12288"):
        FullMixing(16, 768, bias=False)
    with pytest.raises(ValueError, match="multiple of the 4 tokens, got 10"):
        KroneckerMixing(4, 10)
    with pytest.raises(ValueError, match="divide the 32 numbers of a row, got 5"):
        SegmentMixing(4, 8, 5)
