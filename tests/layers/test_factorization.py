"""The pair sum against the double loop over pairs."""

import itertools

import torch
from hypothesis import given
from hypothesis import strategies as st

from fullrank.layers.factorization import pair_products


@given(fields=st.integers(1, 7), width=st.integers(1, 4), split=st.integers(0, 7), seed=st.integers(0, 99))
def test_the_sum_over_all_pairs(fields, width, split, seed):
    x_BFD = torch.randn(3, fields, width, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    pairs = itertools.combinations(range(fields), 2)
    expected = sum((x_BFD[:, i] * x_BFD[:, j] for i, j in pairs), start=torch.zeros(3, width, dtype=torch.float64))
    torch.testing.assert_close(pair_products(x_BFD.sum(1), x_BFD.square().sum(1)), expected)
    first, last = x_BFD[:, :split], x_BFD[:, split:]  # sums made in parts, as a request and its candidates are
    in_parts = pair_products(first.sum(1) + last.sum(1), first.square().sum(1) + last.square().sum(1))
    torch.testing.assert_close(in_parts, expected)
