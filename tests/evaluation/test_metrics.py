from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as oracle

from fullrank.evaluation.metrics import auc, auc_per_user, log_loss, pcoc, sigmoid

few_scores = st.sampled_from([-2.0, -0.5, -0.0, 0.0, 0.25, 1.0, 3.0])  # few values: ties are the rule
row = st.tuples(st.booleans(), few_scores, st.integers(0, 3), st.floats(0.01, 1.0))
logs = st.lists(row, max_size=40)


def columns(log):
    labels, scores, users, rates = zip(*log, strict=True) if log else ((), (), (), ())
    return np.array(labels, float), np.array(scores, float), np.array(users, np.uint64), np.array(rates, float)


def auc_by_pairs(labels, scores, weights):
    won = total = 0.0
    for y, s, w in zip(labels, scores, weights, strict=True):
        for y2, s2, w2 in zip(labels, scores, weights, strict=True):
            if y == 1 and y2 == 0:
                total += w * w2
                won += w * w2 * (1.0 if s > s2 else 0.5 if s == s2 else 0.0)
    return won / total if total else float("nan")


@given(logs)
def test_auc_counts_pairs(log):
    labels, scores, _, rates = columns(log)
    np.testing.assert_allclose(auc(labels, scores), auc_by_pairs(labels, scores, np.ones(len(labels))), rtol=1e-12)
    np.testing.assert_allclose(auc(labels, scores, rates), auc_by_pairs(labels, scores, rates), rtol=1e-12)


@pytest.mark.parametrize("decimals", [1, 9], ids=["many_ties", "no_ties"])
def test_agrees_with_scikit_learn_on_many_rows(decimals):
    random = np.random.default_rng(0)
    logits = np.round(random.normal(size=5000) * 3, decimals)
    labels = (random.random(5000) < sigmoid(logits)).astype(np.float32)
    rates = random.uniform(0.1, 1, 5000)
    assert auc(labels, logits) == pytest.approx(oracle.roc_auc_score(labels, logits), rel=1e-12)
    weighted = oracle.roc_auc_score(labels, logits, sample_weight=rates)
    assert auc(labels, logits, rates) == pytest.approx(weighted, rel=1e-12)
    assert log_loss(labels, logits) == pytest.approx(oracle.log_loss(labels, sigmoid(logits)), rel=1e-12)
    unsampled = oracle.log_loss(labels, sigmoid(logits), sample_weight=1 / rates)
    assert log_loss(labels, logits, rates) == pytest.approx(unsampled, rel=1e-12)


@given(logs, st.sampled_from(["impressions", "equal"]))
def test_auc_per_user_is_the_mean_of_each_users_auc(log, weighting):
    labels, scores, users, _ = columns(log)
    values, counts = [], []
    for user in set(users.tolist()):
        own = users == user
        if len(set(labels[own])) == 2:
            values.append(oracle.roc_auc_score(labels[own], scores[own]))
            counts.append(own.sum() if weighting == "impressions" else 1)
    got = auc_per_user(labels, scores, users, weighting)
    assert (got.users, got.skipped) == (len(values), len(set(users.tolist())) - len(values))
    expected = np.average(values, weights=counts) if values else float("nan")
    np.testing.assert_allclose(got.value, expected, rtol=1e-12)


def test_two_weightings_differ_when_users_do():
    labels = np.array([1, 0, 1, 0, 0, 0])
    scores = np.array([2.0, 1.0, 1.0, 2.0, 3.0, 4.0])  # user 7 is ranked right, user 9 (more rows) all wrong
    users = np.array([7, 7, 9, 9, 9, 9])
    assert auc_per_user(labels, scores, users, "equal").value == 0.5
    assert auc_per_user(labels, scores, users).value == pytest.approx(2 / 6)


@settings(max_examples=50)
@given(logs, st.randoms(use_true_random=False))
def test_order_of_rows_is_nothing(log, random):
    shuffled = list(log)
    random.shuffle(shuffled)
    (labels, scores, users, rates), (labels2, scores2, users2, rates2) = columns(log), columns(shuffled)
    np.testing.assert_equal(auc(labels, scores), auc(labels2, scores2))  # bit-identical
    np.testing.assert_equal(auc(labels, scores, rates), auc(labels2, scores2, rates2))
    per_user, per_user2 = auc_per_user(labels, scores, users), auc_per_user(labels2, scores2, users2)
    np.testing.assert_equal(vars(per_user), vars(per_user2))
    np.testing.assert_allclose(log_loss(labels, scores, rates), log_loss(labels2, scores2, rates2), rtol=1e-12)
    np.testing.assert_allclose(pcoc(labels, scores, rates), pcoc(labels2, scores2, rates2), rtol=1e-12)


def test_a_row_kept_at_one_in_four_counts_as_four_rows():
    labels, logits = np.array([1, 0, 0]), np.array([0.3, -1.0, 2.0])
    four = [0, 1, 1, 1, 1, 2]
    rates = np.array([1, 0.25, 1])
    assert log_loss(labels, logits, rates) == pytest.approx(log_loss(labels[four], logits[four]), rel=1e-14)
    assert pcoc(labels, logits, rates) == pytest.approx(pcoc(labels[four], logits[four]), rel=1e-14)


def test_huge_logits_neither_overflow_nor_clip():
    assert log_loss(np.array([1, 0]), np.array([-1e4, -1e4], np.float32)) == 5e3
    assert log_loss(np.array([0]), np.array([-800.0])) == 0.0
    assert log_loss(np.array([1]), np.array([-np.inf])) == np.inf
    assert log_loss(np.array([1]), np.array([np.inf])) == 0.0
    np.testing.assert_array_equal(sigmoid(np.array([-np.inf, -800.0, 0.0, 800.0])), [0, np.exp(-800.0), 0.5, 1])


def test_nothing_to_compare_is_nan_and_not_a_number():
    nothing = np.array([])
    assert np.isnan([auc(nothing, nothing), log_loss(nothing, nothing), pcoc(nothing, nothing)]).all()
    ones = np.ones(3)
    assert np.isnan([auc(ones, ones), auc(ones, ones, ones), pcoc(0 * ones, ones)]).all()
    per_user = auc_per_user(ones, ones, np.array([1, 1, 2]))
    assert np.isnan(per_user.value) and (per_user.users, per_user.skipped) == (0, 2)


def test_pairs_beyond_32_bits_are_counted_exactly():
    labels = np.tile([0, 1], 100_000)  # 10^10 pairs
    assert auc(labels, labels.astype(np.float32)) == 1.0
    assert auc(labels, np.zeros(200_000, np.float32)) == 0.5


WRONG: Any = "clicks"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: auc(np.array([0, 2]), np.zeros(2)), "Expected labels 0 or 1, got 2 in row 1"),
        (lambda: auc(np.array([0, np.nan]), np.zeros(2)), "got nan in row 1: leave rows of unknown label out"),
        (lambda: auc(np.array([0, 1]), np.array([0, np.nan])), r"a score for every row, got nan in row 1 \(1 in all\)"),
        (lambda: auc(np.zeros(2), np.zeros(3)), r"got shapes \(2,\) and \(3,\)"),
        (lambda: auc(np.zeros(2), np.zeros(2), np.array([1, -1])), r"weights >= 0, got -1.0 in row 1"),
        (lambda: auc_per_user(np.zeros(2), np.zeros(2), np.zeros(1)), "got 1 users for 2 rows"),
        (lambda: auc_per_user(np.zeros(2), np.zeros(2), np.zeros(2, int), WRONG), "'positives', got 'clicks'"),
        (lambda: log_loss(np.zeros(2), np.zeros(2), np.array([1, 0])), r"rates in \(0, 1\], got 0.0 in row 1"),
    ],
)  # fmt: skip
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
