import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as oracle

from fullrank.evaluation.regression import mae, mse, r2

number = st.integers(-8, 8).map(lambda n: n / 4)
logs = st.lists(st.tuples(number, number, st.integers(0, 3)), max_size=20)
METRICS = {
    "mse": (mse, oracle.mean_squared_error),
    "mae": (mae, oracle.mean_absolute_error),
    "r2": (r2, oracle.r2_score),
}


@pytest.mark.parametrize("name", METRICS)
@given(log=logs)
def test_agrees_with_scikit_learn_and_a_weight_is_a_repetition(name, log):
    metric, expected = METRICS[name]
    labels, predictions, weights = (np.array(c, float) for c in zip(*log, strict=True)) if log else (np.zeros(0),) * 3
    times = np.repeat(np.arange(len(labels)), weights.astype(int))
    got = metric(labels, predictions, weights)
    np.testing.assert_allclose(got, metric(labels[times], predictions[times]), rtol=1e-9, atol=1e-12)
    if len(times) and (name != "r2" or len(set(labels[times])) > 1):
        np.testing.assert_allclose(got, expected(labels[times], predictions[times]), rtol=1e-9, atol=1e-12)
    else:
        assert np.isnan(got)
    np.testing.assert_allclose(metric(labels[::-1], predictions[::-1], weights[::-1]), got, rtol=1e-12)


def test_float32_columns_are_summed_in_float64():
    labels = np.full(1_000_000, 1e4, np.float32)
    assert mse(labels, labels + np.float32(0.5)) == 0.25


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mse(np.array([0, np.nan]), np.zeros(2)), "Expected a finite label for every row, got nan in row 1"),
        (lambda: mae(np.zeros(2), np.array([np.inf, 0])), "finite prediction for every row, got inf in row 0"),
        (lambda: r2(np.zeros(2), np.zeros(3)), r"one label and one prediction a row, got shapes \(2,\) and \(3,\)"),
        (lambda: mse(np.zeros(2), np.zeros(2), np.array([1, -1])), "weights >= 0, got -1.0 in row 1"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
