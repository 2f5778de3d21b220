from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import brier_score_loss

from fullrank.evaluation.binary import brier, ece, log_loss, normalised_entropy, pcoc, sigmoid

logs = st.lists(st.tuples(st.booleans(), st.sampled_from([-4.0, -1.0, 0.0, 0.5, 3.0]), st.integers(1, 4)), max_size=30)
METRICS = {
    "log_loss": log_loss,
    "normalised_entropy": normalised_entropy,
    "brier": brier,
    "pcoc": pcoc,
    "ece_width": lambda *columns: ece(*columns, bins=7, binning="equal_width"),
}


def columns(log):
    labels, logits, times = zip(*log, strict=True) if log else ((), (), ())
    return np.array(labels, float), np.array(logits, float), np.array(times, int)


@pytest.mark.parametrize("name", METRICS)
@given(log=logs)
def test_a_row_of_rate_one_in_n_is_n_rows(name, log):
    labels, logits, times = columns(log)
    repeated = np.repeat(np.arange(len(labels)), times)
    one, many = METRICS[name](labels, logits, 1 / times), METRICS[name](labels[repeated], logits[repeated])
    np.testing.assert_allclose(one, many, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", [*METRICS, "ece_mass"])
@given(log=logs, random=st.randoms(use_true_random=False))
def test_order_of_rows_is_nothing(name, log, random):
    metric = METRICS.get(name, ece)
    shuffled = list(log)
    random.shuffle(shuffled)
    one, two = (metric(labels, logits, 1 / times) for labels, logits, times in (columns(log), columns(shuffled)))
    np.testing.assert_allclose(one, two, rtol=1e-12, atol=1e-15)


def test_brier_agrees_with_scikit_learn():
    random = np.random.default_rng(0)
    logits = random.normal(size=1000)
    labels, rates = random.random(1000) < 0.3, random.uniform(0.1, 1, 1000)
    expected = brier_score_loss(labels, sigmoid(logits), sample_weight=1 / rates)
    assert brier(labels, logits, rates) == pytest.approx(expected, rel=1e-12)


def test_knowing_the_base_rate_alone_is_a_normalised_entropy_of_one():
    labels, rates = np.array([1, 0, 0, 0, 1]), np.array([1, 0.25, 0.5, 1, 0.5])
    p = 3 / 10  # 1 + 2 of 1 + 4 + 2 + 1 + 2
    logits = np.full(5, np.log(p / (1 - p)))
    assert normalised_entropy(labels, logits, rates) == pytest.approx(1, rel=1e-12)
    assert normalised_entropy(labels, logits) != pytest.approx(1, rel=1e-3)  # the base rate is the corrected one
    assert normalised_entropy(labels, logits + 0.1, rates) > 1
    assert normalised_entropy(labels, logits + labels - 0.5, rates) < 1


def test_ece_by_hand():
    p = np.array([0.1, 0.1, 0.6, 0.7, 0.9, 0.95])
    labels, logits = np.array([0, 1, 1, 0, 1, 1]), np.log(p / (1 - p))
    three = (abs(0.2 - 1) + abs(1.3 - 1) + abs(1.85 - 2)) / 6  # rows 0-1, 2-3, 4-5
    assert ece(labels, logits, bins=3) == pytest.approx(three, rel=1e-12)
    # [0, 1/3), [1/3, 2/3), [2/3, 1]
    wide = (abs(0.2 - 1) + abs(0.6 - 1) + abs(2.55 - 2)) / 6
    assert ece(labels, logits, bins=3, binning="equal_width") == pytest.approx(wide, rel=1e-12)
    assert ece(labels, logits, bins=1) == pytest.approx(abs(p.sum() - 4) / 6, rel=1e-12)
    assert ece(np.array([1, 0]), np.array([np.inf, -np.inf]), binning="equal_width") == 0.0


def test_rows_of_one_prediction_share_a_bin():
    labels = np.array([1, 0, 0, 0, 1, 1, 0, 0])
    assert ece(labels, np.full(8, np.log(3 / 5)), bins=8) == pytest.approx(0, abs=1e-15)  # mean 3/8 is right
    mixed = np.array([0.0] * 7 + [1.0])  # the tie of 7 takes the bins it covers; the last row is in the last one
    expected = (abs(7 * 0.5 - labels[:7].sum()) + abs(sigmoid(np.array([1.0]))[0] - labels[7])) / 8
    assert ece(labels, mixed, bins=4) == pytest.approx(expected, rel=1e-12)


@given(logs, st.integers(1, 9))
def test_more_merging_never_raises_ece_and_one_bin_is_the_mean(log, bins):
    labels, logits, _ = columns(log)
    if not len(labels):
        assert np.isnan(ece(labels, logits))
        return
    bias = abs(sigmoid(logits).mean() - labels.mean())
    assert ece(labels, logits, bins=1) == pytest.approx(bias, abs=1e-12)
    for binning in ("equal_mass", "equal_width"):
        assert ece(labels, logits, bins=bins, binning=binning) >= bias - 1e-12


def test_a_perfect_model_is_not_at_zero():
    random = np.random.default_rng(0)
    logits = random.normal(size=2000)
    labels = random.random(2000) < sigmoid(logits)
    few, many = ece(labels, logits, bins=5), ece(labels, logits, bins=500)
    assert 0 < few < many  # what the docstring warns of


def test_nothing_to_compare_is_nan():
    nothing, ones = np.array([]), np.ones(3)
    assert np.isnan([metric(nothing, nothing) for metric in METRICS.values()]).all()
    assert np.isnan([normalised_entropy(ones, ones), normalised_entropy(0 * ones, ones)]).all()
    assert brier(ones, ones) == pytest.approx((1 - 1 / (1 + np.exp(-1))) ** 2)


WRONG: Any = "quantile"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ece(np.zeros(2), np.zeros(2), bins=0), "at least 1 bin, got 0"),
        (lambda: ece(np.zeros(2), np.zeros(2), binning=WRONG), "'equal_mass' or 'equal_width', got 'quantile'"),
        (lambda: brier(np.array([0, 3]), np.zeros(2)), "labels 0 or 1, got 3 in row 1"),
        (lambda: normalised_entropy(np.zeros(2), np.zeros(2), np.array([1, 2])), r"in \(0, 1\], got 2.0 in row 1"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
