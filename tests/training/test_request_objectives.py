"""Losses that compare the rows of a request, against double loops over rows."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fullrank.training.objectives import LabelColumn, RequestPairwise, RequestSoftmax
from fullrank.training.objectives import pairwise as pairwise_module

LOSSES = [RequestSoftmax(), RequestPairwise()]
ids = lambda loss: type(loss).__name__  # noqa: E731


@dataclass
class Rows:
    """(request, label or None, weight, logit) of every row."""

    rows: Sequence[tuple[int, float | None, float, float]]
    num_requests: int = 6

    def column(self) -> LabelColumn:
        request, label, weight, _ = zip(*self.rows, strict=True)
        return LabelColumn(
            torch.tensor([y or 0.0 for y in label]),
            torch.tensor([y is not None for y in label]),
            torch.tensor(weight),
            torch.ones(len(weight)),
            torch.tensor(request),
            self.num_requests,
        )

    def logits(self) -> torch.Tensor:
        return torch.tensor([row[3] for row in self.rows], dtype=torch.float64).requires_grad_()


def softmax_of(rows):
    """One request's: rows are (label, weight, logit)."""
    bottom = math.log(sum(w * math.exp(z) for _, w, z in rows))
    total = sum(w * y for y, w, _ in rows)
    return -sum(w * y / total * (z - bottom) for y, w, z in rows)


def pairwise_of(rows):
    pairs = [(w * v, math.log1p(math.exp(z - x))) for y, w, x in rows if y for t, v, z in rows if not t]
    return sum(share * loss for share, loss in pairs) / sum(share for share, _ in pairs)


def by_hand(loss, rows):
    """The mean over requests with both classes; None where there is none."""
    counted: dict[int, list[tuple[float, float, float]]] = {}
    for request, label, weight, logit in rows:
        if label is not None and weight > 0:
            counted.setdefault(request, []).append((label, weight, logit))
    both = [own for own in counted.values() if {label for label, _, _ in own} == {0.0, 1.0}]
    one = softmax_of if isinstance(loss, RequestSoftmax) else pairwise_of
    return sum(map(one, both)) / len(both) if both else None


ROW = st.tuples(
    st.integers(0, 5), st.sampled_from([0.0, 1.0, None]), st.sampled_from([0.0, 0.5, 1.0, 3.0]), st.floats(-4, 4)
)


@pytest.mark.parametrize("loss", LOSSES, ids=ids)
@settings(max_examples=150, deadline=None)
@given(rows=st.lists(ROW, min_size=1, max_size=14), chunk=st.sampled_from([1, 3, 1 << 20]))
def test_it_is_the_double_loop(loss, rows, chunk):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pairwise_module, "PAIRS_AT_ONCE", chunk)
        world = Rows(rows)
        value = loss(logits := world.logits(), world.column())
        (3 * value).backward()
        expected = by_hand(loss, rows)
        assert logits.grad is not None
        if expected is None:
            assert value.item() == 0 and (logits.grad == 0).all()
            return
        assert value.item() == pytest.approx(expected, rel=1e-6, abs=1e-9)
        step = 1e-5
        for place, (request, label, weight, logit) in enumerate(rows):  # the slope, by the double loop too
            sides = [
                by_hand(loss, [*rows[:place], (request, label, weight, logit + side), *rows[place + 1 :]])
                for side in (step, -step)
            ]
            slope = 3 * (sides[0] - sides[1]) / (2 * step)
            assert logits.grad[place].item() == pytest.approx(slope, rel=1e-4, abs=1e-7)


@pytest.mark.parametrize("loss", LOSSES, ids=ids)
def test_the_gradient_reaches_only_comparable_rows_and_survives_wild_logits(loss):
    nan = float("nan")
    rows = [
        (0, 1.0, 1.0, 2.0), (0, 0.0, 1.0, 1e4), (0, None, 1.0, nan),  # unknown: nothing, whatever it is
        (1, 1.0, 1.0, nan), (1, 1.0, 1.0, nan),  # positives alone
        (2, 0.0, 1.0, float("inf")),  # a negative alone
        (3, 1.0, 0.0, nan), (3, 0.0, 1.0, nan),  # its positive has no weight
    ]  # fmt: skip
    world = Rows(rows)
    value = loss(logits := world.logits(), world.column())
    value.backward()
    assert value.item() == pytest.approx(1e4 - 2, rel=1e-6)
    assert logits.grad is not None and logits.grad.tolist() == pytest.approx([-1, 1, 0, 0, 0, 0, 0, 0])
    only_skipped = Rows([row for row in rows if row[0]])
    nothing = loss(logits := only_skipped.logits(), only_skipped.column())
    nothing.backward()
    assert nothing.item() == 0 and logits.grad is not None and (logits.grad == 0).all()


@pytest.mark.parametrize("loss", LOSSES, ids=ids)
def test_a_weight_is_a_number_of_copies_and_a_request_counts_once(loss):
    once = [(0, 1.0, 2.0, 0.3), (0, 0.0, 3.0, 0.9), (1, 1.0, 1.0, -1.0), (1, 0.0, 1.0, 0.4)]
    copies = [(r, y, 1.0, z) for r, y, w, z in once for _ in range(int(w))]
    many = copies + [(1, y, 1.0, z) for r, y, _, z in copies if r == 1] * 5
    a, b, c = (loss(Rows(rows).logits(), Rows(rows).column()).item() for rows in (once, copies, many))
    assert a == pytest.approx(b, rel=1e-6)
    if isinstance(loss, RequestPairwise):
        assert a == pytest.approx(c, rel=1e-6)


@pytest.mark.parametrize("loss", LOSSES, ids=ids)
def test_rows_of_other_requests_and_a_request_wide_constant_do_not_matter(loss):
    torch.manual_seed(0)
    rows = [(r, float(k == 0), 1.0, float(torch.randn(()))) for r in range(3) for k in range(4)]
    mixed = [rows[k] for k in torch.randperm(len(rows)).tolist()]
    moved = [(r, y, w, z + 5.0 * r) for r, y, w, z in rows]
    a, b, c = (loss(Rows(given).logits(), Rows(given).column()).item() for given in (rows, mixed, moved))
    assert a == pytest.approx(b, rel=1e-9) and a == pytest.approx(c, rel=1e-6)


def test_the_memory_of_pairs_is_bounded():
    """2000 x 2000 pairs of one request, in chunks: what autograd keeps is one number a row."""
    n = 2000
    world = Rows([(0, float(k < n), 1.0, 0.001 * k) for k in range(2 * n)], num_requests=1)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
        value = RequestPairwise()(logits := world.logits(), world.column())
    value.backward()
    assert sum(kept) <= 10 * n and logits.grad is not None
    z = torch.arange(2 * n, dtype=torch.float64) * 0.001
    expected = torch.nn.functional.softplus(z[None, n:] - z[:n, None]).mean()
    assert value.item() == pytest.approx(expected.item(), rel=1e-6)  # shares of a float32 weight
