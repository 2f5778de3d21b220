"""`fullrank diagnose RUN --data DIR`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Literal

import tyro

from fullrank.commands.arguments import OptionalPath, call, write_json
from fullrank.data.partitions import PreparedData
from fullrank.diagnostics.collapse import collapse_report
from fullrank.diagnostics.page import write_diagnosis
from fullrank.training.run import Run


def main(args: Sequence[str], prog: str) -> int:
    return call(diagnose, args, prog)


def diagnose(
    run: tyro.conf.Positional[Path],
    data: Path,
    split: Literal["train", "valid", "test"] = "valid",
    rows: int = 512,
    out: OptionalPath = None,
    json: OptionalPath = None,
) -> None:
    """One page that shows how a run's tables and layers use the space they have: spectra, effective ranks over depth
    and over training.

    Args:
        run: a run's folder.
        data: prepared data: what the run was trained on, or a later version of it.
        split: the rows to look at; the train split if there are none of it.
        rows: how many of them.
        out: the page; RUN/diagnosis.html if not given.
        json: where to write what the page says for programs: `run`, `data`, `split`, `rows`, `tables`, `points`
            (spectra), `untrained`, `on_disk`, `ranks`, `low` (names), `similar`, `histories`, `training`.
    """
    opened = Run.open(run)
    found = collapse_report(opened, PreparedData.open(data), split, rows)
    page = write_diagnosis(found, out or run / "diagnosis.html")
    told = {"run": run, "data": data, "split": found.split, "rows": found.rows, "training": list(found.training)}
    for name in ("tables", "points", "ranks", "similar", "histories"):
        told[name] = [asdict(one) for one in getattr(found, name)]
    low = [f"table {one.name}" for one in found.low_tables] + [f"layer {one.point}" for one in found.low_points]
    write_json(json, told | {"untrained": found.untrained, "on_disk": found.on_disk, "low": low})
    print(f"Diagnosis: {page}" + (f"; little of its space uses: {', '.join(low)}" if low else ""))
