"""`fullrank tune RANKER --data DIR`."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import asdict, field, make_dataclass
from pathlib import Path
from typing import Any

import tyro

from fullrank.commands.arguments import OptionalPath, table, write_json
from fullrank.data.inputs import Inputs
from fullrank.data.partitions import PreparedData
from fullrank.rankers import RANKERS, ranker_name, ranker_named
from fullrank.recipes.compare import Recipe
from fullrank.recipes.search_space import parse_dimension
from fullrank.recipes.tune import default_space, tune
from fullrank.training.config import TrainConfig
from fullrank.training.objectives.choice import BinaryLoss, ObjectiveConfig


def main(args: Sequence[str], prog: str) -> int:
    names = ", ".join(ranker_name(ranker) for ranker in RANKERS)
    if not args or args[0].startswith("-"):
        print(f"usage: {prog} RANKER --data DIR [options]\n\nRANKER is one of: {names}")
        return 0 if args else 2
    flags = (tyro.conf.FlagCreatePairsOff,)
    options = tyro.cli(_options(args[0]), prog=f"{prog} {args[0]}", args=list(args[1:]), config=flags)
    return _tune(options, args[0], shlex.join([*prog.split(), *args]))


def _options(name: str) -> Any:
    config = ranker_named(name).Config  # type: ignore[attr-defined]  # every ranker of RANKERS nests one
    options = make_dataclass(
        "Tune",
        [
            ("data", Path),
            ("out", OptionalPath, None),
            ("space", tuple[str, ...], ()),
            ("trials", int, 20),
            ("metric", str, ""),
            ("ranker", config, field(default_factory=config)),
            ("training", TrainConfig, field(default_factory=lambda: TrainConfig(epochs=3))),
            ("exclude", tuple[str, ...], ()),
            ("objective", BinaryLoss, "auto"),
            ("seed", int, 0),
            ("json", OptionalPath, None),
        ],
        frozen=True,
    )
    options.__doc__ = f"""Search settings of {name} by random draws and successive halving on the validation rows.

    Args:
        data: a folder of prepared data with validation rows.
        out: where trials go; runs/tune-{name} if not given. The same command resumes.
        space: what to search, e.g. training.lr=1e-4..1e-2:log ranker.embedding.width=8,16,32; learning rates, width
            and dropout if not given. The rest is as --ranker and --training say; --training.epochs is the most a trial
            gets.
        trials: how many draws in all.
        metric: TASK.METRIC of the validation rows; the first task's AUC (of a regression task its MSE) if not given.
        exclude: names of features, histories and tasks that the model shall not see.
        objective: what binary tasks learn by (see `fullrank train {name} --help`).
        seed: of the draws, the first weights and the order of rows.
        json: where to write all trials for programs.
    """
    return options


def _tune(options: Any, name: str, command: str) -> int:
    data = PreparedData.open(options.data)
    objective = ObjectiveConfig(binary=options.objective)
    recipe = Recipe(ranker=options.ranker, training=options.training, exclude=options.exclude, objective=objective)
    space = dict(parse_dimension(text) for text in options.space) or default_space(recipe)
    task = Inputs.of(data.schema, exclude=options.exclude).tasks[0]
    found = tune(
        recipe,
        space,
        data,
        options.out or Path("runs") / f"tune-{name}",
        metric=options.metric or f"{task.name}.{'mse' if task.kind == 'regression' else 'auc'}",
        trials=options.trials,
        seed=options.seed,
        how_to_resume=command,
    )
    rows = [
        [t.number, *(_number(t.params[path]) for path in space), len(t.values), t.values[-1] if t.values else None]
        for t in found.trials
    ]
    print(table(["trial", *space, "epochs", found.metric], rows))
    settings = " ".join(f"--{path.replace('_', '-')} {_number(value)}" for path, value in found.best.params.items())
    print(f"\nBest: trial {found.best.number} ({found.best.run}). The best of many looks at the validation rows is")
    print("optimistic; what it is worth, with other seeds and on the test rows:")
    more = ["--exclude", *options.exclude] if options.exclude else []
    again = ["--data", str(options.data), "--recipes", name, found.best.run, "--seeds", "5", *more]
    print(f"  fullrank compare {shlex.join(again)} --training.epochs {options.training.epochs}")
    print(f"Its settings: {settings}")
    write_json(options.json, asdict(found))
    return 0


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
