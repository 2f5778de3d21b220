"""Training from prepared data: what a run pins, and what it says when it cannot."""

from __future__ import annotations

import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from fullrank.data.corrections import append_labels
from fullrank.data.lineage import LineageError
from fullrank.data.partitions import PreparedData
from fullrank.data.prepare import prepare
from fullrank.data.simulate import SimulatedLog, SimulatorConfig
from fullrank.data.splits import AllTrain, ByHash
from fullrank.features.tables import TableOptimizer
from fullrank.rankers import DCNv2
from fullrank.rankers.field_front import EmbeddingConfig
from fullrank.recipes.recommend import recommend
from fullrank.recipes.train import load_ranker, predict, train_ranker
from fullrank.training.callbacks import Callback
from fullrank.training.config import TrainConfig

LOG = SimulatedLog(SimulatorConfig(rows=3_000, users=150, ads=80, campaigns=20, days=3, seed=4))
RANKER = DCNv2.Config(
    embedding=EmbeddingConfig(width=4, optimizer=TableOptimizer(semantics="rowwise_adagrad")),
    num_cross_layers=1,
    hidden=(8,),
    dropout=0.1,
)
TRAINING = TrainConfig(epochs=2, batch_size=100, checkpoint_every_steps=3)


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
