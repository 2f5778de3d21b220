"""The four forms of a point's rank, by hand."""

from __future__ import annotations

import pytest
import torch

from fullrank.diagnostics import effective_rank
from fullrank.diagnostics.points import judged, point_ranks


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
    assert found["token"].share == pytest.approx((found["token"].mean - 1) / 5)


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


def test_what_is_left_of_a_constant_in_float32_is_no_direction():
    constant = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    noise = torch.randn(512, 4, 6, generator=torch.Generator().manual_seed(1))
    found = by_form(constant * (1 + 5e-8 * noise))
    assert found["sample"].mean > 3
    assert max(found[form].mean for form in ("centred", "token", "flat")) < 1.01
    assert by_form(constant * (1 + 1e-2 * noise))["flat"].mean > 15  # and what is more than rounding counts


def test_a_point_is_judged_by_its_tokens_or_by_itself():
    found = point_ranks({"tokens": torch.randn(30, 4, 6), "pooled": torch.randn(30, 6)})
    assert [(one.point, one.form) for one in judged(found)] == [("tokens", "token"), ("pooled", "flat")]
    line = torch.randn(30, 1) * torch.randn(1, 8)
    assert judged(point_ranks({"p": line}))[0].share == pytest.approx(0, abs=1e-9)  # however narrow the point


def test_what_is_no_form_and_no_number_is_refused():
    with pytest.raises(ValueError, match=r"Expected forms of .* got 'flatt'"):
        point_ranks({"p": torch.randn(9, 3)}, forms=("flatt",))  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="at point 'p', got 3 that are not, of 27"):
        point_ranks({"p": torch.zeros(9, 3, 1).index_fill(0, torch.tensor([2]), torch.nan)[:, :1].repeat(1, 3, 1)})
