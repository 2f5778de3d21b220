import importlib.util
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fullrank.evaluation.off_policy import direct_method, doubly_robust, ipw, self_normalised_ipw

# A world small enough to enumerate: 2 contexts, 3 actions, its logging policy, its rewards, and a wrong model of them.
CONTEXT = np.array([0.25, 0.75])
LOGGING = np.array([[0.5, 0.3, 0.2], [0.1, 0.1, 0.8]])
TARGET = np.array([[0.0, 0.5, 0.5], [0.9, 0.05, 0.05]])
REWARD = np.array([[1.0, 0.2, -0.5], [0.4, 0.0, 0.3]])
MODEL = np.array([[0.5, 0.5, 0.5], [0.1, 0.2, 0.3]])
VALUE = (CONTEXT[:, None] * TARGET * REWARD).sum()
CELLS = [(c, a) for c in range(2) for a in range(3)]


def expectation(estimate):
    """Of an estimator on logs of one row: over every context and action the logging policy can give."""
    return sum(CONTEXT[c] * LOGGING[c, a] * estimate(c, a) for c, a in CELLS)


def one(value):
    return np.array([value])


def test_ipw_and_doubly_robust_are_unbiased_whatever_the_model():
    got = expectation(lambda c, a: ipw(one(REWARD[c, a]), one(LOGGING[c, a]), one(TARGET[c, a])).value)
    assert got == pytest.approx(VALUE, rel=1e-12)

    def robust(model, propensity):
        return expectation(
            lambda c, a: doubly_robust(
                one(REWARD[c, a]), one(propensity[c, a]), one(a), TARGET, model, one(c)
            ).value
        )

    assert robust(MODEL, LOGGING) == pytest.approx(VALUE, rel=1e-12)
    assert robust(REWARD, np.full((2, 3), 0.6)) == pytest.approx(VALUE, rel=1e-12)  # wrong propensities, right model
    assert robust(MODEL, np.full((2, 3), 0.6)) != pytest.approx(VALUE, rel=0.01)


def test_the_direct_method_is_its_model():
    context = np.array([0, 1, 1, 1])
    assert direct_method(TARGET, REWARD, context).value == pytest.approx(VALUE, rel=1e-12)
    assert direct_method(TARGET, MODEL, context).value != pytest.approx(VALUE, rel=0.01)
    same = direct_method(TARGET, REWARD, np.array([1, 1]))
    assert same.standard_error == 0.0 and np.isnan(same.effective_rows)


def drawn(rows, seed):
    random = np.random.default_rng(seed)
    context = random.choice(2, rows, p=CONTEXT)
    action = (random.random(rows)[:, None] > np.cumsum(LOGGING[context], axis=1)[:, :2]).sum(axis=1)
    return context, action, REWARD[context, action] + random.normal(0, 0.3, rows)


def test_standard_errors_are_the_spread_over_logs():
    estimates = {"ipw": [], "self_normalised": [], "robust": [], "direct": []}
    for seed in range(400):
        context, action, reward = drawn(400, seed)
        columns = reward, LOGGING[context, action], TARGET[context, action]
        estimates["ipw"].append(ipw(*columns))
        estimates["self_normalised"].append(self_normalised_ipw(*columns))
        estimates["robust"].append(doubly_robust(*columns[:2], action, TARGET, MODEL, context))
        estimates["direct"].append(direct_method(TARGET, MODEL, context))
    for name, got in estimates.items():
        spread = np.std([estimate.value for estimate in got], ddof=1)
        told = np.mean([estimate.standard_error for estimate in got])
        assert told == pytest.approx(spread, rel=0.15), name  # 400 logs: the spread itself is known to 3.5 %
        if name != "direct":
            assert abs(np.mean([estimate.value for estimate in got]) - VALUE) < 4 * spread / 20, name


probability = st.floats(0.05, 1.0)
logs = st.lists(st.tuples(st.floats(-3, 3), probability, st.floats(0, 1)), min_size=1, max_size=20)


@given(logs, st.floats(-5, 5))
def test_the_self_normalised_value_moves_with_the_rewards(log, shift):
    rewards, propensity, target = (np.array(c) for c in zip(*log, strict=True))
    target[0] = 0.5
    got = self_normalised_ipw(rewards, propensity, target)
    moved = self_normalised_ipw(rewards + shift, propensity, target)
    assert moved.value == pytest.approx(got.value + shift, abs=1e-9)
    assert moved.standard_error == pytest.approx(got.standard_error, abs=1e-9)
    assert rewards.min() - 1e-12 <= got.value <= rewards.max() + 1e-12
    assert 1 - 1e-12 <= got.effective_rows <= len(log) + 1e-9


@given(logs)
def test_the_logging_policy_is_worth_its_mean(log):
    rewards, propensity, _ = (np.array(c) for c in zip(*log, strict=True))
    for estimate in (ipw, self_normalised_ipw):
        got = estimate(rewards, propensity, propensity)
        assert got.value == pytest.approx(rewards.mean(), abs=1e-12)
        assert got.effective_rows == pytest.approx(len(log)) and got.mean_weight == got.largest_weight == 1.0


def test_a_model_of_zeros_makes_doubly_robust_ipw():
    context, action, reward = drawn(50, 0)
    plain = ipw(reward, LOGGING[context, action], TARGET[context, action], clip=2.0)
    assert doubly_robust(reward, LOGGING[context, action], action, TARGET, 0 * REWARD, context, clip=2.0) == plain


def test_clipping_cuts_weights_and_says_how_many():
    rewards, propensity, target = np.array([1.0, 1, 0, 1]), np.array([0.1, 0.5, 0.5, 1]), np.array([1.0, 0.5, 0.5, 0.5])
    got = ipw(rewards, propensity, target, clip=2.0)
    assert (got.value, got.largest_weight, got.clipped) == ((2 + 1 + 0.5) / 4, 2.0, 0.25)
    assert got.effective_rows == pytest.approx(4.5**2 / (4 + 1 + 1 + 0.25))
    free = ipw(rewards, propensity, target)
    assert (free.value, free.clipped) == (pytest.approx(11.5 / 4), 0.0)


def test_no_overlap_is_seen():
    rewards, nothing = np.array([1.0, 0.0]), np.zeros(2)
    assert ipw(rewards, np.full(2, 0.5), nothing).effective_rows == 0.0
    got = self_normalised_ipw(rewards, np.full(2, 0.5), nothing)
    assert np.isnan(got.value) and got.mean_weight == 0.0
    empty = ipw(np.zeros(0), np.zeros(0), np.zeros(0))
    assert np.isnan(empty.value) and empty.rows == 0


def test_the_published_value_of_open_bandit():
    folder = Path(os.environ.get("FULLRANK_DATA") or "nowhere") / "obd_small"
    if not folder.is_dir():
        pytest.skip("Open Bandit, small, is not in $FULLRANK_DATA")
    path = Path(__file__).parents[2] / "benchmarks" / "open_bandit.py"
    spec = importlib.util.spec_from_file_location("open_bandit", path)
    assert spec is not None and spec.loader is not None
    benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)
    found = {line["estimator"]: line for line in benchmark.run(folder)}
    assert found["ipw"]["value"] == pytest.approx(0.00455288, rel=1e-6)
    assert (found["ipw"]["rows"], found["mean of the policy's own log"]["value"]) == (10_000, 0.0042)


ONE = np.ones(2)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ipw(ONE, np.array([0.5, 0]), ONE), r"propensity in \(0, 1\] for every row, got 0.0 in row 1"),
        (lambda: ipw(ONE, ONE, np.array([1.5, 1])), r"target probability in \[0, 1\] for every row, got 1.5 in row 0"),
        (lambda: ipw(np.array([0, np.nan]), ONE, ONE), "finite reward for every row, got nan in row 1"),
        (lambda: ipw(ONE, ONE, np.ones(3)), r"got shapes \(2,\), \(2,\) and \(3,\)"),
        (lambda: ipw(ONE, ONE, ONE, clip=0.0), "clip > 0, got 0.0: without a limit it is inf"),
        (lambda: direct_method(TARGET, REWARD[:1], ONE), r"one shape, got \(2, 3\) and \(1, 3\)"),
        (lambda: direct_method(TARGET / 2, REWARD, ONE), r"sum 1 in every context, got .* sum 0.5 in context 0"),
        (lambda: direct_method(TARGET, REWARD * np.nan, ONE), "of every action, got nan in context 0, action 0"),
        (lambda: direct_method(TARGET, REWARD, np.array([0, 2])), r"contexts 0 .. 1, got 2 in row 1"),
        (lambda: doubly_robust(ONE, ONE, np.array([0, 3]), TARGET, REWARD, np.array([0, 1])), "actions 0 .. 2, got 3"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
