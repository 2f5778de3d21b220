from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fullrank.evaluation.auc import auc
from fullrank.evaluation.binary import brier, log_loss, normalised_entropy, pcoc, sigmoid
from fullrank.evaluation.streaming import StreamingBinaryMetrics

logit = st.one_of(st.floats(-3, 3, width=32), st.sampled_from([-1e9, -2.0, 0.0, 2.0, 1e9]))
logs = st.lists(st.tuples(st.booleans(), logit, st.sampled_from([1.0, 0.5, 0.1])), max_size=40)
shapes = st.tuples(st.sampled_from([0.1, 2.0, 3.5]), st.sampled_from([1, 2, 7, 1000]))


def columns(log):
    labels, logits, rates = zip(*log, strict=True) if log else ((), (), ())
    return np.array(labels, float), np.array(logits, np.float32), np.array(rates, float)


def streamed(log, shape, size):
    metrics = StreamingBinaryMetrics(limit=shape[0], bins=shape[1])
    for start in range(0, len(log), size):
        metrics.update(*columns(log[start : start + size]))
    return metrics


@given(logs, shapes, st.integers(1, 9))
def test_the_exact_auc_is_always_inside_the_bound(log, shape, size):
    labels, logits, _ = columns(log)
    got = streamed(log, shape, size).result()
    exact = auc(labels, logits)
    if np.isnan(exact):
        assert np.isnan([got.auc, got.auc_bound]).all()
        return
    assert abs(exact - got.auc) <= got.auc_bound + 1e-15
    assert 0 <= got.auc_bound <= 0.5


@given(logs, shapes, st.integers(1, 9))
def test_the_bound_is_half_the_undecided_pairs(log, shape, size):
    """Counted by two loops over rows that lie in the same bin."""
    labels, logits, _ = columns(log)
    limit, bins = shape
    edges = np.linspace(-limit, limit, bins + 1)[1:-1]
    if any(abs(z - e) < 1e-9 for z in logits for e in edges):
        return  # on an edge: either bin is right
    bin_of = np.searchsorted(edges, logits.astype(float), "right")
    rows = list(zip(bin_of, labels, strict=True))
    pairs = [b == c for b, y in rows for c, z in rows if y > z]
    if pairs:
        got = streamed(log, shape, size).result()
        assert got.auc_bound == pytest.approx(float(Fraction(int(sum(pairs)), 2 * len(pairs))), rel=1e-15)


@given(logs, st.integers(1, 9))
def test_the_other_values_are_exact(log, size):
    labels, logits, rates = columns(log)
    got = streamed(log, (16.0, 100), size).result()
    assert (got.rows, got.positives) == (len(log), labels.sum())
    for metric in (log_loss, normalised_entropy, pcoc, brier):
        np.testing.assert_allclose(getattr(got, metric.__name__), metric(labels, logits, rates), rtol=1e-11)


@given(logs, logs, shapes)
def test_merged_is_as_if_one_had_seen_all(one, two, shape):
    both, first = streamed([*one, *two], shape, 5), streamed(one, shape, 5)
    first.merge(streamed(two, shape, 5))
    merged, expected = vars(first.result()), vars(both.result())
    for name in ("rows", "positives", "auc", "auc_bound"):
        np.testing.assert_equal(merged[name], expected[name])
    np.testing.assert_allclose(list(merged.values()), list(expected.values()), rtol=1e-11)


def test_the_defaults_are_close_on_logits_of_a_click_model():
    random = np.random.default_rng(0)
    logits = random.normal(-3, 1, 50_000).astype(np.float32)
    labels = random.random(50_000) < sigmoid(logits)
    metrics = StreamingBinaryMetrics()
    metrics.update(labels, logits)
    got = metrics.result()
    assert got.auc_bound < 1e-4 and abs(got.auc - auc(labels, logits)) <= got.auc_bound
    assert f"AUC {got.auc:.6f} ± {got.auc_bound:.1g}" in str(got) and "50,000 rows" in str(got)


def test_pairs_beyond_64_bits():
    metrics = StreamingBinaryMetrics(limit=1.0, bins=2)
    metrics.update(np.array([1, 0, 0]), np.array([0.5, 0.5, -0.5]))
    for _ in range(36):
        metrics.merge(metrics)  # 2^36 positives, 2^37 negatives: 2^73 pairs
    assert (metrics.result().auc, metrics.result().auc_bound) == (0.75, 0.25)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: StreamingBinaryMetrics(bins=0), "at least 1 bin, got limit 16.0 and 0 bins"),
        (lambda: StreamingBinaryMetrics(limit=-1.0), "limit > 0 and at least 1 bin, got limit -1.0"),
        (
            lambda: StreamingBinaryMetrics(bins=4).merge(StreamingBinaryMetrics(bins=8)),
            r"\(limit, bins\) to merge, \(16.0, 4\), got \(16.0, 8\)",
        ),
        (lambda: StreamingBinaryMetrics().update(np.array([2]), np.zeros(1)), "labels 0 or 1, got 2 in row 0"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
