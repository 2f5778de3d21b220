"""The four forms of a point's rank, by hand."""

from __future__ import annotations

import pytest
import torch

from fullrank.diagnostics import effective_rank
from fullrank.diagnostics.points import point_ranks


def by_form(x, **options):
    return {found.form: found for found in point_ranks({"p": x}, **options)}


def test_forms_are_those_of_their_matrices():
    x = torch.randn(20, 4, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    away = x - x.mean(0)
    found = by_form(x)
    assert found["sample"].mean == pytest.approx(float(effective_rank(x).mean()))
    assert found["centred"].mean == pytest.approx(float(effective_rank(away).mean()))
    of_tokens = [float(effective_rank(away[:, token])) for token in range(4)]
    assert found["token"].mean == pytest.approx(sum(of_tokens) / 4)
    assert (found["token"].low, found["token"].high) == pytest.approx((min(of_tokens), max(of_tokens)))
    assert found["flat"].mean == pytest.approx(float(effective_rank(away.reshape(20, 24))))
    assert {form: one.most for form, one in found.items()} == {"sample": 4, "centred": 4, "token": 6, "flat": 19}
    assert {form: one.count for form, one in found.items()} == {"sample": 20, "centred": 20, "token": 4, "flat": 1}
    assert found["token"].share == found["token"].mean / 6


def test_a_constant_has_sample_rank_alone():
    constant = torch.randn(4, 6, generator=torch.Generator().manual_seed(0)).expand(10, 4, 6)
    found = by_form(constant)
    assert found["sample"].mean > 3
    assert found["centred"].mean == found["token"].mean == found["flat"].mean == 0


def test_rows_of_one_vector_have_the_flat_form_alone():
    found = point_ranks({"pooled": torch.randn(10, 3), "logit": torch.randn(10), "none": torch.zeros(10, 0, 3)})
    assert [(one.point, one.form, one.most) for one in found] == [("pooled", "flat", 3)]


def test_one_row_can_not_be_centred():
    with pytest.raises(ValueError, match="at least 2 rows to centre point 'p'"):
        point_ranks({"p": torch.randn(1, 3, 4)})
    assert point_ranks({"p": torch.randn(1, 3, 4)}, forms=("sample",))[0].count == 1
