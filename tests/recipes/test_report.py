"""A run's report: what it finds weak, what it hides, and that its page stands alone."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from fullrank.cli import main
from fullrank.data.partitions import PreparedData
from fullrank.data.prepare import prepare
from fullrank.data.simulate import SimulatedLog, SimulatorConfig
from fullrank.data.source import LogChunk, LogSource, fingerprint_of
from fullrank.data.splits import AllTrain, ByHash
from fullrank.evaluation.bootstrap import Interval
from fullrank.evaluation.evaluate import Metrics
from fullrank.evaluation.slice_metrics import SliceRow, SliceTable
from fullrank.rankers import DCNv2
from fullrank.rankers.field_front import EmbeddingConfig
from fullrank.recipes.popularity import Popularity
from fullrank.recipes.report import compute_report, slices_worth_a_look, weak_slices
from fullrank.recipes.report_page import write_report
from fullrank.recipes.train import train_ranker
from fullrank.schema import KeySpace, Roles, Schema, Task
from fullrank.training.config import TrainConfig
from fullrank.training.learning_curve import compute_learning_curve
from fullrank.training.objectives import ObjectiveConfig
from fullrank.training.run import Run

LOG = SimulatedLog(SimulatorConfig(rows=8_000, users=300, ads=120, campaigns=20, days=3, seed=6))


@dataclass
class Log:
    """A log in memory."""

    table: pa.Table
    schema: Schema
    events: Mapping[str, LogSource] = field(default_factory=dict)
    name: str = "table"

    def chunks(self) -> Iterator[LogChunk]:
        for batch in self.table.to_batches():
            yield LogChunk(batch, "table.parquet", 0)

    def fingerprint(self) -> str:
        return fingerprint_of([str(self.table.to_pydict()).encode()])


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("report")
    prepare(LOG, home / "data", split=ByHash(key="user", valid=0.2, test=0.3))
    config = DCNv2.Config(embedding=EmbeddingConfig(width=4), num_cross_layers=1, hidden=(8,))
    training = TrainConfig(batch_size=256, checkpoint_every_steps=None)
    train_ranker(config, PreparedData.open(home / "data"), home / "run", training)
    return home


def table(by: str, *rows: tuple[str, int, float, float]) -> SliceTable:
    """(slice, rows, AUC, PCOC), each known to ± 0.01."""
    return SliceTable(
        by=by,
        task="click",
        hidden=0,
        hidden_rows=0,
        rows=tuple(
            SliceRow(
                slice=name,
                users=50,
                metrics=Metrics(
                    rows=count, unknown=0, positives=10, auc=auc, user_auc=auc, users=50, users_skipped=0,
                    log_loss=0.3, normalised_entropy=0.9, pcoc=pcoc, ece=0.0, brier=0.1,
                ),
                intervals={
                    "auc": Interval(value=auc, low=auc - 0.01, high=auc + 0.01),
                    "pcoc": Interval(value=pcoc, low=pcoc - 0.01, high=pcoc + 0.01),
                },
            )
            for name, count, auc, pcoc in rows
        ),
    )  # fmt: skip


def test_weak_is_what_chance_does_not_explain() -> None:
    whole = table("", ("all", 1000, 0.80, 1.05))
    slices = table(
        "device",
        ("as good", 400, 0.795, 1.05),  # inside its interval
        ("worse", 300, 0.70, 1.05),
        ("small and worse", 30, 0.70, 1.05),
        ("promises too much", 200, 0.80, 1.50),
        ("nearer to 1 than the whole", 70, 0.80, 1.00),
    )
    found = weak_slices([whole, slices])
    assert [(weak.slice, weak.metric) for weak in found] == [
        ("promises too much", "pcoc"), ("worse", "auc"), ("small and worse", "auc"),
    ]  # fmt: skip
    assert found[1].loss == pytest.approx(0.1 * 0.3**0.5) and found[1].reference == 0.80
    off = table("", ("all", 1000, 0.80, 0.90))
    around = table("device", ("nearer, on the other side", 300, 0.8, 1.05), ("as far, there", 300, 0.8, 1.115))
    farther = table("device", ("farther, there", 300, 0.8, 1.2), ("all wrong", 300, 0.0, 0.90))
    assert weak_slices([off, around]) == ()
    assert [weak.slice for weak in weak_slices([off, farther])] == ["all wrong", "farther, there"]
    assert weak_slices([slices]) == ()  # nothing to compare with


def test_slices_are_chosen_from_the_schema(made: Path) -> None:
    data = PreparedData.open(made / "data")
    found = compute_report(Run.open(made / "run"), data)
    chosen = slices_worth_a_look(data, found.profile)
    assert chosen[:3] == ("day", "cold_user", "cold_item")
    assert {"position", "history.clicked", "segment"} <= set(chosen) and "user" not in chosen
    assert {table.by for table in found.slices} == {"", *chosen}
    assert set(found.tasks) == set(found.popularity) == {"click", "conversion"}
    assert found.tasks["click"].rows == found.popularity["click"].rows == found.profile.splits[2].rows
    assert found.tasks["conversion"].rows == found.profile.labels[5].known < found.tasks["click"].rows


def test_the_page_stands_alone_and_names_nobody(made: Path, tmp_path: Path, capsys) -> None:
    page, told = tmp_path / "page.html", tmp_path / "report.json"
    words = ["report", str(made / "run"), "--data", str(made / "data"), "--out", str(page), "--json", str(told)]
    assert main(words) == 0
    assert str(page) in capsys.readouterr().out
    text = page.read_text()
    assert text.count("<figure") >= 4 and "Where is it weak?" in text and "fullrank compare" in text
    assert not re.search(r'(src|href)="(?!#)', text.replace("xlink:href", "")), "something is loaded from elsewhere"
    users = {str(user) for chunk in LOG.chunks() for user in chunk.records["user"].to_pylist()}
    told_text = told.read_text()
    assert not [user for user in users if user in text or user in told_text]
    found = json.loads(told_text)
    assert {"tasks", "popularity", "slices", "weak", "splits", "labels", "features"} <= set(found)
    assert found["tasks"]["click"]["rows"] == found["splits"][2]["rows"]


def test_a_calibration_is_shown_beside_what_was_trained(made: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(made / "run", tmp_path / "run")
    assert main(["calibrate", str(tmp_path / "run"), "--data", str(made / "data")]) == 0
    found = compute_report(Run.open(tmp_path / "run"), PreparedData.open(made / "data"), by=("device",))
    assert found.after is not None
    text = write_report(found, tmp_path / "page.html").read_text()
    assert "calibrated" in text and "click by device" in text and "click by day" not in text


def test_an_unknown_slice_is_said_with_the_nearest(made: Path, capsys) -> None:
    assert main(["report", str(made / "run"), "--data", str(made / "data"), "--by", "devise"]) == 2
    assert "Did you mean 'device'" in capsys.readouterr().err


def test_the_page_says_which_rows_it_is_about(made: Path, tmp_path: Path) -> None:
    run, data = Run.open(made / "run"), PreparedData.open(made / "data")
    for split, words in (("train", "It learned from rows of this split"), ("test", "No row of that split was trained")):
        text = write_report(compute_report(run, data, split, by=("device",)), tmp_path / "page.html").read_text()
        assert words in text and (split == "test") == ("No row of that split" in text)
        assert "BinaryCrossEntropy(undo_sample_rate=False)" in text


def test_a_report_of_data_that_all_train_or_have_no_binary_task(tmp_path: Path) -> None:
    log = SimulatedLog(SimulatorConfig(rows=600, users=50, ads=80, campaigns=20, days=2, seed=4))
    log.schema = replace(log.schema, tasks=(Task(name="offer", kind="regression", column="bid"),))
    log.schema = replace(log.schema, histories=log.schema.histories[:1])
    log.schema = replace(log.schema, histories=(replace(log.schema.histories[0], where=""),))
    prepare(log, tmp_path / "data", split=AllTrain())
    config = DCNv2.Config(embedding=EmbeddingConfig(width=4), num_cross_layers=1, hidden=(8,))
    train_ranker(config, PreparedData.open(tmp_path / "data"), tmp_path / "run", TrainConfig(batch_size=256))
    assert main(["report", str(tmp_path / "run"), "--data", str(tmp_path / "data")]) == 0
    assert "fullrank compare" in (tmp_path / "run" / "report.html").read_text()


def test_keys_are_those_the_run_knew(tmp_path: Path) -> None:
    log = SimulatedLog(SimulatorConfig(rows=900, users=200, ads=80, campaigns=20, days=2, seed=4))
    prepare(log.day(0), tmp_path / "data", split=ByHash(key="user", valid=0.1, test=0.3))
    config = DCNv2.Config(embedding=EmbeddingConfig(width=4), num_cross_layers=1, hidden=(8,))
    train_ranker(config, PreparedData.open(tmp_path / "data"), tmp_path / "run", TrainConfig(batch_size=256))
    prepare(log.day(1), tmp_path / "data", append=True)
    run, data = Run.open(tmp_path / "run"), PreparedData.open(tmp_path / "data")
    values = {feature.name: feature.values for feature in compute_report(run, data, by=("device",)).profile.features}
    then, now = run.transform().id_maps["user"], data.transform.id_maps["user"]
    assert values["user"] == then.num_rows - then.first_key_id < now.num_rows - now.first_key_id


def test_popularity_counts_the_traffic_before_sampling(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    item, click = random.integers(0, 5, 4_000), random.random(4_000) < 0.2
    kept = click | (random.random(4_000) < 0.1)
    rate = np.where(click, 1.0, 0.1)
    table = pa.table({"item": item[kept], "click": click[kept].astype(int), "rate": rate[kept]})
    roles, tasks = Roles(item="item", sample_rate="rate"), (Task(name="click"),)
    prepare(Log(table, Schema(roles=roles, tasks=tasks)), tmp_path / "a", split=AllTrain())
    rates = torch.sigmoid(Popularity.fit(PreparedData.open(tmp_path / "a"), ("click",)).logit_IK[-5:, 0])
    assert rates.mean() == pytest.approx(0.2, abs=0.02)


def test_an_item_of_several_hashes_has_no_popularity(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    table = pa.table({"item": random.integers(0, 50, 500), "click": random.integers(0, 2, 500)})
    hashed = KeySpace(name="item", policy="hashed", buckets=16, hashes=2)
    schema = Schema(roles=Roles(item="item"), tasks=(Task(name="click"),), key_spaces=(hashed,))
    prepare(Log(table, schema), tmp_path / "data", split=ByHash(key="item", valid=0.3, test=0.3))
    data = PreparedData.open(tmp_path / "data")
    config = DCNv2.Config(embedding=EmbeddingConfig(width=4), num_cross_layers=1, hidden=(8,))
    run = train_ranker(config, data, tmp_path / "run", TrainConfig(batch_size=256)).run
    assert compute_report(run, data).popularity == {}


def test_half_a_line_of_the_log_is_not_drawn(made: Path, tmp_path: Path) -> None:
    log = (made / "run" / "metrics.jsonl").read_text()
    (tmp_path / "metrics.jsonl").write_text(log + log.splitlines()[0][:20])  # of a run at work, or killed
    found, whole = (compute_learning_curve(folder, "click") for folder in (tmp_path, made / "run"))
    assert found.loss.tolist() == whole.loss.tolist() and len(whole.loss)


def test_scores_are_not_called_probabilities(made: Path, tmp_path: Path) -> None:
    config = DCNv2.Config(embedding=EmbeddingConfig(width=4), num_cross_layers=1, hidden=(8,))
    training = TrainConfig(batch_size=256, checkpoint_every_steps=None)
    data = PreparedData.open(made / "data")
    objective = ObjectiveConfig(binary="softmax")
    trained = train_ranker(config, data, tmp_path / "run", training, exclude=("conversion",), objective=objective)
    page = write_report(compute_report(trained.run, data, by=("device",)), tmp_path / "page.html").read_text()
    assert "what it gives for click are scores" in page
