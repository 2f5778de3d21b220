import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from fullrank.evaluation.auc import auc, auc_per_group, auc_per_user, group_aucs

scores = st.sampled_from([-np.inf, -2.0, -0.5, -0.0, 0.0, 0.25, 1.0, np.inf])
logs = st.lists(st.tuples(st.booleans(), scores, st.sampled_from([-5, 0, 7, 2**62])), max_size=40)
dtypes = st.sampled_from([np.float16, np.float32, np.float64])


def columns(log, dtype=np.float64):
    labels, scores, groups = zip(*log, strict=True) if log else ((), (), ())
    return np.array(labels, float), np.array(scores, dtype), np.array(groups, np.int64)


def twice_won_by_pairs(labels, scores):
    pairs = [(s, t) for s, y in zip(scores, labels, strict=True) for t, z in zip(scores, labels, strict=True) if y > z]
    return sum(2 * (s > t) + (s == t) for s, t in pairs)


@given(logs, dtypes)
def test_pairs_of_every_group_are_counted(log, dtype):
    labels, scores, groups = columns(log, dtype)
    got = group_aucs(labels, scores, groups)
    assert got.group_U.tolist() == sorted(set(groups.tolist()))
    for group, positives, negatives, won, value in zip(
        got.group_U, got.positives_U, got.negatives_U, got.twice_won_U, got.auc_U, strict=True
    ):
        own = groups == group
        assert (positives, negatives) == ((labels[own] == 1).sum(), (labels[own] == 0).sum())
        assert won == twice_won_by_pairs(labels[own], scores[own])
        np.testing.assert_equal(value, auc(labels[own], scores[own]))


@given(logs, st.sampled_from(["impressions", "equal", "positives"]))
def test_the_mean_weighs_as_it_says(log, weighting):
    labels, scores, groups = columns(log)
    counted = {
        "impressions": lambda own: own.sum(),
        "equal": lambda own: 1,
        "positives": lambda own: labels[own].sum(),
    }
    both = [groups == g for g in set(groups.tolist()) if len(set(labels[groups == g])) == 2]
    got = auc_per_group(labels, scores, groups, weighting)
    assert (got.groups, got.skipped) == (len(both), len(set(groups.tolist())) - len(both))
    finite = np.clip(scores, -9, 9)  # the oracle takes no infinities; the order is the same
    expected = float("nan")
    if both:
        values = [roc_auc_score(labels[own], finite[own]) for own in both]
        expected = np.average(values, weights=[counted[weighting](own) for own in both])
    np.testing.assert_allclose(got.value, expected, rtol=1e-12)
    per_user = auc_per_user(labels, scores, groups, weighting)
    np.testing.assert_equal((per_user.value, per_user.users, per_user.skipped), (got.value, got.groups, got.skipped))


@given(logs, dtypes, st.randoms(use_true_random=False))
def test_order_of_rows_is_nothing_and_one_group_is_all(log, dtype, random):
    shuffled = list(log)
    random.shuffle(shuffled)
    one, two = group_aucs(*columns(log, dtype)), group_aucs(*columns(shuffled, dtype))
    np.testing.assert_equal(vars(one), vars(two))
    labels, scores, groups = columns(log, dtype)
    np.testing.assert_allclose(auc_per_group(labels, scores, 0 * groups).value, auc(labels, scores), rtol=1e-15)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_many_groups_of_many_rows(dtype):
    random = np.random.default_rng(0)
    scores = np.round(random.normal(size=20_000), 2).astype(dtype)
    labels, groups = random.random(20_000) < 0.3, random.integers(-200, 200, 20_000).astype(np.uint64)
    got = group_aucs(labels, scores, groups)
    for at in range(0, len(got.group_U), 20):
        own = groups == got.group_U[at]
        assert got.auc_U[at] == pytest.approx(roc_auc_score(labels[own], scores[own]), rel=1e-12)


def test_whichever_class_is_rarer():
    random = np.random.default_rng(1)
    scores = random.integers(0, 30, 3000)  # integers are scores too
    for rate in (0.001, 0.02, 0.5, 0.98, 0.999):
        labels = random.random(3000) < rate
        assert auc(labels, scores) == pytest.approx(roc_auc_score(labels, scores), rel=1e-13)


@given(st.lists(st.tuples(st.booleans(), scores, st.integers(0, 3)), max_size=20))
def test_a_weight_is_a_repetition(log):
    labels, scores, weights = (np.array(c) for c in zip(*log, strict=True)) if log else (np.zeros(0),) * 3
    repeated = np.repeat(np.arange(len(labels)), weights.astype(int))
    np.testing.assert_allclose(
        auc(labels, scores, weights), auc(labels[repeated], scores[repeated]), rtol=1e-12
    )


def test_neighbouring_floats_do_not_tie():
    for start in (1.0, -1.0, 0.0, 3e38):
        low = np.float32(start)
        high = np.nextafter(low, np.float32(np.inf))
        got = group_aucs(np.array([0, 1]), np.array([low, high]), np.array([4, 4]))
        assert got.auc_U.tolist() == [1.0]


def test_bad_groups_are_named():
    with pytest.raises(ValueError, match="got 1 groups for 2 rows"):
        auc_per_group(np.zeros(2), np.zeros(2), np.zeros(1, int))
    with pytest.raises(ValueError, match="Expected integer group codes, got float64: give every group an integer"):
        auc_per_group(np.zeros(2), np.zeros(2), np.zeros(2))
