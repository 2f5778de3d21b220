"""Jagged reductions and attention pooling, against loops over segments."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fullrank.layers.din_pooling import DINPooling
from fullrank.layers.jagged import row_event_pairs, segment_ids, segment_mean, segment_softmax, segment_sum

lengths_lists = st.lists(st.integers(0, 5), min_size=0, max_size=6)


def offsets_of(lengths):
    return torch.tensor([0, *lengths], dtype=torch.int64).cumsum(0)


@given(lengths=lengths_lists)
def test_segment_sum_mean_and_softmax(lengths):
    offsets = offsets_of(lengths)
    n, E = len(lengths), sum(lengths)
    values = torch.linspace(-3, 5, E * 6, dtype=torch.float64).sin().reshape(E, 2, 3) * 40
    segments = segment_ids(offsets, E)
    sums, means = segment_sum(values, segments, n), segment_mean(values, offsets)
    weights = segment_softmax(values[:, 0, 0], segments, n)
    assert sums.shape == means.shape == (n, 2, 3)
    for i in range(n):
        own = values[offsets[i] : offsets[i + 1]]
        torch.testing.assert_close(sums[i], own.sum(0))
        torch.testing.assert_close(means[i], own.mean(0) if len(own) else torch.zeros(2, 3, dtype=torch.float64))
        torch.testing.assert_close(weights[offsets[i] : offsets[i + 1]], own[:, 0, 0].softmax(0))


def test_softmax_of_huge_logits_is_finite():
    weights = segment_softmax(torch.tensor([1e30, 0.0, -1e30]), torch.tensor([0, 0, 1]), 3)
    assert weights.tolist() == [1.0, 0.0, 1.0]


@given(lengths=st.lists(st.integers(0, 5), min_size=1, max_size=5), data=st.data())
def test_pairs_are_rows_times_events_of_their_request(lengths, data):
    offsets = offsets_of(lengths)
    requests = data.draw(st.lists(st.integers(0, len(lengths) - 1), max_size=7))
    rows, events = row_event_pairs(torch.tensor(requests, dtype=torch.int64), offsets)
    expected = [(b, e) for b, r in enumerate(requests) for e in range(int(offsets[r]), int(offsets[r + 1]))]
    assert list(zip(rows.tolist(), events.tolist(), strict=True)) == expected


@pytest.fixture
def pooling():
    torch.manual_seed(0)
    return DINPooling(candidate_width=5, event_width=6, attention_width=4).double()


def test_pooling_is_query_key_value_attention(pooling):
    """Against the unfolded form: keys and values of every event, an explicit softmax, one row at a time."""
    offsets, requests = offsets_of([3, 0, 2]), torch.tensor([2, 0, 1, 0])
    candidates = torch.randn(4, 5, dtype=torch.float64)
    events = torch.randn(5, 6, dtype=torch.float64)
    out = pooling(candidates, events, offsets, requests)
    for b, r in enumerate(requests.tolist()):
        own = events[offsets[r] : offsets[r + 1]]
        attention = (pooling.key(own) @ pooling.query(candidates[b]) / math.sqrt(4)).softmax(0)
        torch.testing.assert_close(out[b], pooling.out(attention @ pooling.value(own)))
    assert torch.equal(out[2], torch.zeros(6, dtype=torch.float64))


def test_pooling_gradients(pooling):
    offsets, requests = offsets_of([2, 0, 3]), torch.tensor([0, 2, 1])
    candidates = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)
    events = torch.randn(5, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda c, e: pooling(c, e, offsets, requests), (candidates, events))


def test_pooling_does_not_depend_on_the_order_of_events_or_the_company_of_rows(pooling):
    events, candidates = torch.randn(4, 6, dtype=torch.float64), torch.randn(3, 5, dtype=torch.float64)
    together = pooling(candidates, events, offsets_of([4]), torch.zeros(3, dtype=torch.int64))
    turned = pooling(candidates, events.flip(0), offsets_of([4]), torch.zeros(3, dtype=torch.int64))
    torch.testing.assert_close(together, turned)
    alone = pooling(candidates[1:2], events, offsets_of([4]), torch.zeros(1, dtype=torch.int64))
    torch.testing.assert_close(together[1:2], alone)


def test_pooling_with_no_events_at_all(pooling):
    no_events = torch.zeros(0, 6, dtype=torch.float64)
    out = pooling(torch.randn(2, 5).double(), no_events, offsets_of([0]), torch.zeros(2, dtype=torch.int64))
    assert out.shape == (2, 6) and not out.any()


def test_pooling_parameter_count():
    assert sum(p.numel() for p in DINPooling(112, 112, 256).parameters()) == 4 * 112 * 256
