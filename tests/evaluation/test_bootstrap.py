"""Intervals by resampling users: against a slow bootstrap that repeats rows, and against the truth it should cover."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fullrank.evaluation.bootstrap import BootstrapConfig, clustered_bootstrap, paired_bootstrap
from fullrank.evaluation.evaluate import Predictions
from fullrank.evaluation.metrics import auc, auc_per_user, log_loss, mae, mse, pcoc


def predictions(logits, labels, users, rates=None, known=None, kind="binary") -> Predictions:
    n = len(logits)
    return Predictions(
        tasks=("click",),
        kinds=(kind,),
        logits_NK=np.asarray(logits, np.float32)[:, None],
        labels_NK=np.asarray(labels, np.float32)[:, None],
        known_NK=(np.ones(n, bool) if known is None else known)[:, None],
        user_N=np.asarray(users, np.int64),
        time_N=np.zeros(n, np.int64),
        sample_rate_N=np.ones(n, np.float32) if rates is None else np.asarray(rates, np.float32),
    )


def drawn(seed: int, n: int = 300, users: int = 25) -> Predictions:
    rng = np.random.default_rng(seed)
    user = rng.integers(0, users, n)  # 0: no user
    logits = np.round(rng.normal(size=n), 1)  # many ties
    labels = rng.random(n) < 1 / (1 + np.exp(-logits))
    return predictions(logits, labels, user, rng.choice([1.0, 0.25], n), rng.random(n) < 0.9)


def repeated(p: Predictions, config: BootstrapConfig, metric) -> tuple[float, float]:
    """The interval the long way: the rows of every user as often as the user was drawn, then the metric."""
    known = p.known_NK[:, 0]
    labels, logits, user, rate = p.labels_NK[known, 0], p.logits_NK[known, 0], p.user_N[known], p.sample_rate_N[known]
    codes = [code for code in np.unique(user) if code]
    groups = [np.flatnonzero(user == code) for code in codes] + [np.array([row]) for row in np.flatnonzero(user == 0)]
    rng = np.random.default_rng(config.seed)
    values = []
    for _ in range(config.replicates):
        times = np.bincount(rng.integers(0, len(groups), len(groups)), minlength=len(groups))
        rows = np.concatenate([np.tile(group, count) for group, count in zip(groups, times, strict=True)])
        # the copies of one user are users of their own
        copies = [np.repeat(np.arange(n) + 1000 * (1 + g), len(groups[g])) for g, n in enumerate(times)]
        own = np.concatenate(copies)
        own[user[rows] == 0] = 0
        values.append(metric(labels[rows], logits[rows], own, rate[rows]))
    edge = (1 - config.level) / 2
    return tuple(np.quantile(values, [edge, 1 - edge]))


def of_users(labels, logits, users, rates) -> float:
    return auc_per_user(labels[users != 0], logits[users != 0], users[users != 0]).value


METRICS = {
    "auc": lambda labels, logits, users, rates: auc(labels, logits),
    "user_auc": of_users,
    "log_loss": lambda labels, logits, users, rates: log_loss(labels, logits, rates),
    "pcoc": lambda labels, logits, users, rates: pcoc(labels, logits, rates),
}


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize("seed", [0, 1])
def test_weights_are_what_repeating_rows_is(name, seed):
    p, config = drawn(seed), BootstrapConfig(replicates=30, level=0.8, seed=seed)
    found = clustered_bootstrap(p, "click", config)[name]
    np.testing.assert_allclose((found.low, found.high), repeated(p, config, METRICS[name]), rtol=1e-9)
    assert found.low < found.value < found.high


def test_the_value_is_the_metric_itself():
    p = drawn(3)
    metrics, found = p.metrics("click"), clustered_bootstrap(p, "click", BootstrapConfig(replicates=5))
    for name in METRICS:
        assert found[name].value == pytest.approx(getattr(metrics, name), rel=1e-12)


def test_regression_has_errors_and_no_auc():
    rng = np.random.default_rng(0)
    labels = rng.normal(size=200)
    users, rates = rng.integers(1, 40, 200), rng.choice([1, 0.5], 200)
    p = predictions(labels + rng.normal(size=200), labels, users, rates, None, "regression")
    found = clustered_bootstrap(p, "click")
    weights = 1 / rates
    assert set(found) == {"mse", "mae"}
    assert found["mse"].value == pytest.approx(mse(p.labels_NK[:, 0], p.logits_NK[:, 0], weights))
    assert found["mae"].value == pytest.approx(mae(p.labels_NK[:, 0], p.logits_NK[:, 0], weights))
    assert found["mse"].low < found["mse"].value < found["mse"].high


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 60))
def test_a_model_differs_from_itself_by_nothing_at_all(seed, n):
    p = drawn(seed, n, users=8)
    for interval in paired_bootstrap(p, p, "click", BootstrapConfig(replicates=20, seed=seed)).values():
        values = np.array([interval.value, interval.low, interval.high])
        assert np.isnan(values).any() or not values.any()


def test_a_pair_sees_the_same_users_and_a_clear_difference_is_seen():
    rng = np.random.default_rng(1)
    user = rng.integers(1, 200, 4_000)
    z = rng.normal(size=4_000) + rng.normal(size=200)[user]
    labels = rng.random(4_000) < 1 / (1 + np.exp(-z))
    good, noisy = predictions(z, labels, user), predictions(z + 0.7 * rng.normal(size=4_000), labels, user)
    config = BootstrapConfig(replicates=100)
    pair = paired_bootstrap(good, noisy, "click", config)
    assert pair["auc"].low > 0 and pair["log_loss"].high < 0
    one, other = clustered_bootstrap(good, "click", config), clustered_bootstrap(noisy, "click", config)
    assert pair["auc"].value == one["auc"].value - other["auc"].value
    width = pair["auc"].high - pair["auc"].low
    assert width < 0.8 * (one["auc"].high - one["auc"].low)  # what both share is not in the difference
    back = paired_bootstrap(noisy, good, "click", config)
    assert back["pcoc"].low == -pair["pcoc"].high


def test_intervals_cover_the_truth_as_often_as_they_say():
    """Users differ in how often they click, by more than their rows alone would: 90 % intervals of PCOC, log-loss and
    AUC hold the value of a very large sample in 80 to 97 % of small ones; intervals that resample rows hold it less."""
    rng = np.random.default_rng(7)

    def sample(users: int) -> Predictions:
        user = np.repeat(np.arange(1, users + 1), 20)
        score = rng.normal(size=len(user))
        z = score + 1.5 * rng.normal(size=users)[user - 1]
        return predictions(score, rng.random(len(user)) < 1 / (1 + np.exp(-z)), user)

    truth = sample(10_000).metrics("click")
    covered, by_row = {"auc": 0, "log_loss": 0, "pcoc": 0}, 0
    for seed in range(100):
        p = sample(60)
        config = BootstrapConfig(replicates=100, seed=seed)
        found = clustered_bootstrap(p, "click", config)
        for name in covered:
            covered[name] += found[name].low <= getattr(truth, name) <= found[name].high
        rows = clustered_bootstrap(replace(p, user_N=np.arange(1, len(p.user_N) + 1)), "click", config)["pcoc"]
        by_row += rows.low <= truth.pcoc <= rows.high
    assert all(80 <= count <= 97 for count in covered.values()), covered
    assert by_row < 75


def test_the_order_of_rows_and_the_seed_decide_nothing_else():
    p = drawn(5)
    config = BootstrapConfig(replicates=20, seed=3)
    assert clustered_bootstrap(p, "click", config) == clustered_bootstrap(p, "click", config)
    assert clustered_bootstrap(p, "click", config) != clustered_bootstrap(p, "click", replace(config, seed=4))
    somebody = p.rows(p.user_N != 0)
    turned = somebody.rows(np.random.default_rng(0).permutation(len(somebody.user_N)))
    for name, interval in clustered_bootstrap(somebody, "click", config).items():
        again = clustered_bootstrap(turned, "click", config)[name]
        np.testing.assert_allclose(again.low, interval.low, rtol=1e-12)


def test_what_is_not_defined_has_no_interval():
    nobody = clustered_bootstrap(predictions([1.0, 2.0, 3.0], [0, 1, 0], [0, 0, 0]), "click")
    assert np.isnan(nobody["user_auc"].value) and np.isnan(nobody["user_auc"].low)
    assert np.isfinite(nobody["log_loss"].low)
    empty = clustered_bootstrap(predictions([], [], []), "click")
    assert all(np.isnan(interval.value) for interval in empty.values())


def test_other_rows_are_named():
    p = drawn(1)
    wrong = p.labels_NK.copy()
    wrong[np.flatnonzero(p.known_NK[:, 0])[4], 0] = 1 - wrong[np.flatnonzero(p.known_NK[:, 0])[4], 0]
    row = np.flatnonzero(p.known_NK[:, 0])[4]
    with pytest.raises(ValueError, match=rf"they differ in labels of row {row} \(1 rows in all\)"):
        paired_bootstrap(p, replace(p, labels_NK=wrong), "click")
    with pytest.raises(ValueError, match="same rows, got 300 rows and 3"):
        paired_bootstrap(p, p.rows(np.arange(3)), "click")
    with pytest.raises(ValueError, match=r"task of \['click'\], got 'clik'. Did you mean 'click'"):
        clustered_bootstrap(p, "clik")


@pytest.mark.parametrize(("name", "value"), [("replicates", 0), ("level", 1.0), ("level", 0.0)])
def test_a_config_says_what_it_expects(name, value):
    with pytest.raises(ValueError, match=rf"Expected (a )?{name}.*got {value}"):
        BootstrapConfig(**{name: value})
