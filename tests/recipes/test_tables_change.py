"""What compact tables change, as a program and as commands, against the scorer."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from fullrank.cli import main
from fullrank.data.loader import Loader
from fullrank.data.partitions import PreparedData
from fullrank.data.prepare import prepare
from fullrank.data.simulate import SimulatedLog, SimulatorConfig
from fullrank.data.source import write_parquet
from fullrank.data.splits import ByTime
from fullrank.evaluation.evaluate import RegressionMetrics
from fullrank.evaluation.metrics import auc, log_loss
from fullrank.recipes.tables_change import tables_change
from fullrank.recipes.train import load_ranker, predict
from fullrank.schema import Task
from fullrank.serving.scorer import Scorer
from fullrank.training.run import Run

LOG = SimulatedLog(SimulatorConfig(rows=2_000, users=100, ads=80, campaigns=20, days=2, seed=4))
WIDTH = 8


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stored")
    prepare(LOG, folder / "data", split=ByTime(valid=0.0, test=0.4))
    write_parquet(LOG.day(1), folder / "rows.parquet")
    options = f"--training.batch-size 128 --ranker.embedding.width {WIDTH} --ranker.hidden 8 --exclude conversion"
    assert command(folder, f"train dcnv2 --data {{0}}/data --out {{0}}/run {options}") == 0
    return folder


def command(folder: Path, words: str) -> int:
    return main([word.format(folder) for word in words.split()])


def test_evaluate_says_what_they_change(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = "evaluate {0}/run --data {0}/data --tables bfloat16 int8 --json {0}/found.json"
    assert command(world, words) == 0
    lines = capsys.readouterr().out.rpartition("\n\n")[2].splitlines()
    assert "".join(lines[0].split()) == "tasktablesbytesauclog_lossaucchangelargestlogitchange"
    found = json.loads((world / "found.json").read_text())["tables"]
    assert [(row["task"], row["tables"]) for row in found] == [
        ("click", "float32"),
        ("click", "bfloat16"),
        ("click", "int8"),
    ]
    assert [line.split()[:2] for line in lines[1:]] == [["click", row["tables"]] for row in found]

    run, data = Run.open(world / "run"), PreparedData.open(world / "data")
    batch = next(iter(Loader(data.pinned(run.transform()), run.record.inputs, "test", batch_size=10_000).epoch(0)))
    assert batch.labels is not None
    label_B, ranker = batch.labels.values_BK[:, 0].numpy(), load_ranker(run)
    rows = sum(spec.num_rows for spec in ranker.tables.plan.specs)
    whole_B = Scorer(ranker)(batch)["click"].numpy()
    for row, bytes_a_row in zip(found, (4 * WIDTH, 2 * WIDTH, WIDTH + 4), strict=True):
        logit_B = Scorer(ranker, tables=row["tables"])(batch)["click"].numpy()
        assert row["table_bytes"] == rows * bytes_a_row
        assert row["metrics"]["auc"] == pytest.approx(auc(label_B, logit_B), abs=1e-5)
        assert row["metrics"]["log_loss"] == pytest.approx(log_loss(label_B, logit_B), abs=1e-6)
        assert row["change"] == row["metrics"]["auc"] - found[0]["metrics"]["auc"]
        assert row["largest_logit_change"] == pytest.approx(np.abs(logit_B - whole_B).max(), abs=1e-6)
    assert 0 == found[0]["largest_logit_change"] < found[1]["largest_logit_change"] < found[2]["largest_logit_change"]


def test_a_regression_task_has_its_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = SimulatedLog(SimulatorConfig(rows=600, users=40, ads=80, campaigns=20, days=1, seed=4))
    log.schema = replace(log.schema, tasks=(Task(name="offer", kind="regression", column="bid"),))
    prepare(log, tmp_path / "data", split=ByTime(valid=0.0, test=0.4))
    assert command(tmp_path, "train lr --data {0}/data --out {0}/run --training.batch-size 128") == 0
    capsys.readouterr()
    run, data = Run.open(tmp_path / "run"), PreparedData.open(tmp_path / "data")
    whole = predict(run, load_ranker(run), data, "test")
    before, after = tables_change(run, data, "test", whole, ["bfloat16"])
    assert isinstance(before.metrics, RegressionMetrics) and isinstance(after.metrics, RegressionMetrics)
    assert before.change == 0 != after.change == after.metrics.mse - before.metrics.mse
    assert command(tmp_path, "evaluate {0}/run --data {0}/data --tables bfloat16") == 0
    shown = capsys.readouterr().out.rpartition("\n\n")[2].splitlines()
    assert "".join(shown[0].split()) == "tasktablesbytesmsemaemsechangelargestlogitchange"
    assert shown[2].split()[:4] == ["offer", "bfloat16", f"{after.table_bytes:,}", f"{after.metrics.mse:.4f}"]


def test_predict_and_recommend_with_them(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scores, probabilities = {}, {}
    user = pq.read_table(world / "rows.parquet")["user"][0]
    for tables in ("float32", "bfloat16", "int8"):
        out = f"--out {{0}}/{tables}.parquet --tables {tables}"
        assert command(world, f"predict {{0}}/run {{0}}/rows.parquet --data {{0}}/data {out}") == 0
        scores[tables] = pq.read_table(world / f"{tables}.parquet")["click"].to_numpy()
        options = f"--user {user} --k 20 --tables {tables} --json {{0}}/{tables}.json"
        assert command(world, f"recommend {{0}}/run --data {{0}}/data {options}") == 0
        items = json.loads((world / f"{tables}.json").read_text())["items"]
        probabilities[tables] = {item["key"]: item["probability"]["click"] for item in items}
    off = {tables: np.abs(scores[tables] - scores["float32"]).max() for tables in scores}
    assert 0 < off["bfloat16"] < off["int8"] < 5e-3
    for tables in ("bfloat16", "int8"):
        both = probabilities[tables].keys() & probabilities["float32"].keys()
        changes = [abs(probabilities[tables][key] - probabilities["float32"][key]) for key in both]
        assert len(both) >= 15 and 0 < max(changes) < 5e-3
    capsys.readouterr()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("evaluate {0}/run --data {0}/data --tables int8 --calibrated", "either --tables or --calibrated"),
        ("evaluate {0}/run --data {0}/data --tables float32", "float32"),
        ("predict {0}/run {0}/rows.parquet --tables int4", "int4"),
    ],
)
def test_what_cannot_be_is_an_error(
    world: Path, capsys: pytest.CaptureFixture[str], words: str, message: str
) -> None:
    try:
        code = command(world, words)
    except SystemExit as exit:  # of the reader of arguments
        code = exit.code
    assert code == 2 and message in capsys.readouterr().err
