"""`fullrank compare --data DIR --recipes …`."""

from __future__ import annotations

import math
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, field, make_dataclass
from pathlib import Path
from typing import Any

import tyro

from fullrank.commands.arguments import OptionalPath, table, write_json
from fullrank.data.partitions import PreparedData
from fullrank.diagnostics.collapse import CollapseReport, collapse_report
from fullrank.diagnostics.pictures import side_by_side
from fullrank.diagnostics.points import judged
from fullrank.evaluation.html_page import HtmlPage
from fullrank.evaluation.paired import PairedDifference
from fullrank.rankers import ranker_named
from fullrank.recipes.compare import (
    HIGHER_IS_BETTER,
    Comparison,
    Recipe,
    Summary,
    compare,
    plot_comparison,
    recipe_of_run,
    write_csv,
)
from fullrank.training.config import TrainConfig
from fullrank.training.objectives.choice import BinaryLoss, ObjectiveConfig
from fullrank.training.run import Run

DIFFERENCES = ["task", "recipe", "metric", "difference", "90 % interval", "verdict"]


def main(args: Sequence[str], prog: str) -> int:
    flags = (tyro.conf.FlagCreatePairsOff,)
    options = tyro.cli(_options(), prog=prog, args=list(args), config=flags)
    return _compare(options, shlex.join([*prog.split(), *args]))


def _options() -> Any:
    options = make_dataclass(
        "Compare",
        [
            ("data", Path),
            ("recipes", tuple[str, ...]),
            ("out", Path, Path("runs/compare")),
            ("seeds", int, 3),
            ("split", str, "test"),
            ("training", TrainConfig, field(default_factory=TrainConfig)),
            ("exclude", tuple[str, ...], ()),
            ("objective", BinaryLoss, "auto"),
            ("json", OptionalPath, None),
        ],
        frozen=True,
    )
    options.__doc__ = """Train several recipes with several seeds on the same rows, and say which differences are noise.

    Args:
        data: a folder of prepared data.
        recipes: rankers by name (their defaults, trained as --training says), and folders of runs (their own settings,
            repeated). The first is what the others are compared with.
        out: where runs, comparison.csv, comparison.json and the page index.html go; the same command resumes.
        seeds: how many, from 0. Five or more make an interval worth quoting.
        split: the rows to measure on.
        exclude: names of features, histories and tasks that rankers named here shall not see; a run keeps its own.
        objective: what binary tasks learn by (see `fullrank train RANKER --help`); a run keeps its own.
        json: a second place for comparison.json.
    """
    return options


def _compare(options: Any, command: str) -> int:
    objective = ObjectiveConfig(binary=options.objective)
    recipes: dict[str, Recipe] = {}
    for name in options.recipes:
        if (Path(name) / "run.json").exists():
            recipes[_name_of_run(Path(name), options.recipes)] = recipe_of_run(Run.open(name))
        else:
            config = ranker_named(name).Config()  # type: ignore[attr-defined]  # every ranker of RANKERS nests one
            recipes[name] = Recipe(
                ranker=config, training=options.training, exclude=options.exclude, objective=objective
            )
    if len(recipes) != len(options.recipes):
        raise ValueError(f"Expected recipes of different names, got {list(options.recipes)}: name each only once.")
    data = PreparedData.open(options.data)
    found = compare(recipes, data, options.out, seeds=range(options.seeds), split=options.split, how_to_resume=command)
    header, values, differences = tables(found)
    print(table(header, values, words=2))
    if differences:
        print(f"\nAgainst {found.recipes[0]}, pairs of one seed:\n{table(DIFFERENCES, differences, words=3)}")
    write_csv(found, options.out / "comparison.csv")
    reports = reports_of(found, data)
    result = as_json(found, reports)
    for path in {options.out / "comparison.json", options.json} - {None}:
        write_json(path, result)
    print(f"\nPage: {write_page(found, command, options.out / 'index.html', reports)}")
    return 0


def _name_of_run(run: Path, others: Sequence[str]) -> str:
    """The folder's name; with its parent's, where a ranker or another run is called so too."""
    taken = sum(Path(other).name == run.name for other in others) > 1
    return "-".join(run.parts[-2:]) if taken else run.name


def tables(found: Comparison) -> tuple[list[str], list[list[str]], list[list[str]]]:
    """Cells of the two tables: mean ± sd of every recipe, with its header; differences from the first. What is not
    defined (a task without known labels) is left out."""
    summaries = [s for s in found.summaries() if not math.isnan(s.value.mean)]
    metrics = [metric for metric in HIGHER_IS_BETTER if any(s.metric == metric for s in summaries)]
    values = [
        [task, recipe, str(len(found.seeds)), *(_value(summaries, recipe, task, m) for m in metrics)]
        for task in found.tasks
        for recipe in found.recipes
        if any((s.recipe, s.task) == (recipe, task) for s in summaries)
    ]
    differences = [
        [s.task, s.recipe, s.metric, *_difference(d), d.verdict] for s in summaries if (d := s.difference) is not None
    ]
    return ["task", "recipe", "seeds", *(f"{metric} ± sd" for metric in metrics)], values, differences


def as_json(found: Comparison, reports: Mapping[str, CollapseReport]) -> dict[str, Any]:
    """All of it: every run's metrics, the summaries, and ranks by recipe."""
    summaries = [asdict(summary) for summary in found.summaries()]
    return asdict(found) | {"summaries": summaries, "ranks": {name: own.numbers for name, own in reports.items()}}


def reports_of(found: Comparison, data: PreparedData) -> dict[str, CollapseReport]:
    """How the run of the first seed of each recipe uses its space. A run of which that cannot be measured (weights that
    are not finite, a single row) is told of and left out: the comparison is made."""
    reports = {}
    for name, run in {m.recipe: m.run for m in found.measured if m.seed == found.seeds[0]}.items():
        try:
            reports[name] = collapse_report(Run.open(run), data)
        except ValueError as error:
            print(f"No pictures of {name}: {error}", file=sys.stderr)
    return reports


def write_page(found: Comparison, command: str, path: Path, reports: Mapping[str, CollapseReport]) -> Path:
    """One page with both tables, a figure a task, and how the runs of `reports` use their space, side by side."""
    import matplotlib.pyplot as plt

    page = HtmlPage(f"Comparison of {', '.join(found.recipes)}")
    header, values, differences = tables(found)
    page.text(
        f"{len(found.seeds)} seeds a recipe, measured on the split {found.split}. A seed is that of the first weights, "
        "of the order of rows and of dropout; sd is over seeds."
    )
    page.table(header, values, words=2)
    if differences:
        page.heading(f"Differences from {found.recipes[0]}")
        page.text(
            "Pairs of one seed; Student's 90 % interval of the mean difference. It covers the chance of training, not "
            "other users or days. Inside the noise: the interval holds 0."
        )
        page.table(DIFFERENCES, differences, words=3)
    for task in dict.fromkeys(s.task for s in found.summaries() if s.metric == "auc" and not math.isnan(s.value.mean)):
        page.heading(f"AUC of {task}")
        figure, ax = plt.subplots(figsize=(6, 3.5))
        plot_comparison(found, task, "auc", ax)
        page.figure(figure, "A point a seed, a grey line between runs of one seed, a bar at the mean.")
    page.heading("How they use their space")
    page.text(
        f"Of each recipe the run of seed {found.seeds[0]}, on rows of the split valid (train where there is none). "
        "Ranks say where models differ, metrics which is better."
    )
    if reports:
        page.table(["recipe", "tables under a tenth", "layers under a tenth", "last layer"], _ranks(reports))
    side_by_side(page, reports)
    page.heading("To repeat it")
    page.code(command)
    return page.write(path)


def _ranks(reports: Mapping[str, CollapseReport]) -> list[list[str]]:
    """What is under a tenth of the rank it could have (see `fullrank diagnose`), and the rank behind the last layer."""
    rows = []
    for name, report in reports.items():
        low = [", ".join(one.name for one in report.low_tables), ", ".join(one.point for one in report.low_points)]
        last = judged(report.ranks)[-1:]
        rows.append([name, *(names or "none" for names in low), *(f"{one.mean:.1f} of {one.most}" for one in last)])
    return [row + ["–"] * (4 - len(row)) for row in rows]


def _value(summaries: list[Summary], recipe: str, task: str, metric: str) -> str:
    """Mean ± sd; a dash where a task has no such metric."""
    found = [s.value for s in summaries if (s.recipe, s.task, s.metric) == (recipe, task, metric)]
    if not found:
        return "–"
    value = found[0]
    return f"{value.mean:.4f} ± {value.sd:.4f}" if value.n > 1 else f"{value.mean:.4f}"


def _difference(difference: PairedDifference) -> tuple[str, str]:
    """The mean and its interval; dashes for what is not defined."""
    mean = "–" if math.isnan(difference.mean) else f"{difference.mean:+.4f}"
    return mean, "–" if math.isnan(difference.low) else f"{difference.low:+.4f} … {difference.high:+.4f}"
