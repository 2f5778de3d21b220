"""`fullrank train RANKER --data DIR`."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import asdict, field, make_dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from fullrank.commands import train_continue
from fullrank.commands.arguments import SHOWN, OptionalInt, OptionalPath, table, write_json
from fullrank.data.partitions import PreparedData
from fullrank.rankers import RANKERS, ranker_name, ranker_named
from fullrank.recipes.train import train_ranker
from fullrank.training.config import TrainConfig
from fullrank.training.objectives import ObjectiveConfig
from fullrank.training.objectives.choice import BinaryLoss
from fullrank.training.run import Run
from fullrank.training.tensorboard import TensorBoard

SHOWN_REGRESSION = ("rows", "mse", "mae", "r2")
TaskWeights = Annotated[dict[str, float], tyro.conf.arg(metavar="TASK WEIGHT ...")]


def main(args: Sequence[str], prog: str) -> int:
    if train_continue.is_meant(args):
        return train_continue.main(args, prog)
    names = ", ".join(ranker_name(ranker) for ranker in RANKERS)
    if not args or args[0].startswith("-"):
        print(f"usage: {prog} RANKER --data DIR [options]\n\nRANKER is one of: {names}")
        print(f"{prog} RANKER --help shows the ranker's own options.")
        print(f"{prog} --continue RUN --data DIR --out DIR goes on with a run on what was appended to its data.")
        return 0 if args else 2
    flags = (tyro.conf.FlagCreatePairsOff,)
    options = tyro.cli(_options(args[0]), prog=f"{prog} {args[0]}", args=list(args[1:]), config=flags)
    return _train(options, args[0], shlex.join([*prog.split(), *args]))


def _options(name: str) -> Any:
    """The options of training one ranker: those of its own `Config` under `--ranker`, of `TrainConfig` under
    `--training`."""
    config = ranker_named(name).Config  # type: ignore[attr-defined]  # every ranker of RANKERS nests one
    options = make_dataclass(
        "Train",
        [
            ("data", Path),
            ("out", OptionalPath, None),
            ("ranker", config, field(default_factory=config)),
            ("training", TrainConfig, field(default_factory=TrainConfig)),
            ("seed", int, 0),
            ("last_n", OptionalInt, None),
            ("exclude", tuple[str, ...], ()),
            ("objective", BinaryLoss, "auto"),
            ("task_weights", TaskWeights, field(default_factory=dict)),
            ("undo_sample_rate", bool, False),
            ("warm_from", OptionalPath, None),
            ("tensorboard", bool, False),
            ("probe_every", int, 0),
            ("json", OptionalPath, None),
        ],
        frozen=True,
    )
    options.__doc__ = f"""Train {name} on prepared data. The same command again takes the run up where it stopped.

    Args:
        data: a folder of prepared data.
        out: the run's folder; runs/{name} if not given.
        seed: of the first weights; --training.seed is that of the order of rows and of dropout.
        last_n: newest events of each history to read; as many as the schema keeps if not given.
        exclude: names of features, histories and tasks that the model shall not see.
        objective: what a binary task learns by: auto, each row by itself (cross-entropy); softmax or pairwise, the
            rows of a request against each other, which gives scores and not probabilities. Regression tasks learn by
            their squared error.
        task_weights: a task's weight in the sum of losses, as in `click 1 buy 0.5`; 1 if not given.
        undo_sample_rate: count a row that was kept with share s 1/s times (not by softmax and pairwise).
        warm_from: a run to take first weights from: rows of tables by key, other weights by name and shape. Its data
            and its ranker may be others.
        tensorboard: also write events for TensorBoard, into the folder tensorboard of the run.
        probe_every: look at the effective ranks of the model's points and tables every so many steps (200 is a good
            number), write them into metrics.jsonl and say which fall low; never if 0.
        json: where to write how it ended for programs: `run`, `step`, `epoch`, `rows`, `loss`, `seconds`, `ended`
            (epochs or early_stop), `best` (`metric`, `value`, `step`, `epoch` of the weights that early stopping kept,
            else null) and `valid`, the validation metrics of every task (as `evaluate` writes them) of the weights the
            run ends with.
    """
    return options


def _train(options: Any, name: str, command: str) -> int:
    out = options.out or Path("runs") / name
    data = PreparedData.open(options.data)
    every = options.training.log_every_steps
    callbacks = [TensorBoard(out / "tensorboard", every=every)] if options.tensorboard else []
    trained = train_ranker(
        options.ranker,
        data,
        out,
        options.training,
        seed=options.seed,
        last_n=options.last_n,
        exclude=options.exclude,
        objective=ObjectiveConfig(
            binary=options.objective, undo_sample_rate=options.undo_sample_rate, weights=options.task_weights
        ),
        warm_from=Run.open(options.warm_from) if options.warm_from else None,
        callbacks=callbacks,
        probe_every=options.probe_every,
        how_to_resume=command,
    )
    if trained.warm:
        print(trained.warm)
    result = trained.result
    if not result.finished:
        return 130  # stopped by a signal: the loop has said how to resume
    print(f"{out}: {result.step} steps, {result.rows:,} rows, training loss {result.loss:.4f}, {result.seconds:.0f} s")
    if result.best:
        best = result.best
        why = "stopped early" if result.ended == "early_stop" else "all epochs done"
        print(f"{why}; kept step {best.step} of epoch {best.epoch}, where {best.metric} was {best.value:.4f}")
    for shown in (SHOWN, SHOWN_REGRESSION):
        rows = [[task, *(v[name] for name in shown)] for task, v in result.valid.items() if set(shown) <= set(v)]
        if rows:
            print(table(["validation", *shown], rows))
    write_json(options.json, {"run": out, **asdict(result)})
    print(f"Next: fullrank evaluate {out} --data {options.data}")
    return 0
