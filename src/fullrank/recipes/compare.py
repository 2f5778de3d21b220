"""Recipes × seeds on the same rows: which differences are more than the noise of training?"""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fullrank.config_json import decode
from fullrank.data.partitions import PreparedData
from fullrank.evaluation.paired import PairedDifference, Spread, paired_difference, spread
from fullrank.recipes.train import predict, ranker_config, train_ranker
from fullrank.training.config import TrainConfig
from fullrank.training.objectives import MultiTask, ObjectiveConfig
from fullrank.training.run import Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# what is compared, and which way is up
HIGHER_IS_BETTER = {"auc": True, "user_auc": True, "log_loss": False, "mse": False}


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A ranker's `Config`, how it trains, what it sees and what it descends (by the tasks' kinds if None); its seeds
    come from the comparison."""

    ranker: Any
    training: TrainConfig
    last_n: int | None = None
    exclude: tuple[str, ...] = ()
    objective: ObjectiveConfig | MultiTask | None = None


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One run on one task of the split. `seconds` is the time spent training."""

    recipe: str
    seed: int
    task: str
    metrics: dict[str, Any]
    seconds: float
    run: str


@dataclass(frozen=True, kw_only=True)
class Summary:
    """One recipe, task and metric over the seeds; `difference` is from the baseline's (None for the baseline)."""

    recipe: str
    task: str
    metric: str
    value: Spread
    difference: PairedDifference | None


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Every run that was made; the first recipe is the baseline of differences."""

    recipes: tuple[str, ...]
    seeds: tuple[int, ...]
    tasks: tuple[str, ...]
    split: str
    measured: tuple[Measured, ...]

    def values(self, recipe: str, task: str, metric: str) -> list[float]:
        """A metric of a recipe on a task, in the order of the seeds."""
        of_seed = {m.seed: m.metrics[metric] for m in self.measured if (m.recipe, m.task) == (recipe, task)}
        return [of_seed[seed] for seed in self.seeds]

    def summaries(self) -> list[Summary]:
        """Mean ± sd of every recipe, and its paired difference from the first; task by task."""
        return [
            Summary(
                recipe=recipe,
                task=task,
                metric=metric,
                value=spread(self.values(recipe, task, metric)),
                difference=None
                if recipe == self.recipes[0]
                else paired_difference(
                    self.values(recipe, task, metric),
                    self.values(self.recipes[0], task, metric),
                    higher_is_better=higher,
                ),
            )
            for task in self.tasks
            for metric, higher in HIGHER_IS_BETTER.items()
            if metric in next(m.metrics for m in self.measured if m.task == task)
            for recipe in self.recipes
        ]


def compare(
    recipes: Mapping[str, Recipe],
    data: PreparedData,
    out: Path | str,
    *,
    seeds: Sequence[int] = (0, 1, 2),
    split: str = "test",
    how_to_resume: str = "",
    say: Callable[[str], None] = lambda words: print(words, file=sys.stderr),
) -> Comparison:
    """Train every recipe with every seed on the same training rows and measure all of them on the same split.

    A seed is that of the first weights, of the order of rows and of dropout. Runs go to `out/RECIPE/seed-N`; the same
    call again takes up what is there, unless the data have grown since and some runs are still to be made. Early
    stopping and schedules look at `valid`, never at the split measured here (unless that is `valid`).

    Not a search: numbers of many recipes chosen by this split are optimistic; keep another split for the last word.
    """
    if not recipes or not seeds:
        raise ValueError(f"Expected recipes and seeds to compare, got {list(recipes)} and {list(seeds)}.")
    data.blocks(split)  # a split that is not there is told before the work
    measured: list[Measured] = []
    pairs = [(name, seed) for seed in seeds for name in recipes]  # whole pairs first, should it be stopped
    _check_same_rows((Path(out) / name / f"seed-{seed}" for name, seed in pairs), data)
    tasks: tuple[str, ...] = ()
    for number, (name, seed) in enumerate(pairs, start=1):
        recipe = recipes[name]
        path = Path(out) / name / f"seed-{seed}"
        say(f"{name}, seed {seed} ({number} of {len(pairs)}) → {path}")
        trained = train_ranker(
            recipe.ranker,
            data,
            path,
            replace(recipe.training, seed=seed),
            seed=seed,
            last_n=recipe.last_n,
            exclude=recipe.exclude,
            objective=recipe.objective,
            how_to_resume=how_to_resume,
        )
        if not trained.result.finished:
            raise KeyboardInterrupt
        names = trained.run.record.inputs.task_names
        if tasks and names != tasks:
            raise ValueError(f"Expected recipe {name!r} to have the tasks {tasks} as the first has, got {names}.")
        tasks = names
        predictions = predict(trained.run, trained.ranker, data, split)
        measured += [
            Measured(
                recipe=name,
                seed=seed,
                task=task,
                metrics=asdict(predictions.task_metrics(task)),
                seconds=trained.result.seconds,
                run=str(path),
            )
            for task in tasks
        ]
    return Comparison(
        recipes=tuple(recipes), seeds=tuple(seeds), tasks=tasks, split=split, measured=tuple(measured)
    )


def _check_same_rows(paths: Iterable[Path], data: PreparedData) -> None:
    """Runs that are there go on with the rows and labels they began with: new ones beside them must see the same."""
    states = {Run.open(path).record.data if (path / "run.json").exists() else data.state: path for path in paths}
    if len(states) > 1:
        there = next(path for state, path in states.items() if state != data.state)
        raise ValueError(
            f"Expected all runs to learn from the same rows, but {there} began before {data.folder} was appended to. "
            "Compare in a new folder."
        )


def recipe_of_run(run: Run) -> Recipe:
    """The settings of a run, to be repeated with other seeds: its ranker, training, objective, and what it saw. First
    weights come from the seed, also where the run had them of another one."""
    record = run.record
    inputs, schema = record.inputs, run.schema
    seen = {field.name for field in (*inputs.request, *inputs.candidate)}
    seen |= {history.name for history in inputs.histories} | set(inputs.task_names)
    offered = [feature.name for feature in schema.all_features() if feature.kind != "text"]
    offered += [history.name for history in schema.histories] + [task.name for task in schema.tasks]
    return Recipe(
        ranker=ranker_config(run),
        training=record.train,
        last_n=max((history.last_n for history in inputs.histories), default=None),
        exclude=tuple(name for name in offered if name not in seen),
        objective=decode(MultiTask, record.objective, f"{run.path / 'run.json'}: objective"),
    )


def write_csv(comparison: Comparison, path: Path) -> Path:
    """A line a run and task; empty where a task of its kind has no such metric."""
    path.parent.mkdir(parents=True, exist_ok=True)
    names = list(dict.fromkeys(name for m in comparison.measured for name in m.metrics))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["recipe", "seed", "task", *names, "seconds", "run"])
        for m in comparison.measured:
            writer.writerow([m.recipe, m.seed, m.task, *(m.metrics.get(name, "") for name in names), m.seconds, m.run])
    return path


def plot_comparison(comparison: Comparison, task: str, metric: str = "auc", ax: Axes | None = None) -> Axes:
    """A point a seed, a line between the runs of one seed, and each recipe's mean as a bar."""
    if ax is None:
        import matplotlib.pyplot as plt

        ax = plt.subplots()[1]
    places = range(len(comparison.recipes))
    columns = [comparison.values(recipe, task, metric) for recipe in comparison.recipes]
    for of_seed in zip(*columns, strict=True):
        ax.plot(places, of_seed, color="0.8", linewidth=0.8, zorder=1)
    for place, values in zip(places, columns, strict=True):
        ax.scatter([place] * len(values), values, s=18, zorder=2)
        ax.hlines(spread(values).mean, place - 0.2, place + 0.2, color="black", linewidth=1.5, zorder=3)
    ax.set_xticks(list(places), comparison.recipes, rotation=20, ha="right")
    ax.set_xlim(-0.5, len(comparison.recipes) - 0.5)
    ax.set_ylabel(f"{metric} of {task} ({comparison.split})")
    return ax
