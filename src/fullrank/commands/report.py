"""`fullrank report RUN --data DIR`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Literal

import tyro

from fullrank.commands.arguments import OptionalPath, call, write_json
from fullrank.data.partitions import PreparedData
from fullrank.recipes.report import compute_report
from fullrank.recipes.report_page import write_report
from fullrank.training.run import Run


def main(args: Sequence[str], prog: str) -> int:
    return call(report, args, prog)


def report(
    run: tyro.conf.Positional[Path],
    data: Path,
    split: Literal["train", "valid", "test"] = "test",
    by: tuple[str, ...] = (),
    out: OptionalPath = None,
    json: OptionalPath = None,
) -> None:
    """One page that says what a run was trained on, how good it is, and where it is weak; to send to a colleague.

    Args:
        run: a run's folder.
        data: prepared data: what the run was trained on, or a later version of it.
        split: the rows to measure on.
        by: slices, as `evaluate --by`; chosen from the schema if not given.
        out: the page; RUN/report.html if not given.
        json: where to write what the page says for programs: `run`, `data`, `split`, `tasks`, `popularity` (both as
            `evaluate` writes them), `slices`, `weak`, `splits`, `labels`, `features`.
    """
    opened = Run.open(run)
    found = compute_report(opened, PreparedData.open(data), split, by=by or None, progress=split)
    page = write_report(found, out or run / "report.html")
    told = {"run": run, "data": data, "split": split}
    told |= {"tasks": {task: asdict(metrics) for task, metrics in found.tasks.items()}}
    told |= {"popularity": {task: asdict(metrics) for task, metrics in found.popularity.items()}}
    told |= {"slices": [asdict(table) for table in found.slices], "weak": [asdict(weak) for weak in found.weak]}
    told |= {"splits": [asdict(s) for s in found.profile.splits], "labels": [asdict(s) for s in found.profile.labels]}
    told |= {"features": [asdict(feature) for feature in found.profile.features]}
    write_json(json, told)
    print(f"Report: {page}")
