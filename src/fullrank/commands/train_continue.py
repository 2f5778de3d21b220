"""`fullrank train --continue RUN --data DIR`."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import tyro

from fullrank.commands.arguments import OptionalPath, table, write_json
from fullrank.data.partitions import PreparedData
from fullrank.recipes.daily import Daily, continue_run
from fullrank.training.run import Run, RunError

OPTION = "--continue"
SHOWN = ("known", "auc", "user_auc", "log_loss", "pcoc")
SHOWN_REGRESSION = ("known", "mse", "mae", "r2")


def is_meant(args: Sequence[str]) -> bool:
    """Whether a command line of `train` goes on with a run."""
    return any(arg == OPTION or arg.startswith(f"{OPTION}=") for arg in args)


def main(args: Sequence[str], prog: str) -> int:
    ranker = args[0] if not args[0].startswith("-") else ""
    rest = list(args[1:] if ranker else args)
    command = shlex.join([*prog.split(), *args])

    def train_continue(
        run: Annotated[Path, tyro.conf.arg(name="continue", metavar="RUN")],
        data: Path,
        out: Path,
        json: OptionalPath = None,
    ) -> int:
        """Go on with a finished run on the partitions that were appended to its data since. Each day is measured before
        it is learned. The same command again takes it up where it stopped.

        The run keeps its ranker, its settings and its state; the new one has all of it and larger tables.

        Args:
            run: the folder of the run to go on with; it stays as it is.
            data: its folder of prepared data, with what was appended since.
            out: the new run's folder.
            json: where to write for programs how it ended: `run`, `days` (an object a day and task), `step`, `rows`,
                `loss`, `seconds`.
        """
        return _continue(Run.open(run), ranker, data, out, json, command)

    return tyro.cli(train_continue, prog=prog, args=rest, config=(tyro.conf.FlagCreatePairsOff,))


def _continue(source: Run, ranker: str, data: Path, out: Path, json: Path | None, command: str) -> int:
    own = source.record.type_tag
    if ranker not in ("", own):
        raise RunError(
            f"Expected the ranker of {source.path}, {own}, got {ranker}: a run is gone on with as it is. "
            f"For a new {ranker} that begins with its tables: train {ranker} --warm-from {source.path}"
        )
    done = continue_run(source, PreparedData.open(data), out, how_to_resume=command)
    result = done.result
    if not result.finished:
        return 130  # stopped by a signal: the loop has said how to resume
    print(f"{out}: {_gone_through(done)}; {result.step} steps, {result.rows:,} rows, {result.seconds:.0f} s since")
    for shown in (SHOWN, SHOWN_REGRESSION):
        days = [day for day in done.days if set(shown) <= set(day)]
        if days:
            rows = [[day["day"], day["task"], day["rows"], *(day[name] for name in shown)] for day in days]
            print(table(["day", "task", "rows", *shown], rows, words=2))
    print("Each day was measured before it was learned, by the labels that are known now.")
    write_json(json, {"run": out, "days": done.days, **_ended(asdict(result))})
    print(f"Next day: fullrank train {OPTION} {out} --data {data} --out …")
    return 0


def _gone_through(done: Daily) -> str:
    assert done.run.record.continues is not None
    stages = done.run.record.continues.stages
    days, late = sum(bool(stage.day) for stage in stages), sum(len(s.partitions) - bool(s.day) for s in stages)
    return f"{days} new partition{'s' * (days != 1)}" + (f", {late} of late labels" if late else "")


def _ended(result: dict[str, Any]) -> dict[str, Any]:
    return {name: result[name] for name in ("step", "rows", "loss", "seconds")}
