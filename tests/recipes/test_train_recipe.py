"""Training from prepared data: what a run pins, and what it says when it cannot."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Literal

import pytest
import torch

from fullrank.config_json import decode
from fullrank.data.columns import DataError
from fullrank.data.corrections import append_labels
from fullrank.data.forget import forget
from fullrank.data.lineage import LineageError
from fullrank.data.partitions import PreparedData
from fullrank.data.prepare import prepare
from fullrank.data.simulate import SimulatedLog, SimulatorConfig
from fullrank.data.splits import AllTrain, ByHash
from fullrank.evaluation.evaluate import Metrics, RegressionMetrics
from fullrank.features.tables import TableOptimizer
from fullrank.rankers import DCNv2
from fullrank.rankers.field_front import EmbeddingConfig
from fullrank.recipes.recommend import recommend
from fullrank.recipes.train import load_ranker, predict, train_ranker
from fullrank.recipes.validation import BETTER
from fullrank.training.callbacks import Callback
from fullrank.training.config import TrainConfig
from fullrank.training.loop import TrainingError
from fullrank.training.objectives import MultiTask, ObjectiveConfig
from fullrank.training.schedule import Schedule
from fullrank.training.watch import WatchError

LOG = SimulatedLog(SimulatorConfig(rows=3_000, users=150, ads=80, campaigns=20, days=3, seed=4))
RANKER = DCNv2.Config(
    embedding=EmbeddingConfig(width=4, optimizer=TableOptimizer(semantics="rowwise_adagrad")),
    num_cross_layers=1,
    hidden=(8,),
    dropout=0.1,
)
TRAINING = TrainConfig(epochs=2, batch_size=100, checkpoint_every_steps=3)


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Tiny tensors gain nothing from threads, and lose much where tests share the cores with others."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    prepare(LOG.day(0), tmp_path / "data", split=ByHash(key="user", valid=0.1, test=0.1))
    return tmp_path / "data"


class _Interrupt(Callback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_step(self, ranker, report) -> None:
        if report.step == self.step:
            signal.raise_signal(signal.SIGINT)


def test_a_stopped_run_goes_on_with_the_rows_and_labels_it_began_with(data: Path, tmp_path: Path) -> None:
    whole = train_ranker(RANKER, PreparedData.open(data), tmp_path / "whole", TRAINING)
    half = train_ranker(RANKER, PreparedData.open(data), tmp_path / "half", TRAINING, callbacks=[_Interrupt(7)])
    assert not half.result.finished and half.result.step == 7
    prepare(LOG.day(1), data, split=AllTrain(), append=True)
    append_labels(LOG.late_labels(0), data)
    resumed = train_ranker(RANKER, PreparedData.open(data), tmp_path / "half", TRAINING)
    assert resumed.result.finished and resumed.result.loss == whole.result.loss
    for name, weight in whole.ranker.state_dict().items():
        assert torch.equal(weight, resumed.ranker.state_dict()[name]), name


def test_a_finished_run_is_finished_whoever_was_forgotten_since(data: Path, tmp_path: Path) -> None:
    training = replace(TRAINING, epochs=1)
    trained = train_ranker(RANKER, PreparedData.open(data), tmp_path / "run", training)
    half = {"path": tmp_path / "half", "training": training, "callbacks": [_Interrupt(2)]}
    train_ranker(RANKER, PreparedData.open(data), **half)
    user = PreparedData.open(data).transform.id_maps["user"]
    forget(data, user.key_of_id(user.first_key_id), runs=[tmp_path / "run", tmp_path / "half"])
    assert train_ranker(RANKER, PreparedData.open(data), tmp_path / "run", training).result == trained.result
    with pytest.raises(DataError, match="Start a new run"):
        train_ranker(RANKER, PreparedData.open(data), **half)


def test_another_data_set_is_refused_and_not_scored(data: Path, tmp_path: Path) -> None:
    trained = train_ranker(RANKER, PreparedData.open(data), tmp_path / "run", replace(TRAINING, epochs=1))
    other = SimulatedLog(replace(LOG.config, seed=9))
    prepare(other.day(0), tmp_path / "other", split=ByHash(key="user", valid=0.1, test=0.1))
    stranger = PreparedData.open(tmp_path / "other")
    with pytest.raises(LineageError, match="run"):
        predict(trained.run, trained.ranker, stranger, "test")
    with pytest.raises(LineageError, match="run"):
        recommend(trained.run, trained.ranker, stranger, 1)


def test_a_loaded_ranker_predicts_what_the_trained_one_did(data: Path, tmp_path: Path) -> None:
    opened = PreparedData.open(data)
    trained = train_ranker(RANKER, opened, tmp_path / "run", replace(TRAINING, epochs=1))
    trained.ranker.eval()
    there = predict(trained.run, trained.ranker, opened, "test")
    again = predict(trained.run, load_ranker(trained.run), opened, "test")
    assert there.logits_NK.tobytes() == again.logits_NK.tobytes() and len(there.logits_NK)


def test_a_task_no_objective_learns_is_named(data: Path, tmp_path: Path) -> None:
    opened = PreparedData.open(data)
    click, conversion = opened.schema.tasks
    opened.schema = replace(opened.schema, tasks=(click, replace(conversion, kind="multiclass", classes=3, parent="")))
    with pytest.raises(ValueError, match=r"multiclass task 'conversion'.*exclude='conversion'"):
        train_ranker(RANKER, opened, tmp_path / "run", TRAINING)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("choice", ["softmax", "pairwise"])
def test_losses_of_requests_are_stopped_and_resumed(data: Path, tmp_path: Path, choice: Literal["softmax"]) -> None:
    """Whole requests in a batch, early stopping and an average: order and end are those of an undisturbed run."""
    training = replace(
        TRAINING,
        checkpoint_every_steps=None,
        ema_decay=0.9,
        early_stop="click.user_auc",
        schedule=Schedule(decay="linear", warmup_steps=3),
    )
    objective, opened = ObjectiveConfig(binary=choice, weights={"conversion": 0.5}), PreparedData.open(data)
    whole = train_ranker(RANKER, opened, tmp_path / "whole", training, objective=objective)
    for step in (5, 14):
        half = train_ranker(
            RANKER, opened, tmp_path / "half", training, objective=objective, callbacks=[_Interrupt(step)]
        )
        assert half.result.step == step
    resumed = train_ranker(RANKER, opened, tmp_path / "half", training, objective=objective)
    assert resumed.result == replace(whole.result, seconds=resumed.result.seconds)
    for name, weight in whole.ranker.state_dict().items():
        assert torch.equal(weight, resumed.ranker.state_dict()[name]), name
    best = whole.result.best
    assert best is not None and best.value == whole.result.valid["click"]["user_auc"]
    found = predict(whole.run, load_ranker(whole.run), opened, "valid").metrics("click")
    assert found.user_auc == pytest.approx(best.value)
    stored = decode(MultiTask, whole.run.record.objective)
    assert stored == objective.build(whole.run.record.inputs.tasks) and stored.whole_requests


def test_a_number_is_learned_by_its_squared_error(data: Path, tmp_path: Path) -> None:
    opened = PreparedData.open(data)
    click, conversion = opened.schema.tasks
    opened.schema = replace(opened.schema, tasks=(replace(click, kind="regression"), replace(conversion, parent="")))
    training = replace(TRAINING, epochs=1, early_stop="click.mse")
    trained = train_ranker(RANKER, opened, tmp_path / "run", training)
    assert trained.result.best is not None and trained.result.best.value == trained.result.valid["click"]["mse"]
    found = predict(trained.run, trained.ranker, opened, "valid").regression_metrics("click")
    assert found.mse == pytest.approx(trained.result.best.value)


def test_a_metric_that_is_not_known_leaves_no_folder(data: Path, tmp_path: Path) -> None:
    training = replace(TRAINING, early_stop="click.acu")
    with pytest.raises(WatchError, match=r"click.auc, .*conversion.brier, got 'click.acu'. Did you .*'click.auc'"):
        train_ranker(RANKER, PreparedData.open(data), tmp_path / "run", training)
    assert not (tmp_path / "run").exists()


def test_a_warm_up_longer_than_the_run_leaves_no_folder(data: Path, tmp_path: Path) -> None:
    training = replace(TRAINING, schedule=Schedule(warmup_steps=10_000))
    with pytest.raises(TrainingError, match=r"a warm-up of less than all \d+ rows, got 1000000 rows"):
        train_ranker(RANKER, PreparedData.open(data), tmp_path / "run", training)
    assert not (tmp_path / "run").exists()


def test_every_metric_has_a_direction_or_none() -> None:
    """A metric that is added must be placed: better higher, better lower, or no score at all."""
    neither = {"rows", "unknown", "positives", "users", "users_skipped", "pcoc"}
    names = {field.name for kind in (Metrics, RegressionMetrics) for field in fields(kind)}
    assert names == neither | set(BETTER)


def test_recommendations_are_items_the_user_has_not_had(data: Path, tmp_path: Path) -> None:
    opened = PreparedData.open(data)
    trained = train_ranker(RANKER, opened, tmp_path / "run", replace(TRAINING, epochs=1))
    id_map = opened.transform.id_maps["user"]
    user = id_map.key_of_id(id_map.first_key_id)
    found = recommend(trained.run, trained.ranker, opened, user, k=5)
    assert found.known and found.events > 0 and len(found.items) == 5
    scores = [item.probability["click"] for item in found.items]
    assert scores == sorted(scores, reverse=True)
    code = id_map.codes_of_ids(torch.tensor([id_map.first_key_id]).numpy())[0]
    had = set()
    for block in opened.blocks("train") + opened.blocks("valid") + opened.blocks("test"):
        columns = opened.read_all(block)
        rows = columns.requests["@user"][columns.rows["@request"]] == code
        had |= set(opened.items.keys_of_ids(columns.rows["item"][rows]).to_pylist())
    assert had and not had & {item.key for item in found.items}
    stranger = recommend(trained.run, trained.ranker, opened, "never seen", k=3)
    assert not stranger.known and stranger.events == 0 and len(stranger.items) == 3
