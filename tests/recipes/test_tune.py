"""The search space as text, and a search that halves, resumes and says what is wrong."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from fullrank.cli import main
from fullrank.data.partitions import PreparedData
from fullrank.data.prepare import prepare
from fullrank.data.simulate import SimulatedLog, SimulatorConfig
from fullrank.data.splits import AllTrain, ByHash
from fullrank.rankers import DCNv2
from fullrank.rankers.field_front import EmbeddingConfig
from fullrank.recipes.compare import Recipe
from fullrank.recipes.search_space import Choice, Range, parse_dimension, replaced, value_at
from fullrank.recipes.tune import default_space, tune
from fullrank.recipes.validation import Validation
from fullrank.schema import Task
from fullrank.training.config import TrainConfig

RECIPE = Recipe(
    ranker=DCNv2.Config(embedding=EmbeddingConfig(width=4), num_cross_layers=1, hidden=(8,)),
    training=TrainConfig(epochs=3, batch_size=256, checkpoint_every_steps=None),
    exclude=("conversion",),
)
SPACE = {"training.lr": Range(low=1e-9, high=1e-2, log=True)}


@pytest.mark.parametrize(
    ("text", "path", "dimension"),
    [
        ("training.lr=1e-4..1e-2:log", "training.lr", Range(low=1e-4, high=1e-2, log=True)),
        ("a=0..0.5", "a", Range(low=0.0, high=0.5)),
        ("w=8,16", "w", Choice(values=(8, 16))),
        ("s=parallel,none,true,0.5", "s", Choice(values=("parallel", None, True, 0.5))),
    ],
)
def test_dimensions_are_read(text: str, path: str, dimension: Choice | Range) -> None:
    assert parse_dimension(text) == (path, dimension)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lr", r"Expected PATH=a,b,c or PATH=low..high"),
        ("lr=1e-2..x", r"with two numbers, got 'lr=1e-2..x'"),
        ("lr=0..1:log", r"above 0 with low < high"),
        ("lr=2..1", r"with low < high, got 2.0..1.0"),
    ],
)
def test_what_is_no_dimension_is_said(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_dimension(text)


def test_a_path_reaches_into_nested_configs() -> None:
    changed = replaced(RECIPE, "ranker.embedding.optimizer.lr", 0.5)
    assert value_at(changed, "ranker.embedding.optimizer.lr") == 0.5
    assert replaced(changed, "ranker.embedding.optimizer.lr", RECIPE.ranker.embedding.optimizer.lr) == RECIPE
    with pytest.raises(ValueError, match=r"No setting 'ranker.embeding.width'.*Did you mean 'embedding'"):
        replaced(RECIPE, "ranker.embeding.width", 8)
    with pytest.raises(ValueError, match="dropout"):
        value_at(RECIPE, "training.lr.dropout")


def test_the_default_space_is_what_the_ranker_has() -> None:
    assert set(default_space(RECIPE)) == {
        "training.lr", "ranker.embedding.optimizer.lr", "ranker.embedding.width", "ranker.dropout",
    }  # fmt: skip

    @dataclass(frozen=True, kw_only=True)
    class Bare:
        depth: int = 1

    assert set(default_space(Recipe(ranker=Bare(), training=TrainConfig()))) == {"training.lr"}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tune") / "data"
    log = SimulatedLog(SimulatorConfig(rows=2_000, users=100, ads=80, campaigns=20, days=2, seed=4))
    prepare(log, folder, split=ByHash(key="user", valid=0.3, test=0.1))
    return folder


def test_trials_are_halved_counted_and_kept(data: Path, tmp_path: Path) -> None:
    opened = PreparedData.open(data)

    def search(trials: int):
        return tune(RECIPE, SPACE, opened, tmp_path, metric="click.auc", trials=trials, say=lambda words: None)

    few = search(3)
    more = search(7)
    assert len(few.trials) == 3 and more.trials[:3] == few.trials  # what was tried is kept
    assert len({trial.params["training.lr"] for trial in more.trials}) == 7  # and no draw is made twice
    assert any(trial.given_up for trial in more.trials)
    assert all(len(trial.values) < 3 for trial in more.trials if trial.given_up)
    finished = [trial for trial in more.trials if not trial.given_up]
    assert all(len(trial.values) == 3 for trial in finished)
    assert more.best.values[-1] == max(trial.values[-1] for trial in finished)
    assert search(7) == more
    with pytest.raises(ValueError, match="holds another search"):
        tune(RECIPE, {"training.lr": Choice(values=(0.1,))}, opened, tmp_path, metric="click.auc", trials=9)


def test_a_stopped_trial_is_taken_up_with_its_draw(data: Path, tmp_path: Path) -> None:
    said: list[str] = []

    def stop_at_the_second(words: str) -> None:
        said.append(words)
        if len(said) == 2:
            raise KeyboardInterrupt

    opened = PreparedData.open(data)
    with pytest.raises(KeyboardInterrupt):
        tune(RECIPE, SPACE, opened, tmp_path, metric="click.auc", trials=2, say=stop_at_the_second)
    found = tune(RECIPE, SPACE, opened, tmp_path, metric="click.auc", trials=2, say=said.append)
    assert len(found.trials) == 2
    assert [words.split(": ")[1] for words in said[1:]] == [said[1].split(": ")[1]] * 2


def test_lower_is_better_where_it_is(data: Path, tmp_path: Path) -> None:
    found = tune(
        RECIPE, SPACE, PreparedData.open(data), tmp_path, metric="click.log_loss", trials=3, say=lambda words: None
    )
    assert found.best.values[-1] == min(trial.values[-1] for trial in found.trials if not trial.given_up)


def test_the_best_is_the_least_error_of_a_regression_task(tmp_path: Path, capsys) -> None:
    log = SimulatedLog(SimulatorConfig(rows=500, users=50, ads=80, campaigns=20, days=1, seed=4))
    log.schema = replace(log.schema, tasks=(Task(name="offer", kind="regression", column="bid"),))
    prepare(log, tmp_path / "data", split=ByHash(key="user", valid=0.3, test=0.1))
    words = f"tune dcnv2 --data {tmp_path / 'data'} --out {tmp_path / 'out'} --trials 4 --json {tmp_path / 't.json'}"
    options = "--training.epochs 1 --training.batch-size 128 --space training.lr=1e-9,1e-4,1e-2,3e-2"
    assert main([*words.split(), *options.split()]) == 0
    assert "offer.mse" in capsys.readouterr().out
    found = json.loads((tmp_path / "t.json").read_text())
    assert found["best"]["values"][-1] == min(trial["values"][-1] for trial in found["trials"])


def test_an_interrupted_trial_keeps_what_it_was_worth_before(data: Path, tmp_path: Path) -> None:
    opened = PreparedData.open(data)
    one = {"training.lr": Choice(values=(1e-3,))}

    def search(out: str, recipe: Recipe = RECIPE):
        return tune(recipe, one, opened, tmp_path / out, metric="click.auc", trials=1, say=lambda words: None)

    whole = search("a")
    validate, seen = Validation.__call__, []

    def stop_in_the_third(self, ranker):
        seen.append(1)
        if len(seen) == 3:
            raise KeyboardInterrupt
        return validate(self, ranker)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Validation, "__call__", stop_in_the_third)
        search("b")
    again = search("b")
    assert again.best.values == whole.best.values and len(again.best.values) == 3
    by_steps = replace(RECIPE, training=replace(RECIPE.training, validate_every_steps=1))
    assert search("c", by_steps).best.values == whole.best.values  # an epoch is one validation, whatever else is set


def test_trials_that_all_diverge_are_said(data: Path, tmp_path: Path) -> None:
    opened, space, said = PreparedData.open(data), {"training.lr": Choice(values=(1e30,))}, []
    with pytest.raises(ValueError, match=r"a trial of .* that came to its end, got none: search lower learning rates"):
        tune(RECIPE, space, opened, tmp_path, metric="click.auc", trials=2, say=said.append)
    assert [words.split(": ")[0] for words in said] == ["trial 0", "trial 0 is over", "trial 1", "trial 1 is over"]


def test_a_search_is_of_one_seed_and_one_state_of_the_data(data: Path, tmp_path: Path) -> None:
    opened = PreparedData.open(data)
    tune(RECIPE, SPACE, opened, tmp_path, metric="click.auc", trials=1, say=lambda words: None)
    with pytest.raises(ValueError, match="holds another search"):
        tune(RECIPE, SPACE, opened, tmp_path, metric="click.auc", trials=2, seed=1)
    opened = opened.at(replace(opened.state, as_of=opened.as_of - 1))
    with pytest.raises(ValueError, match="holds another search"):
        tune(RECIPE, SPACE, opened, tmp_path, metric="click.auc", trials=2)


def test_a_metric_or_a_split_that_is_not_there(data: Path, tmp_path: Path) -> None:
    opened = PreparedData.open(data)
    with pytest.raises(ValueError, match=r"click.auc.*got 'click.acc'"):
        tune(RECIPE, SPACE, opened, tmp_path / "a", metric="click.acc", trials=1, say=lambda words: None)
    log = SimulatedLog(SimulatorConfig(rows=500, users=50, ads=80, campaigns=20, days=1, seed=4))
    prepare(log, tmp_path / "train-only", split=AllTrain())
    with pytest.raises(ValueError, match="to have validation rows, got none"):
        tune(RECIPE, SPACE, PreparedData.open(tmp_path / "train-only"), tmp_path / "b", metric="click.auc", trials=1)


def test_the_verb_prints_trials_and_what_comes_next(data: Path, tmp_path: Path, capsys) -> None:
    words = ["tune", "dcnv2", "--data", str(data), "--out", str(tmp_path / "t"), "--trials", "2"]
    words += ["--space", "training.lr=1e-3,1e-2", "ranker.embedding.width=4..8"]
    assert main(words) == 2  # a width is a whole number
    words = [*words[:-1], "ranker.embedding.width=4,8", "--training.epochs", "1", "--json", str(tmp_path / "t.json")]
    assert main(words) == 0
    printed = capsys.readouterr().out
    assert "fullrank compare --data" in printed and "--ranker.embedding.width" in printed
    assert len(json.loads((tmp_path / "t.json").read_text())["trials"]) == 2
