"""`fullrank train RANKER --data DIR`."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import asdict, field, make_dataclass
from pathlib import Path
from typing import Any

import tyro

from fullrank.commands.arguments import SHOWN, OptionalInt, OptionalPath, table, write_json
from fullrank.data.partitions import PreparedData
from fullrank.rankers import RANKERS, ranker_name, ranker_named
from fullrank.recipes.train import train_ranker
from fullrank.training.config import TrainConfig


def main(args: Sequence[str], prog: str) -> int:
    names = ", ".join(ranker_name(ranker) for ranker in RANKERS)
    if not args or args[0].startswith("-"):
        print(f"usage: {prog} RANKER --data DIR [options]\n\nRANKER is one of: {names}")
        print(f"{prog} RANKER --help shows the ranker's own options.")
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
        json: where to write how it ended for programs: `run`, `step`, `epoch`, `rows`, `loss`, `seconds`, and `valid`,
            which has the last validation's metrics of every task (as `evaluate` writes them).
    """
    return options


def _train(options: Any, name: str, command: str) -> int:
    out = options.out or Path("runs") / name
    data = PreparedData.open(options.data)
    trained = train_ranker(
        options.ranker,
        data,
        out,
        options.training,
        seed=options.seed,
        last_n=options.last_n,
        exclude=options.exclude,
        how_to_resume=command,
    )
    result = trained.result
    if not result.finished:
        return 130  # stopped by a signal: the loop has said how to resume
    print(f"{out}: {result.step} steps, {result.rows:,} rows, training loss {result.loss:.4f}, {result.seconds:.0f} s")
    if result.valid:
        rows = [[task, *(values[name] for name in SHOWN)] for task, values in result.valid.items()]
        print(table(["validation", *SHOWN], rows))
    write_json(options.json, {"run": out, **asdict(result)})
    print(f"Next: fullrank evaluate {out} --data {options.data}")
    return 0
