"""Token mixing: golden values, the permutation it is, and what it does to rank."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fullrank.layers.mixing import check_mixable, mix, mix_token_major, unmix


def fill(shape, shift, fan):
    """Deterministic numbers: sin(0.37 i² + shift) / sqrt(fan) over the flat index i."""
    i = torch.arange(torch.Size(shape).numel(), dtype=torch.float64)
    return (torch.sin(0.37 * i**2 + shift) / fan**0.5).reshape(shape)


def permutation(tokens, width):
    """The T·D × T·D matrix of mixing, read off the identity."""
    size = tokens * width
    return mix(torch.eye(size, dtype=torch.float64).reshape(size, tokens, width)).reshape(size, size).T


def commutation(tokens):
    """Row a·T + b has its 1 at b·T + a."""
    K = torch.zeros(tokens * tokens, tokens * tokens, dtype=torch.float64)
    for a in range(tokens):
        for b in range(tokens):
            K[a * tokens + b, b * tokens + a] = 1
    return K


def test_r1_golden_square_and_fewer_heads():
    x = torch.tensor([[[1, 2, 3, 4], [5, 6, 7, 8]]])
    assert mix(x).tolist() == [[[1, 2, 5, 6], [3, 4, 7, 8]]]
    x = torch.arange(1, 13).reshape(1, 3, 4)
    assert mix(x, heads=2).tolist() == [[[1, 2, 5, 6, 9, 10], [3, 4, 7, 8, 11, 12]]]


@pytest.mark.parametrize(("tokens", "width"), [(2, 4), (3, 9), (4, 8), (5, 5), (4, 16)])
def test_r2_permutation_is_commutation_kron_identity(tokens, width):
    P = permutation(tokens, width)
    assert torch.equal(P, torch.kron(commutation(tokens), torch.eye(width // tokens, dtype=torch.float64)))
    assert torch.equal(P, P.T)
    assert int(P.diagonal().sum()) == width
    assert torch.equal(P.sum(0), torch.ones(tokens * width, dtype=torch.float64))


@given(tokens=st.integers(1, 6), head=st.integers(1, 5), rows=st.integers(0, 3))
def test_r2_involution_and_norm(tokens, head, rows):
    x = fill((rows, tokens, tokens * head), 0.1, 1)
    assert torch.equal(mix(mix(x)), x)
    torch.testing.assert_close(mix(x).square().sum(), x.square().sum(), rtol=1e-12, atol=0)


def test_r2_width_equal_to_tokens_is_a_transpose():
    x = fill((3, 5, 5), 0.2, 1)
    assert torch.equal(mix(x), x.transpose(1, 2))


@given(tokens=st.integers(1, 5), heads=st.integers(1, 5), head=st.integers(1, 4))
def test_unmix_is_the_inverse_for_any_number_of_heads(tokens, heads, head):
    x = fill((2, tokens, heads * head), 0.3, 1)
    assert mix(x, heads).shape == (2, heads, tokens * head)
    assert torch.equal(unmix(mix(x, heads), tokens), x)


@pytest.mark.parametrize(("tokens", "width", "rank"), [(16, 64, 4), (16, 768, 16), (24, 48, 2)])
def test_r3_rank_one_becomes_min_of_tokens_and_head_width(tokens, width, rank):
    x = torch.outer(fill((tokens,), 0.5, 1), fill((width,), 0.7, 1))
    assert torch.linalg.matrix_rank(mix(x[None])[0]) == rank == min(tokens, width // tokens)


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_r3_rank_grows_at_most_by_that_factor(rank):
    tokens, width = 8, 16
    x = fill((tokens, rank), 0.5, 1) @ fill((rank, width), 0.7, 1)
    mixed = torch.linalg.matrix_rank(mix(x[None])[0])
    assert rank <= mixed <= min(rank * min(tokens, width // tokens), tokens)


def test_r6_golden_tensors_of_x_and_mix():
    x = fill((2, 4, 8), 0.3, 1)
    goldens = [
        (x, [0.29552, 0.620986, 0.978197, -0.46922], [0.261634, 0.868624, 0.532433, -0.990843]),
        (mix(x), [0.29552, 0.620986, -0.91388, -0.911092], [-0.996564, 0.909889, 0.532433, -0.990843]),
    ]
    for tensor, first, last in goldens:
        assert tensor.sum().item() == pytest.approx(10.142701, abs=5e-7)
        assert tensor.square().sum().item() == pytest.approx(31.530897, abs=5e-7)
        assert tensor[0, 0, :4].tolist() == pytest.approx(first, abs=5e-7)
        assert tensor[1, -1, -4:].tolist() == pytest.approx(last, abs=5e-7)


def test_token_major_form_is_the_same_map():
    x = fill((7, 4, 12), 0.3, 1)
    assert torch.equal(mix_token_major(x.transpose(0, 1)).transpose(0, 1), mix(x))


@pytest.mark.parametrize(("tokens", "width", "nearest"), [(6, 64, 66), (6, 63, 66), (6, 62, 60), (8, 3, 8), (5, 0, 5)])
def test_a_width_that_cannot_be_mixed_names_the_nearest(tokens, width, nearest):
    with pytest.raises(ValueError, match=rf"multiple of {tokens}, got {width}\. The nearest is {nearest}\."):
        check_mixable(tokens, width)


def test_widths_that_can_be_mixed_pass():
    for tokens, width in [(1, 1), (4, 4), (8, 64)]:
        check_mixable(tokens, width)
