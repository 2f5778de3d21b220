"""Comparing recipes over seeds: what is measured, that it resumes, and a run's settings repeated."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from fullrank.cli import main
from fullrank.commands import compare as command
from fullrank.data.columns import DataError
from fullrank.data.inputs import Inputs
from fullrank.data.partitions import PreparedData
from fullrank.data.prepare import prepare
from fullrank.data.simulate import SimulatedLog, SimulatorConfig
from fullrank.data.splits import ByHash
from fullrank.diagnostics import CollapseReport, information_abundance
from fullrank.rankers import DCNv2
from fullrank.rankers.field_front import EmbeddingConfig
from fullrank.recipes.compare import Recipe, compare, plot_comparison, recipe_of_run, write_csv
from fullrank.recipes.train import train_ranker
from fullrank.schema import Task
from fullrank.training.config import TrainConfig
from fullrank.training.objectives import ObjectiveConfig
from fullrank.training.run import Run

SMALL = DCNv2.Config(embedding=EmbeddingConfig(width=4), num_cross_layers=1, hidden=(8,))
TRAINING = TrainConfig(batch_size=128, checkpoint_every_steps=None)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("compare") / "data"
    log = SimulatedLog(SimulatorConfig(rows=3_000, users=150, ads=80, campaigns=20, days=2, seed=4))
    prepare(log, folder, split=ByHash(key="user", valid=0.1, test=0.3))
    return folder


def test_every_recipe_and_seed_is_measured_once_and_resumes(data: Path, tmp_path: Path) -> None:
    opened = PreparedData.open(data)
    slow = Recipe(ranker=SMALL, training=TRAINING, exclude=("conversion",))
    still = Recipe(ranker=SMALL, training=TrainConfig(batch_size=128, lr=1e-9), exclude=("conversion",))
    said: list[str] = []
    found = compare({"a": slow, "b": still}, opened, tmp_path, seeds=(0, 1), say=said.append)
    assert [(m.recipe, m.seed, m.task) for m in found.measured] == [
        ("a", 0, "click"), ("b", 0, "click"), ("a", 1, "click"), ("b", 1, "click"),
    ]  # fmt: skip
    assert len(said) == 4 and len(set(found.values("a", "click", "auc"))) == 2  # seeds differ
    assert found == compare({"a": slow, "b": still}, opened, tmp_path, seeds=(0, 1), say=said.append)
    summaries = {(s.recipe, s.metric): s for s in found.summaries()}
    assert summaries["a", "auc"].difference is None
    difference = summaries["b", "auc"].difference
    assert difference is not None and difference.n == 2
    a, b = (found.values(recipe, "click", "auc") for recipe in "ab")
    assert difference.mean == pytest.approx((b[0] - a[0] + b[1] - a[1]) / 2)


def test_the_settings_of_a_run_are_those_it_was_made_with(data: Path, tmp_path: Path) -> None:
    exclude = ("conversion", "shown", "age", "user")
    objective = ObjectiveConfig(binary="pairwise", weights={"click": 0.5})
    opened = PreparedData.open(data)
    train_ranker(SMALL, opened, tmp_path / "run", TRAINING, last_n=7, exclude=exclude, objective=objective)
    recipe = recipe_of_run(Run.open(tmp_path / "run"))
    assert (recipe.ranker, recipe.training, recipe.last_n) == (SMALL, TRAINING, 7)
    assert set(recipe.exclude) == set(exclude)
    assert recipe.objective == objective.build(Inputs.of(opened.schema, exclude=exclude).tasks)
    compare({"again": recipe}, opened, tmp_path, seeds=(3,), say=lambda words: None)
    again = Run.open(tmp_path / "again" / "seed-3").record
    assert again.objective == Run.open(tmp_path / "run").record.objective and again.seed == 3


def test_the_verb_writes_tables_a_page_and_its_json(data: Path, tmp_path: Path, capsys) -> None:
    train_ranker(SMALL, PreparedData.open(data), tmp_path / "mine", TRAINING)
    out = tmp_path / "out"
    recipes = ["dcnv2", str(tmp_path / "mine")]
    words = ["compare", "--data", str(data), "--recipes", *recipes, "--seeds", "2", "--out", str(out)]
    assert main(words) == 0
    printed = capsys.readouterr().out
    assert "Against dcnv2, pairs of one seed" in printed and "±" in printed
    found = json.loads((out / "comparison.json").read_text())
    assert found["recipes"] == ["dcnv2", "mine"] and len(found["measured"]) == 2 * 2 * 2
    with (out / "comparison.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["recipe"] for row in rows[:2]] == ["dcnv2", "dcnv2"]
    assert float(rows[0]["auc"]) == found["measured"][0]["metrics"]["auc"]
    page = (out / "index.html").read_text()
    assert "Differences from dcnv2" in page and "fullrank compare" in page
    assert page.count("<svg") == 2 + 3  # AUC of two tasks; tables, depth and layers of both recipes side by side
    assert page.index("How they use their space") < page.index("Singular values of each table")


def test_a_run_that_cannot_be_measured_ends_no_comparison(data: Path, tmp_path: Path, capsys, monkeypatch) -> None:
    measure = command.collapse_report

    def of_finite_weights(run: Run, data: PreparedData) -> CollapseReport:
        if "broken" in str(run.path):
            return information_abundance(torch.tensor([[torch.inf]]))  # type: ignore[return-value]  # it raises
        return measure(run, data)

    monkeypatch.setattr(command, "collapse_report", of_finite_weights)
    both = {name: Recipe(ranker=SMALL, training=TRAINING) for name in ("sound", "broken")}
    found = compare(both, PreparedData.open(data), tmp_path, seeds=(0,))
    capsys.readouterr()
    assert list(command.reports_of(found, PreparedData.open(data))) == ["sound"]
    assert "No pictures of broken: Expected finite numbers" in capsys.readouterr().err


def test_a_run_called_as_a_ranker_is_told_apart(data: Path, tmp_path: Path, capsys) -> None:
    train_ranker(SMALL, PreparedData.open(data), tmp_path / "runs" / "dcnv2", TRAINING)
    words = ["compare", "--data", str(data), "--recipes", "dcnv2", str(tmp_path / "runs" / "dcnv2"), "--seeds", "1"]
    assert main([*words, "--out", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert "runs-dcnv2" in printed and "mse" not in printed  # no regression task: no column for one
    assert main([*words, "--out", str(tmp_path / "out"), "--recipes", "dcnv2", "dcnv2"]) == 2
    assert "name each only once" in capsys.readouterr().err


def test_names_are_checked_first(data: Path, tmp_path: Path, capsys) -> None:
    assert main(["compare", "--data", str(data), "--recipes", "dcnv", "--out", str(tmp_path)]) == 2
    assert "Did you mean 'dcnv2'" in capsys.readouterr().err


def test_a_split_is_checked_before_the_work(data: Path, tmp_path: Path) -> None:
    recipe = Recipe(ranker=SMALL, training=TRAINING)
    with pytest.raises(DataError, match=r"got 'tset'\. Did you mean 'test'"):
        compare({"a": recipe}, PreparedData.open(data), tmp_path / "out", split="tset")
    assert not (tmp_path / "out").exists()


def test_runs_of_one_comparison_learn_from_the_same_rows(tmp_path: Path) -> None:
    config = SimulatorConfig(rows=500, users=50, ads=80, campaigns=20, days=2, seed=4)
    log = SimulatedLog(config)
    prepare(log.day(0), tmp_path / "data", split=ByHash(key="user", valid=0.1, test=0.3))

    def compared(*seeds: int):
        opened = PreparedData.open(tmp_path / "data")
        recipe = Recipe(ranker=SMALL, training=TRAINING)
        return compare({"a": recipe}, opened, tmp_path / "out", seeds=seeds, say=lambda words: None)

    compared(0)
    prepare(log.day(1), tmp_path / "data", append=True)
    assert compared(0).measured[0].metrics["rows"] > 0  # all of them are there
    with pytest.raises(ValueError, match=r"learn from the same rows, but .*seed-0 began before .* was appended to"):
        compared(0, 1)
    assert not (tmp_path / "out" / "a" / "seed-1").exists()


def test_tasks_of_several_kinds_share_a_table(tmp_path: Path) -> None:
    log = SimulatedLog(SimulatorConfig(rows=500, users=50, ads=80, campaigns=20, days=2, seed=4))
    price = Task(name="price", kind="regression", column="bid")
    log.schema = replace(log.schema, tasks=(log.schema.tasks[0], price))
    prepare(log, tmp_path / "data", split=ByHash(key="user", valid=0.1, test=0.3))
    opened = PreparedData.open(tmp_path / "data")
    found = compare({"a": Recipe(ranker=SMALL, training=TRAINING)}, opened, tmp_path, seeds=(0,), say=print)
    with write_csv(found, tmp_path / "c.csv").open() as file:
        click, number = csv.DictReader(file)
    assert click["mse"] == number["auc"] == "" and float(number["mse"]) > 0 and float(click["auc"]) > 0


def test_a_plot_has_a_point_a_seed(data: Path, tmp_path: Path) -> None:
    recipe = Recipe(ranker=SMALL, training=TRAINING)
    found = compare({"a": recipe}, PreparedData.open(data), tmp_path, seeds=(0, 1), say=lambda words: None)
    ax = plot_comparison(found, "click")
    assert len(ax.collections[0].get_offsets()) == 2  # pyright: ignore[reportArgumentType]
