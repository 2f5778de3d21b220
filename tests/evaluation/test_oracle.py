from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import log_loss as sklearn_log_loss
from sklearn.metrics import roc_auc_score

from fullrank.evaluation.oracle import oracle_metrics, slate_regret


def test_the_oracle_is_scikit_learns_metrics_of_the_truth():
    random = np.random.default_rng(0)
    truth = random.beta(1, 6, 20_000)
    labels = (random.random(len(truth)) < truth).astype(np.int8)
    found = oracle_metrics(labels, truth)
    assert found.auc == pytest.approx(roc_auc_score(labels, truth), abs=1e-12)
    assert found.log_loss == pytest.approx(sklearn_log_loss(labels, truth), abs=1e-12)
    assert found.pcoc == pytest.approx(truth.sum() / labels.sum(), abs=1e-9)
    assert (found.rows, found.positives) == (20_000, labels.sum())


def test_entropy_and_spread_are_the_mean_and_deviation_over_labels_that_might_have_been():
    random = np.random.default_rng(1)
    truth = random.beta(2, 5, 300)
    drawn = [oracle_metrics(random.random(300) < truth, truth) for _ in range(400)]
    losses = np.array([one.log_loss for one in drawn])
    assert abs(losses.mean() - drawn[0].entropy) < 4.5 * drawn[0].spread / np.sqrt(len(losses))
    assert losses.std() == pytest.approx(drawn[0].spread, rel=4.5 / np.sqrt(2 * len(losses)))


def test_truths_that_are_none_are_refused():
    with pytest.raises(ValueError, match=r"in \(0, 1\), got 1.0 in row 1"):
        oracle_metrics(np.array([1, 1]), np.array([0.5, 1.0]))
    with pytest.raises(ValueError, match="one label and one score a row"):
        oracle_metrics(np.array([1]), np.array([0.5, 0.2]))


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=12))
def test_regret_is_that_of_trying_all_orders(rows):
    groups, values, scores = (np.array(column) for column in zip(*rows, strict=True))
    looks = np.array([1.0, 0.5, 0.5, 0.1])
    found = slate_regret(values, scores, groups, looks)
    best = chosen = 0.0
    for group in set(groups.tolist()):
        mine = np.flatnonzero(groups == group)
        orders = permutations(values[mine][: min(len(mine), 6)])
        if len(mine) <= 6:
            best += max(sum(look * value for look, value in zip(looks, order, strict=False)) for order in orders)
        else:
            best += float(sum(looks * np.sort(values[mine])[::-1][:4]))
        by_score = sorted(mine.tolist(), key=lambda i: (-scores[i], i))
        chosen += sum(look * values[i] for look, i in zip(looks, by_score, strict=False))
    assert found.groups == len(set(groups.tolist()))
    assert found.best * found.groups == pytest.approx(best)
    assert found.chosen * found.groups == pytest.approx(chosen)
    assert found.regret >= -1e-12
    assert slate_regret(values, values, groups, looks).regret == 0.0


def test_regret_of_one_choice_and_of_nothing():
    values, groups = np.array([1.0, 3.0, 2.0]), np.array([7, 7, 7])
    assert slate_regret(values, np.array([0.1, 0.0, 0.9]), groups, np.array([1.0])).regret == 1.0
    nothing = slate_regret(np.zeros(0), np.zeros(0), np.zeros(0, int), np.array([1.0]))
    assert nothing.groups == 0 and np.isnan(nothing.regret)


def test_looks_that_rise_and_columns_that_differ_are_refused():
    with pytest.raises(ValueError, match="don't rise from slot to slot"):
        slate_regret(np.ones(2), np.ones(2), np.ones(2, int), np.array([0.5, 1.0]))
    with pytest.raises(ValueError, match="one value, score and group a row"):
        slate_regret(np.ones(2), np.ones(3), np.ones(2, int), np.array([1.0]))
