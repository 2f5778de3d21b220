import signal
import sys
from dataclasses import asdict, replace

import pytest
import torch
from test_loop import Watching, send
from tiny_world import (
    OBJECTIVE,
    SCORES,
    TASKS,
    TinyLoader,
    TinyRanker,
    all_tensors,
    assert_same_bits,
    create_run,
    lines_of,
)

from fullrank.data.inputs import TaskInput
from fullrank.evaluation.evaluate import evaluate
from fullrank.training.callbacks import Best
from fullrank.training.checkpoint import CheckpointError
from fullrank.training.config import TrainConfig
from fullrank.training.loop import TrainingError, train
from fullrank.training.objectives import ObjectiveConfig
from fullrank.training.schedule import Schedule
from fullrank.training.watch import WatchError

CONFIG = TrainConfig(epochs=9, batch_size=20, lr=0.02, log_every_steps=1, early_stop="click.auc")
PLAIN = TinyRanker.Config(plain=True)
BARS = TrainConfig(  # FuxiCTR's recipe for Frappe and MovieLens
    epochs=100, batch_size=4096, lr=1e-3, clip_norm=10.0, early_stop="click.auc", patience=2, min_improvement=1e-6,
    schedule=Schedule(decay="plateau", metric="click.auc", factor=0.1, floor=1e-3),
)  # fmt: skip


class Told:
    """A validation that says what it is told, one value an epoch, and remembers the weights it saw."""

    def __init__(self, values, metric="auc"):
        self.values, self.metric, self.seen = list(values), metric, []

    def __call__(self, ranker):
        value = self.values[len(self.seen)]
        self.seen.append({name: tensor.clone() for name, tensor in ranker.state_dict().items()})
        return {"click": {self.metric: value, "rows": len(self.seen)}}


def fit(run, validate, config=CONFIG, ranker=None, **options):
    loader = TinyLoader(100, batch_size=config.batch_size)
    ranker = ranker or TinyRanker(PLAIN)
    return train(ranker, loader, OBJECTIVE, config, run, validate=validate, scores=SCORES, **options)


def fresh(run, seed=7):
    """A ranker that has what the run gives to whoever uses it."""
    ranker = TinyRanker(PLAIN, seed=seed)
    run.load_weights(ranker)
    return ranker


@pytest.mark.parametrize(
    ("metric", "values", "patience", "kept", "ended"),
    [
        ("auc", [0.5, 0.7, 0.6, 0.69], 2, 2, "early_stop"),
        ("auc", [0.5, 0.7, 0.6, 0.71, 0.7, 0.7], 2, 4, "early_stop"),
        ("log_loss", [0.5, 0.7, 0.6], 2, 1, "early_stop"),  # lower is better
        ("log_loss", [0.5, 0.4, 0.4], 1, 2, "early_stop"),  # the same is no improvement
        ("auc", [0.1 * k for k in range(9)], 2, 9, "epochs"),
        ("auc", [0.5, 0.9, *[0.6] * 7], 20, 2, "epochs"),  # all epochs are done, and still the best is kept
    ],
)
def test_the_best_weights_are_kept_and_restored(tmp_path, metric, values, patience, kept, ended):
    config = replace(CONFIG, early_stop=f"click.{metric}", patience=patience)
    run, told, ranker = create_run(tmp_path / "a", config), Told(values, metric), TinyRanker(PLAIN)
    result = fit(run, told, config, ranker)
    assert len(told.seen) == len(values) == result.epoch and result.step == 5 * len(values)
    best = Best(metric=f"click.{metric}", value=values[kept - 1], step=5 * kept, epoch=kept)
    assert (result.finished, result.ended, result.best) == (True, ended, best)
    assert result.valid == {"click": {metric: values[kept - 1], "rows": kept}}  # of the weights it ends with
    for found in (ranker, fresh(run)):
        assert_same_bits(told.seen[kept - 1], found.state_dict())
    assert run.result() == result
    again = TinyRanker(PLAIN, seed=5)
    assert fit(run, told, config, again) == result  # a finished run is not trained again
    assert_same_bits(told.seen[kept - 1], again.state_dict())


def test_an_improvement_that_is_too_small_is_none(tmp_path):
    config = replace(CONFIG, min_improvement=0.05)
    told = Told([0.5, 0.54, 0.56, 0.60, 0.58])
    result = fit(create_run(tmp_path / "a", config), told, config)
    assert result.best is not None and (result.best.epoch, result.epoch) == (3, 5)  # 0.54 waits, 0.56 > 0.5 + 0.05


def test_the_published_recipe(tmp_path):
    """A tenth of the rate whenever the AUC of an epoch does not improve, the end after two in a row, the best kept."""
    config = replace(BARS, batch_size=20)
    told = Told([0.7, 0.8, 0.79, 0.81, 0.80, 0.82, 0.82 + 5e-7, 0.8])
    run = create_run(tmp_path / "a", config)
    result = fit(run, told, config)
    assert (result.ended, result.epoch) == ("early_stop", 8) and result.best is not None and result.best.epoch == 6
    rates = [line["lr"] for line in lines_of(run) if "lr" in line and line["rows"] % 100 == 0]
    assert rates == pytest.approx([1e-3, 1e-3, 1e-3, 1e-4, 1e-4, 1e-5, 1e-5, 1e-6])
    longer = replace(config, patience=4)
    told = Told([0.7, *[0.6] * 4])
    fit(run := create_run(tmp_path / "b", longer), told, longer)
    rates = [line["lr"] for line in lines_of(run) if "lr" in line and line["rows"] % 100 == 0]
    assert rates == pytest.approx([1e-3, 1e-3, 1e-4, 1e-5, 1e-6])


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"early_stop": "click.auk"}, r"early_stop to be one of click.auc, .*log_loss, got 'click.auk'. Did you mean"),
        ({"schedule": Schedule(decay="plateau", metric="like.auc")}, "Expected schedule.metric to be one of click.auc"),
        ({"validate_every_epochs": None}, "a validation to measure early_stop 'click.auc' at, got none in 9 epochs"),
        ({"validate_every_epochs": 10}, "set `validate_every_epochs` or `validate_every_steps`"),
    ],
)
def test_what_cannot_be_gone_by_is_an_error_before_anything_is_trained(tmp_path, config, message):
    config, watching = replace(CONFIG, **config), Watching()
    with pytest.raises(WatchError, match=message):
        fit(create_run(tmp_path / "a", config), Told([0.5]), config, callbacks=(watching,))
    assert not watching.reports
    with pytest.raises(WatchError, match=r"Expected validation rows to measure early_stop 'click.auc' on, got none"):
        train(TinyRanker(), TinyLoader(100, batch_size=20), OBJECTIVE, CONFIG, create_run(tmp_path / "b", CONFIG))


def test_where_no_clock_strikes_the_end_is_validated(tmp_path):
    config = replace(CONFIG, epochs=2, validate_every_epochs=None, validate_every_steps=1000)
    run = create_run(tmp_path / "a", config)
    result = fit(run, Told([0.6]), config)
    assert result.finished and result.best == Best(metric="click.auc", value=0.6, step=10, epoch=2)
    assert [line["step"] for line in lines_of(run) if "valid" in line] == [10]


def test_a_metric_that_is_not_defined_cannot_be_gone_by(tmp_path):
    def validate(ranker):
        return {"click": {"auc": float("nan"), "log_loss": 0.5}, "buy": {"auc": None}}

    with pytest.raises(WatchError, match=r"number for click.auc, got nan: .* Go by one of click.log_loss\."):
        fit(create_run(tmp_path / "a", CONFIG), validate)


def test_a_stop_in_the_validation_that_ends_it_is_resumed_to_the_same_end(tmp_path):
    class StopsThere(Watching):
        def on_validate(self, ranker, step, metrics):
            if step == 16:  # no checkpoint was due: the one of the stop knows of this validation
                signal.raise_signal(signal.SIGTERM)

    values, config = [0.5, 0.7, 0.6, 0.69], replace(CONFIG, validate_every_epochs=None, validate_every_steps=4)
    undisturbed, run = create_run(tmp_path / "a", config), create_run(tmp_path / "b", config)
    whole = fit(undisturbed, Told(values), config)
    stopped = fit(run, Told(values), config, callbacks=(StopsThere(),))
    assert (stopped.finished, stopped.ended, stopped.best) == (False, "signal", None)
    ranker, watching = TinyRanker(PLAIN, seed=3), Watching()
    resumed = fit(run, Told([]), config, ranker, callbacks=(watching,))  # nothing is validated or trained any more
    assert not watching.reports and resumed == replace(whole, seconds=resumed.seconds)
    assert resumed.best == Best(metric="click.auc", value=0.7, step=8, epoch=2)
    assert_same_bits(fresh(undisturbed).state_dict(), ranker.state_dict())


def test_a_stopped_run_remembers_how_long_it_waited(tmp_path):
    values = [0.5, 0.7, 0.6, 0.65, 0.69, 0.69]
    config = replace(CONFIG, patience=3, ema_decay=0.7, schedule=Schedule(decay="cosine", warmup_steps=4))
    undisturbed, run = create_run(tmp_path / "a", config), create_run(tmp_path / "b", config)
    whole = fit(undisturbed, Told(values), config)
    for step in (8, 17, 23):
        part = fit(run, Told(_after(values, run)), config, callbacks=(send(signal.SIGINT, step),))
        assert not part.finished
    resumed = fit(run, Told(_after(values, run)), config)
    assert resumed == replace(whole, seconds=resumed.seconds, valid=resumed.valid) and resumed.ended == "early_stop"
    assert_same_bits(all_tensors(undisturbed), all_tensors(run))
    assert_same_bits(fresh(undisturbed).state_dict(), fresh(run).state_dict())


def _after(values, run):
    """What is still to be told to a run that is taken up."""
    checkpoint = run.latest_checkpoint()
    return values[checkpoint.position.validated_step // 5 if checkpoint else 0 :]


def test_damaged_best_weights_are_noticed(tmp_path):
    run = create_run(tmp_path / "a", CONFIG)
    fit(run, Told([0.5, 0.7, 0.6, 0.69]))
    file = run.path / "checkpoints" / "best" / "dense.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    with pytest.raises(CheckpointError, match=r"best.dense\.safetensors is damaged"):
        fresh(run)


def test_an_objective_of_whole_requests_needs_such_a_loader(tmp_path):
    objective = ObjectiveConfig(binary="softmax").build([TaskInput(name=name) for name in TASKS])
    config = replace(CONFIG, early_stop="")
    with pytest.raises(TrainingError, match="a loader with whole_requests=True"):
        train(TinyRanker(), TinyLoader(100, batch_size=20), objective, config, create_run(tmp_path / "a", config))


def test_the_bar_shows_the_metric_and_what_was_kept(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    fit(create_run(tmp_path / "a", CONFIG), Told([0.5, 0.7, 0.6, 0.69]))
    bar = capsys.readouterr().err
    assert "click.auc 0.6000 (best 0.7000, epoch 2)" in bar
    assert "stopped early, kept epoch 2, click.auc 0.7000" in bar.rpartition("train:")[2]


def test_a_validation_of_real_metrics(tmp_path):
    """The weights that are kept have the metrics that the result says."""

    def validate(ranker):
        valid = TinyLoader(40, batch_size=16, shuffle=False)
        return {task: asdict(metrics) for task, metrics in evaluate(ranker, valid, TASKS).items()}

    run = create_run(tmp_path / "a", replace(CONFIG, ema_decay=0.9))
    result = fit(run, validate, run.record.train)
    assert result.best is not None and torch.isfinite(torch.tensor(result.loss))
    assert validate(fresh(run))["click"]["auc"] == result.best.value == result.valid["click"]["auc"]
