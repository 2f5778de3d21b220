"""A run's report: what it finds weak, what it hides, and that its page stands alone."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from fullrank.cli import main
from fullrank.data.partitions import PreparedData
from fullrank.data.prepare import prepare
from fullrank.data.simulate import SimulatedLog, SimulatorConfig
from fullrank.data.splits import ByHash
from fullrank.evaluation.bootstrap import Interval
from fullrank.evaluation.evaluate import Metrics
from fullrank.evaluation.slice_metrics import SliceRow, SliceTable
from fullrank.rankers import DCNv2
from fullrank.rankers.field_front import EmbeddingConfig
from fullrank.recipes.report import compute_report, slices_worth_a_look, weak_slices
from fullrank.recipes.train import train_ranker
from fullrank.training.config import TrainConfig
from fullrank.training.run import Run

LOG = SimulatedLog(SimulatorConfig(rows=8_000, users=300, ads=120, campaigns=20, days=3, seed=6))


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

    from fullrank.recipes.report_page import write_report

    shutil.copytree(made / "run", tmp_path / "run")
    assert main(["calibrate", str(tmp_path / "run"), "--data", str(made / "data")]) == 0
    found = compute_report(Run.open(tmp_path / "run"), PreparedData.open(made / "data"), by=("device",))
    assert found.after is not None
    text = write_report(found, tmp_path / "page.html").read_text()
    assert "calibrated" in text and "click by device" in text and "click by day" not in text


def test_an_unknown_slice_is_said_with_the_nearest(made: Path, capsys) -> None:
    assert main(["report", str(made / "run"), "--data", str(made / "data"), "--by", "devise"]) == 2
    assert "Did you mean 'device'" in capsys.readouterr().err
