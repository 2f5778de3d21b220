"""A run by slice, calibrated and not, as a program and as a command."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fullrank.cli import main
from fullrank.config_json import dumps
from fullrank.data.partitions import PreparedData
from fullrank.data.prepare import prepare
from fullrank.data.simulate import SimulatedLog, SimulatorConfig
from fullrank.data.splits import ByTime
from fullrank.evaluation.bootstrap import BootstrapConfig
from fullrank.evaluation.metrics import sigmoid
from fullrank.recipes.calibrate import FILE, calibrated, fit_calibration, load_calibration
from fullrank.recipes.evaluate_run import evaluate_run, slice_source
from fullrank.recipes.train import load_ranker, predict
from fullrank.training.run import Run

FEW = BootstrapConfig(replicates=5)
LOG = SimulatorConfig(rows=8_000, users=400, ads=80, campaigns=20, days=10, seed=6)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("measured")
    prepare(SimulatedLog(LOG), folder / "data", split=ByTime(valid=0.3, test=0.3))
    options = "--training.batch-size 256 --ranker.embedding.width 4 --ranker.hidden 8"
    assert command(folder, f"train dcnv2 --data {{0}}/data --out {{0}}/run {options}") == 0
    return folder


def command(folder: Path, words: str) -> int:
    return main([word.format(folder) for word in words.split()])


def opened(world: Path) -> tuple[Run, PreparedData]:
    return Run.open(world / "run"), PreparedData.open(world / "data")


def test_slices_add_up_to_the_whole(world):
    run, data = opened(world)
    found = evaluate_run(run, data, "test", by=["device", "position"], bootstrap=FEW)
    assert [(table.task, table.by) for table in found.slices] == [
        (task, by) for task in ("click", "conversion") for by in ("", "device", "position")
    ]
    assert found.predictions.logits_NK.tobytes() == predict(run, load_ranker(run), data, "test").logits_NK.tobytes()
    for table in found.slices:
        whole = found.tasks[table.task]
        assert sum(row.metrics.rows for row in table.rows) + table.hidden_rows == whole.rows
        assert len(table.rows) == {"": 1, "device": 3, "position": 4}[table.by]
    everything = found.slices[0].rows[0]
    assert everything.metrics == found.tasks["click"] and everything.intervals["auc"].value == found.tasks["click"].auc
    assert evaluate_run(run, data, "test", bootstrap=FEW).slices == ()


def test_requests_of_several_rows_are_ranked(world):
    run, data = opened(world)
    found = evaluate_run(run, data, "test")
    predictions = found.predictions
    assert predictions.request_N is not None and found.ranking["click"] == predictions.ranking("click")
    reciprocal = []
    for request in np.unique(predictions.request_N):
        mine = np.flatnonzero(predictions.request_N == request)
        labels = predictions.labels_NK[mine, 0][np.argsort(-predictions.logits_NK[mine, 0])]
        if labels.any() and len(mine) > 1:
            reciprocal.append(1 / (1 + np.argmax(labels)))
    assert found.ranking["click"].groups == len(reciprocal) > 50
    assert found.ranking["click"].mrr[10] == pytest.approx(np.mean(reciprocal), abs=2e-3)  # but for ties
    alone = predictions.rows(np.unique(predictions.request_N, return_index=True)[1])
    assert alone.ranking("click") is None and replace(predictions, request_N=None).ranking("click") is None


@pytest.mark.parametrize("method", ["platt", "isotonic"])
def test_what_is_fitted_on_valid_is_kept_and_applied(world, method):
    run, data = opened(world)
    valid = predict(run, load_ranker(run), data, "valid")
    source = slice_source(run, data, "valid")
    calibration = fit_calibration(run, valid, source, method=method, by="position")
    assert load_calibration(run) == calibration and calibration.data == data.state
    assert calibration.cut and calibration.cut.names == ("0", "1", "2", "3")
    assert calibration.of("conversion").rows == valid.known_NK[:, 1].sum()
    after = calibrated(run, valid, source)
    for task in ("click", "conversion"):
        assert after.metrics(task).pcoc == pytest.approx(1, abs=0.02)
        assert after.metrics(task).log_loss <= valid.metrics(task).log_loss + 1e-3
    cut = calibration.cut.slice_of(np.array([2.0, 9.0], np.float32))
    assert cut.tolist() == [2, -1]
    logits = valid.logits_NK[:2, 0]
    np.testing.assert_allclose(
        calibration.apply("click", logits, cut)[1], sigmoid(calibration.of("click").curve.logits(logits))[1]
    )
    measured = evaluate_run(run, data, "valid", use_calibration=True, bootstrap=FEW)
    assert measured.tasks["click"] == after.metrics("click")


def test_the_commands_print_what_the_json_holds(world, capsys):
    assert command(world, "calibrate {0}/run --data {0}/data --by device --out {0}/c --json {0}/c.json") == 0
    printed = capsys.readouterr().out
    told = json.loads((world / "c.json").read_text())
    assert set(told) == {"run", "data", "calibration", "test"}
    assert "click by platt, fitted on 2,400 valid rows" in printed
    assert (world / "c" / "calibration.txt").read_text() in printed
    assert [(line["task"], line["by"]) for line in told["test"]] == [
        (task, by) for task in ("click", "conversion") for by in ("", "device", "device", "device")
    ]
    first = told["test"][0]
    line = next(line for line in printed.splitlines() if line.split()[:2] == ["click", "all"])
    shown = [f"{first[when][name]:.4f}" for name in ("pcoc", "ece", "log_loss") for when in ("before", "after")]
    assert line.split()[3:] == shown and shown[0] != shown[1]
    capsys.readouterr()

    assert command(world, "evaluate {0}/run --data {0}/data --calibrated --json {0}/e.json") == 0
    told = json.loads((world / "e.json").read_text())
    ranking = told["tasks"]["click"].pop("ranking")
    assert told["calibrated"] and told["tasks"]["click"] == first["after"]
    line = next(line for line in capsys.readouterr().out.splitlines() if line.split()[1:2] == [str(ranking["groups"])])
    assert line.split()[2] == f"{ranking['ndcg']['1']:.4f}" and line.split()[-1] == f"{ranking['mrr']['10']:.4f}"
    words = "evaluate {0}/run --data {0}/data --by cold_user history.clicked user --replicates 5 --json {0}/e.json"
    capsys.readouterr()
    assert command(world, words) == 0
    printed = capsys.readouterr().out
    told = json.loads((world / "e.json").read_text())
    del told["tasks"]["click"]["ranking"]
    assert "calibrated" not in told and told["tasks"]["click"] == first["before"]
    assert [table["by"] for table in told["slices"]] == ["", "cold_user", "history.clicked", "user"] * 2
    assert "click by cold_user" in printed and "not shown)" in printed
    one = told["slices"][1]["rows"][0]
    assert set(one["intervals"]) == {"auc", "user_auc", "log_loss", "pcoc"} and one["users"] >= 20
    assert f"{one['intervals']['auc']['low']:.4f}–{one['intervals']['auc']['high']:.4f}" in printed


def test_a_task_whose_labels_are_to_come_is_left_as_it_is(world):
    run, data = opened(world)
    source = slice_source(run, data, "valid")
    valid = predict(run, load_ranker(run), data, "valid")
    clicks = replace(valid, known_NK=valid.known_NK & [True, False])
    calibration = fit_calibration(run, clicks, source)
    assert [each.task for each in calibration.tasks] == ["click"]
    np.testing.assert_array_equal(calibrated(run, valid, source).logits_NK[:, 1], valid.logits_NK[:, 1])
    nothing = replace(valid, known_NK=valid.known_NK & False)
    with pytest.raises(ValueError, match=r"Task 'click': Expected positives and negatives.*got 0 positives in 0 rows"):
        fit_calibration(run, nothing, source)


def test_what_is_missing_or_stale_is_said(world, tmp_path, capsys):
    shutil.copytree(world / "run", tmp_path / "run")
    (tmp_path / "run" / FILE).unlink(missing_ok=True)
    (tmp_path / "data").symlink_to(world / "data")
    assert command(tmp_path, "evaluate {0}/run --data {0}/data --calibrated") == 2
    assert "has no calibration.json yet: `fullrank calibrate" in capsys.readouterr().err
    assert command(tmp_path, "evaluate {0}/run --data {0}/data --by devise") == 2
    assert "Did you mean 'device'?" in capsys.readouterr().err
    assert command(tmp_path, "calibrate {0}/run --data {0}/data --by day") == 2
    assert "no later row is of a day seen before" in capsys.readouterr().err
    assert command(tmp_path, "calibrate {0}/run --data {0}/data") == 0
    run = Run.open(tmp_path / "run")
    stale = replace(load_calibration(run), step=1)
    (run.path / FILE).write_text(dumps(stale), encoding="utf-8")
    capsys.readouterr()
    assert command(tmp_path, "evaluate {0}/run --data {0}/data --calibrated") == 2
    assert "it is of step 1: the run went on since. Calibrate it again" in capsys.readouterr().err


def test_after_a_user_was_forgotten_a_run_is_measured_on_the_others(world, tmp_path):
    shutil.copytree(world / "data", tmp_path / "data")
    shutil.copytree(world / "run", tmp_path / "run")
    run, before = Run.open(tmp_path / "run"), PreparedData.open(tmp_path / "data")
    user = next(SimulatedLog(LOG).chunks()).records["user"][0].as_py()
    assert command(tmp_path, f"forget {user} --data {{0}}/data --runs {{0}}/run") == 0
    data = PreparedData.open(tmp_path / "data")
    assert data.state != before.state  # a partition was written anew
    found = evaluate_run(run, data, "test", by=["cold_user"], bootstrap=FEW)
    assert found.tasks["click"].rows == data.num_rows("test")
    for verb in ("calibrate", "report"):
        assert command(tmp_path, f"{verb} {{0}}/run --data {{0}}/data") == 0


def test_only_binary_tasks_are_calibrated(world):
    run, data = opened(world)
    valid = predict(run, load_ranker(run), data, "valid")
    numbers = replace(valid, kinds=("regression", "regression"))
    with pytest.raises(ValueError, match="Expected a binary task to calibrate"):
        fit_calibration(run, numbers, slice_source(run, data, "valid"))
