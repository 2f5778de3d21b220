"""The lines of the grid, read again: values of a recipe over seeds, and differences of two recipes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from cells import FIGURES, cells
from worlds import WORLDS

from fullrank.evaluation.paired import PairedDifference, Spread, paired_difference, spread

LINES = Path(__file__).resolve().parents[1] / "results" / "backbones.jsonl"


def read(path: Path) -> list[dict[str, Any]]:
    """What has been run; nothing where there is no file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


class Lines:
    """What was run of what the recipes are now: a line of a recipe as it was once is left out."""

    def __init__(self, path: Path = LINES) -> None:
        self.all = read(path)
        by_key = {(one["data"], one["digest"], one["seed"]): one for one in self.all}
        self._of: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
        self._cells: dict[tuple[str, str, str], int] = {}
        for cell in cells(FIGURES):
            name = cell.world.name, cell.recipe, cell.figure
            self._cells[name] = self._cells.get(name, 0) + 1
            self._of.setdefault(name, []).extend([by_key[cell.key]] if cell.key in by_key else [])

    def of(self, data: str, recipe: str, figure: str) -> list[dict[str, Any]]:
        """Of a recipe on a set, by seed."""
        return self._of.get((data, recipe, figure), [])

    def wanted(self, data: str, recipe: str, figure: str) -> int:
        """How many seeds there shall be."""
        return self._cells[data, recipe, figure]

    def recipes(self, data: str, figure: str) -> list[str]:
        """All of a figure, run or not."""
        return [recipe for of_data, recipe, of_figure in self._cells if (of_data, of_figure) == (data, figure)]

    def sets(self, figure: str) -> list[str]:
        return list(dict.fromkeys(data for data, _, of_figure in self._cells if of_figure == figure))

    def values(self, data: str, recipe: str, figure: str, name: str) -> dict[int, float]:
        """Seed → a number; `name` may be `auc` or `log_loss` of the set's task."""
        full = f"{WORLDS[data].task}.{name}" if name in ("auc", "log_loss") else name
        return {one["seed"]: one[full] for one in self.of(data, recipe, figure)}

    def spread(self, data: str, recipe: str, figure: str, name: str) -> Spread:
        return spread(list(self.values(data, recipe, figure, name).values()))

    def difference(self, data: str, one: tuple[str, str], other: tuple[str, str]) -> PairedDifference:
        """Of the AUC of two (recipe, figure), over the seeds that both have."""
        return paired(*(self.values(data, recipe, figure, "auc") for recipe, figure in (one, other)))

    @property
    def hours(self) -> float:
        """Of the processor, of all lines there are."""
        return sum(one["cpu_seconds"] for one in self.all) / 3600


def paired(mine: dict[int, float], theirs: dict[int, float]) -> PairedDifference:
    """Of the seeds that both have; more is better."""
    seeds = sorted(mine.keys() & theirs.keys())
    values, baseline = ([each[seed] for seed in seeds] for each in (mine, theirs))
    return paired_difference(values, baseline, higher_is_better=True)


def plus_minus(found: Spread, digits: int = 4) -> str:
    """`mean ± sd`; the mean alone of one value, a dash of none."""
    if not found.n:
        return "–"
    return f"{found.mean:.{digits}f}" + (f" ± {found.sd:.{digits}f}" if found.n > 1 else "")


def in_words(found: PairedDifference, digits: int = 4) -> str:
    """`+0.0012 [+0.0003, +0.0021] better`."""
    if not found.n:
        return "not run"
    if found.n < 2:
        return f"{found.mean:+.{digits}f}, one seed"
    return f"{found.mean:+.{digits}f} [{found.low:+.{digits}f}, {found.high:+.{digits}f}] {found.verdict}"
