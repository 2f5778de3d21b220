from dataclasses import dataclass

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

from fullrank.data.batch import Batch, Candidates, FeatureBlock, Labels, Requests
from fullrank.data.inputs import TaskInput
from fullrank.evaluation.evaluate import RegressionMetrics, evaluate, predict_split
from fullrank.evaluation.metrics import brier, ece, normalised_entropy

ROWS = 50
random = np.random.default_rng(3)
REQUEST_OF_ROW = np.sort(random.integers(0, 12, ROWS))
NUMBERS = random.normal(size=(ROWS, 1)).astype(np.float32)
VALUES = (random.random((ROWS, 2)) < 0.4).astype(np.float32)
KNOWN = random.random((ROWS, 2)) < 0.8
RATES = random.choice([1.0, 0.25], ROWS).astype(np.float32)
USERS = np.array([11, 11, 12, -(2**62), 13, 12, 0, 0, 14, 15, 16, 16])  # by request; 0: no user


@dataclass
class Output:
    logits: dict[str, Tensor]


class Linear(nn.Module):
    """Logits by one number; dropout makes the difference between the modes visible."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 2)
        self.dropout = nn.Dropout(0.5)

    def forward(self, batch: Batch) -> Output:
        logits_BK = self.dropout(self.layer(batch.candidates.features.numbers_nF))
        assert not torch.is_grad_enabled()
        return Output({"click": logits_BK[:, 0], "buy": logits_BK[:, 1].to(torch.bfloat16)})


class Rows:
    num_rows = ROWS

    def __init__(self, size: int = 8, labels: bool = True) -> None:
        self.size, self.labels = size, labels

    def epoch(self, epoch: int, start_row: int = 0):
        for start in range(start_row, ROWS, self.size):
            rows = slice(start, start + self.size)
            requests, row_of = np.unique(REQUEST_OF_ROW[rows], return_inverse=True)
            no_ids = torch.zeros(len(row_of), 0, dtype=torch.int64)
            rates = torch.from_numpy(RATES[rows])
            labels = Labels(torch.from_numpy(VALUES[rows]), torch.from_numpy(KNOWN[rows]), rates, rates, rates)
            yield Batch(
                Requests(
                    FeatureBlock(no_ids[: len(requests)], torch.zeros(len(requests), 0)),
                    (),
                    torch.from_numpy(USERS[requests]),
                    torch.from_numpy(requests * 1000),
                ),
                Candidates(FeatureBlock(no_ids, torch.from_numpy(NUMBERS[rows])), torch.from_numpy(row_of)),
                labels if self.labels else None,
            )


@pytest.fixture
def ranker():
    torch.manual_seed(0)
    return Linear()


def test_predictions_are_every_row_in_order_in_eval_mode(ranker):
    got = predict_split(ranker, Rows(), ("click", "buy"))
    with torch.no_grad():
        expected = ranker.layer(torch.from_numpy(NUMBERS)).numpy()
    np.testing.assert_allclose(got.logits_NK[:, 0], expected[:, 0], rtol=1e-6)
    np.testing.assert_allclose(got.logits_NK[:, 1], expected[:, 1], rtol=1e-2)  # came as bfloat16
    assert got.logits_NK.dtype == np.float32
    np.testing.assert_array_equal(got.labels_NK, VALUES)
    np.testing.assert_array_equal(got.known_NK, KNOWN)
    np.testing.assert_array_equal(got.user_N, USERS[REQUEST_OF_ROW])
    np.testing.assert_array_equal(got.time_N, REQUEST_OF_ROW * 1000)
    np.testing.assert_array_equal(got.sample_rate_N, RATES)


@pytest.mark.parametrize("training", [True, False])
def test_the_mode_and_the_random_state_are_left_as_they_were(ranker, training):
    ranker.train(training)
    before = torch.get_rng_state()
    evaluate(ranker, Rows(), ("click", "buy"))
    assert ranker.training is training and torch.equal(torch.get_rng_state(), before)
    with pytest.raises(ValueError, match="Expected batches with labels"):
        evaluate(ranker, Rows(labels=False), ("click", "buy"))
    assert ranker.training is training


def test_metrics_skip_and_count_rows_of_unknown_label(ranker):
    with torch.no_grad():
        logits = ranker.layer(torch.from_numpy(NUMBERS)).double().numpy()[:, 0]
    got = evaluate(ranker, Rows(), ("click", "buy"))
    known = KNOWN[:, 0]
    labels, logits = VALUES[known, 0], logits[known]
    p, weight = 1 / (1 + np.exp(-logits)), 1 / RATES[known].astype(float)
    assert list(got) == ["click", "buy"]
    click = got["click"]
    assert (click.rows, click.unknown, click.positives) == (known.sum(), ROWS - known.sum(), labels.sum())
    assert click.auc == pytest.approx(roc_auc_score(labels, logits))
    cross_entropy = -np.where(labels == 1, np.log(p), np.log(1 - p))
    assert click.log_loss == pytest.approx(np.average(cross_entropy, weights=weight), rel=1e-6)
    assert click.pcoc == pytest.approx((weight * p).sum() / (weight * labels).sum(), rel=1e-6)
    users = USERS[REQUEST_OF_ROW][known]
    assert click.users + click.users_skipped == len(set(users.tolist()) - {0})  # rows without a user belong to none


def test_batch_size_changes_no_metric(ranker):
    one, many = evaluate(ranker, Rows(1), ("click", "buy")), evaluate(ranker, Rows(ROWS), ("click", "buy"))
    assert one["click"].auc == many["click"].auc
    assert one["click"].log_loss == pytest.approx(many["click"].log_loss, rel=1e-6)


def test_a_split_without_rows_has_metrics_without_values(ranker):
    class Nothing:
        num_rows = 0

        def epoch(self, epoch: int, start_row: int = 0):
            return iter(())

    click = evaluate(ranker, Nothing(), ("click",))["click"]
    assert click.rows == 0 and np.isnan(click.auc) and np.isnan(click.log_loss)


def test_errors_name_the_task(ranker):
    with pytest.raises(ValueError, match=r"logits of task 'like', got those of \['click', 'buy'\]"):
        evaluate(ranker, Rows(), ("click", "like"))
    with pytest.raises(ValueError, match=r"each task of \('click',\), got 2 label columns"):
        evaluate(ranker, Rows(), ("click",))
    with torch.no_grad():
        ranker.layer.weight[1] = float("nan")
    with pytest.raises(ValueError, match=r"Task 'buy': Expected a score for every row, got nan in row 0"):
        evaluate(ranker, Rows(), ("click", "buy"))


def test_probability_metrics_undo_the_sample_rate(ranker):
    predictions = predict_split(ranker, Rows(), ("click", "buy"))
    known = KNOWN[:, 0]
    logits, labels, rates = predictions.logits_NK[known, 0], VALUES[known, 0], RATES[known]
    click = predictions.metrics("click")
    assert click.normalised_entropy == normalised_entropy(labels, logits, rates)
    assert click.ece == ece(labels, logits, rates) and click.brier == brier(labels, logits, rates)
    assert click.ece != ece(labels, logits)


def test_a_regression_task_has_errors_and_no_auc(ranker):
    tasks = (TaskInput(name="click"), TaskInput(name="buy", kind="regression"))
    predictions = predict_split(ranker, Rows(), tasks)
    assert predictions.tasks == ("click", "buy") and predictions.kind("buy") == "regression"
    got = evaluate(ranker, Rows(), tasks)["buy"]
    known = KNOWN[:, 1]
    error = predictions.logits_NK[known, 1].astype(float) - VALUES[known, 1]
    weights = 1 / RATES[known].astype(float)
    assert isinstance(got, RegressionMetrics) and (got.rows, got.unknown) == (known.sum(), ROWS - known.sum())
    assert got.mse == pytest.approx(np.average(error**2, weights=weights))
    assert got.mae == pytest.approx(np.average(abs(error), weights=weights))
    variance = np.cov(VALUES[known, 1], aweights=weights, ddof=0)
    assert got.r2 == pytest.approx(1 - got.mse / variance)
    half = predictions.rows(np.arange(20))
    assert half.regression_metrics("buy").rows == known[:20].sum() and half.kinds == predictions.kinds


def test_a_task_of_another_kind_is_said(ranker):
    predictions = predict_split(ranker, Rows(), (TaskInput(name="click"), TaskInput(name="buy", kind="regression")))
    with pytest.raises(ValueError, match="Expected a binary task, got regression task 'buy'"):
        predictions.metrics("buy")
    with pytest.raises(ValueError, match="Expected a regression task, got binary task 'click'"):
        predictions.regression_metrics("click")
    with pytest.raises(ValueError, match=r"Expected a task of \['click', 'buy'\], got 'clck'. Did you mean 'click'"):
        predictions.task_metrics("clck")
    with pytest.raises(ValueError, match=r"got multiclass task 'buy'.*exclude='buy'"):
        evaluate(ranker, Rows(), (TaskInput(name="click"), TaskInput(name="buy", kind="multiclass", classes=3)))
