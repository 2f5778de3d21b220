"""Ranks against the golden values of known spectra, against torch's SVD, and their laws."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fullrank.diagnostics import effective_rank, information_abundance, rank_of, singular_values

GOLDEN = [  # singular values: entropy, stable, abundance
    ((1, 0.5, 0.25, 0.125), (3.117142, 1.328125, 1.875)),
    ((1, 0.1, 0.1, 0.1), (2.211631, 1.03, 1.3)),
    ((1, 1, 1, 1), (4, 4, 4)),
    ((1, 0, 0, 0), (1, 1, 1)),
]


def rotated(values, rows, columns, seed=0):
    """A matrix with these singular values."""
    draw = torch.Generator().manual_seed(seed)
    left, _ = torch.linalg.qr(torch.randn(rows, rows, generator=draw, dtype=torch.float64))
    right, _ = torch.linalg.qr(torch.randn(columns, columns, generator=draw, dtype=torch.float64))
    k = len(values)
    return left[:, :k] * torch.tensor(values, dtype=torch.float64) @ right[:k]


@pytest.mark.parametrize(("values", "expected"), GOLDEN)
@pytest.mark.parametrize(("rows", "columns"), [(4, 4), (4, 9), (30, 4)])
def test_section_8_goldens(values, expected, rows, columns):
    x = rotated(values, rows, columns)
    for kind, rank in zip(("entropy", "stable", "abundance"), expected, strict=True):
        assert float(effective_rank(x, kind)) == pytest.approx(rank, abs=1e-6)
        assert float(rank_of(torch.tensor(values, dtype=torch.float64), kind)) == pytest.approx(rank, abs=1e-6)
    assert float(information_abundance(x)) == pytest.approx(expected[2], abs=1e-6)
    share = torch.tensor(values, dtype=torch.float64) / sum(values) + 1e-7
    assert float(effective_rank(x, "rankme")) == pytest.approx(float(torch.exp(-(share * share.log()).sum())), abs=1e-6)


def test_section_8_white_noise():
    """Gaussian 16 x 64, the mean of 64: entropy 15.43, stable 7.8."""
    x = torch.randn(64, 16, 64, generator=torch.Generator().manual_seed(0))
    assert float(effective_rank(x).mean()) == pytest.approx(15.43, abs=0.02)
    assert float(effective_rank(x, "stable").mean()) == pytest.approx(7.8, abs=0.2)


def test_section_8_a_constant_with_a_little_noise_has_full_rank_until_it_is_centred():
    draw = torch.Generator().manual_seed(0)
    constant, noise = torch.randn(16, 64, generator=draw), 0.01 * torch.randn(256, 16, 64, generator=draw)
    x = constant + noise
    assert float(effective_rank(x).mean()) > 15
    centred = x - x.mean(0)
    assert float(centred.square().sum() / x.square().sum()) < 0.011


scales = st.sampled_from([1e-30, 1.0, 1e30])
matrices = st.tuples(st.integers(1, 12), st.integers(1, 12), st.integers(0, 10_000), scales)


@given(matrices)
def test_values_are_those_of_an_svd_and_ranks_keep_their_order(made):
    rows, columns, seed, scale = made
    x = torch.randn(2, rows, columns, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * scale
    values = singular_values(x)
    least = 1e-7 * scale * math.sqrt(rows * columns)
    torch.testing.assert_close(values, torch.linalg.svdvals(x), rtol=1e-6, atol=least)
    entropy, stable, abundance = (effective_rank(x, kind) for kind in ("entropy", "stable", "abundance"))
    most = min(rows, columns) + 1e-9
    assert ((stable <= abundance + 1e-9) & (abundance <= most) & (stable >= 1 - 1e-9)).all()
    assert ((entropy >= 1 - 1e-9) & (entropy <= most)).all()
    torch.testing.assert_close(effective_rank(3 * x.mT), entropy)


def test_zeros_use_no_direction():
    for kind in ("entropy", "stable", "abundance", "rankme"):
        assert float(effective_rank(torch.zeros(3, 4), kind)) == 0


def test_what_is_refused():
    with pytest.raises(ValueError, match="rows, columns"):
        effective_rank(torch.ones(3))
    with pytest.raises(ValueError, match=r"at least one of each, got \(0, 4\)"):
        effective_rank(torch.ones(0, 4))
    with pytest.raises(ValueError, match="1 that are not, of 6"):
        effective_rank(torch.tensor([[1.0, 2, 3], [4, float("nan"), 6]]))
    with pytest.raises(ValueError, match="Did you mean 'entropy'"):
        effective_rank(torch.ones(2, 2), "entropie")  # pyright: ignore[reportArgumentType]  # it is refused
    with pytest.raises(ValueError, match=r"One vector is x.unsqueeze\(0\)"):
        effective_rank(torch.ones(3))
    with pytest.raises(TypeError, match=r"got numpy.ndarray: try torch.as_tensor\(x\)"):
        effective_rank(np.ones((2, 2)))  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match=r"real numbers, got torch\.complex64"):
        effective_rank(1j * torch.eye(2))
    with pytest.raises(ValueError, match="none below 0"):
        rank_of(torch.tensor([1.0, -1.0]))


@pytest.mark.parametrize("scale", [1e308, 1e-308])
def test_ranks_do_not_go_by_scale(scale):
    for kind in ("entropy", "stable", "abundance"):
        assert float(effective_rank(torch.eye(3).double() * scale, kind)) == pytest.approx(3)
