from itertools import pairwise, permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import ndcg_score

from fullrank.evaluation.ranking import ranking_metrics

NAMES = ("ndcg", "hit_rate", "recall", "precision", "mrr")
row = st.tuples(st.booleans(), st.sampled_from([-np.inf, -1.0, -0.0, 0.0, 2.0]), st.sampled_from([-3, 0, 8]))
logs = st.lists(row, max_size=15)


def columns(log):
    labels, scores, groups = zip(*log, strict=True) if log else ((), (), ())
    return np.array(labels, float), np.array(scores, float), np.array(groups, np.int64)


def of_list(ranked, k):
    """The definitions, of one ranked list of labels."""
    top, positives = ranked[:k], sum(ranked)
    dcg = sum(y / np.log2(place + 2) for place, y in enumerate(top))
    first = next((place + 1 for place, y in enumerate(top) if y), None)
    return {
        "ndcg": dcg / sum(1 / np.log2(place + 2) for place in range(min(k, positives))),
        "hit_rate": float(any(top)),
        "recall": sum(top) / positives,
        "precision": sum(top) / k,
        "mrr": 1 / first if first else 0.0,
    }


def by_every_order(labels, scores, k):
    """The mean of the definitions over every order of the rows whose scores descend."""
    seen = []
    for order in permutations(range(len(labels))):
        if all(scores[a] >= scores[b] for a, b in pairwise(order)):
            seen.append(of_list([int(labels[i]) for i in order], k))
    return {name: np.mean([one[name] for one in seen]) for name in NAMES}


@settings(max_examples=60)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 2)), min_size=1, max_size=6), st.integers(1, 7))
def test_ties_are_every_order_alike(log, k):
    labels, scores = (np.array(c, float) for c in zip(*log, strict=True))
    got = ranking_metrics(labels, scores, np.zeros(len(labels), int), [k])
    if not labels.any():
        assert (got.groups, got.skipped) == (0, 1) and np.isnan([getattr(got, name)[k] for name in NAMES]).all()
        return
    expected = by_every_order(labels, scores, k)
    for name in NAMES:
        assert getattr(got, name)[k] == pytest.approx(expected[name], rel=1e-12), name


def test_agrees_with_scikit_learn_with_and_without_ties():
    random = np.random.default_rng(0)
    scores = random.normal(size=(40, 30))
    labels = random.random((40, 30)) < 0.2
    labels[:, 0] = True
    groups = np.repeat(np.arange(40), 30)
    for tied in (scores, np.round(scores)):
        got = ranking_metrics(labels.ravel(), tied.ravel(), groups, [1, 3, 10, 30, 100])
        for k, value in got.ndcg.items():
            assert value == pytest.approx(ndcg_score(labels, tied, k=k), rel=1e-12)


def test_many_groups_of_different_sizes_by_the_definitions():
    random = np.random.default_rng(1)
    groups, scores = random.integers(0, 150, 3000), random.permutation(3000).astype(np.float32)
    labels = random.random(3000) < 0.06
    got = ranking_metrics(labels, scores, groups, [20, 1, 5])
    each = []
    for group in np.unique(groups):
        ranked = labels[groups == group][np.argsort(-scores[groups == group])].tolist()
        each += [{k: of_list(ranked, k) for k in (1, 5, 20)}] if any(ranked) else []
    assert (got.groups, got.skipped) == (len(each), len(np.unique(groups)) - len(each)) and got.skipped > 0
    assert list(got.ndcg) == [1, 5, 20]
    for name in NAMES:
        for k, value in getattr(got, name).items():
            assert value == pytest.approx(np.mean([one[k][name] for one in each]), rel=1e-12), (name, k)


@given(logs, st.randoms(use_true_random=False))
def test_order_of_rows_is_nothing(log, random):
    shuffled = list(log)
    random.shuffle(shuffled)
    np.testing.assert_equal(vars(ranking_metrics(*columns(log))), vars(ranking_metrics(*columns(shuffled))))


@given(logs)
def test_what_holds_between_the_metrics(log):
    got = ranking_metrics(*columns(log), ks=[1, 2, 3, 50])
    if not got.groups:
        return
    assert got.ndcg[1] == pytest.approx(got.precision[1], abs=1e-12)
    assert got.mrr[1] == pytest.approx(got.hit_rate[1], abs=1e-12)
    assert got.recall[50] == pytest.approx(1) and got.hit_rate[50] == pytest.approx(1)
    for lower, higher in ((1, 2), (2, 3), (3, 50)):
        for name in ("hit_rate", "recall", "mrr"):
            assert getattr(got, name)[lower] <= getattr(got, name)[higher] + 1e-12
    for name in NAMES:
        assert all(-1e-12 <= value <= 1 + 1e-12 for value in getattr(got, name).values())
    labels, _, groups = columns(log)
    best = ranking_metrics(labels, labels, groups, [2])
    assert best.ndcg[2] == pytest.approx(1) and best.mrr[2] == pytest.approx(1)


def test_a_constant_model_gets_what_chance_gets():
    labels = np.zeros(100_000)
    labels[0] = 1
    got = ranking_metrics(labels, np.zeros(100_000), np.zeros(100_000, int), [10])
    assert got.hit_rate[10] == pytest.approx(1e-4) and got.recall[10] == pytest.approx(1e-4)
    assert got.mrr[10] == pytest.approx(sum(1 / r for r in range(1, 11)) / 100_000)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ranking_metrics(np.zeros(1), np.zeros(1), np.zeros(1, int), [0, 5]), r"k >= 1, got \[0, 5\]"),
        (lambda: ranking_metrics(np.zeros(1), np.zeros(1), np.zeros(1, int), []), r"k >= 1, got \[\]"),
        (lambda: ranking_metrics(np.zeros(2), np.zeros(2), np.zeros(1, int)), "got 1 groups for 2 rows"),
        (lambda: ranking_metrics(np.array([2]), np.zeros(1), np.zeros(1, int)), "labels 0 or 1, got 2 in row 0"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
