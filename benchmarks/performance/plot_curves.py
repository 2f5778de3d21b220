"""Draw `benchmarks/results/performance/curves.json` (see `curves.py`) into docs/figures/.

python benchmarks/performance/plot_curves.py
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot as plt  # after the backend is chosen
from matplotlib.axes import Axes

ROOT = Path(__file__).resolve().parents[2]
STORED = ROOT / "benchmarks" / "results" / "performance" / "curves.json"
FIGURES = ROOT / "docs" / "figures"
BY = {  # what the axis below says
    "batch": "rows of a batch",
    "features": "features",
    "width": "width of a table",
    "threads": "threads",
    "history": "median events of a history",
}
# Of Okabe and Ito's colours, which people who see few colours tell apart; and each has a marker of its own.
COLOURS = {"ours": "#0072B2", "by hand": "#D55E00"}
MARKERS = {"ours": "o", "by hand": "s"}
SIZE = (4.2, 5.6)  # inches, one panel above the other: text as large as the page's on a telephone


@dataclass(frozen=True)
class Line:
    """A contender's milliseconds a step (median, least, most) and peak MiB at each value of x."""

    name: str
    x: list[int]
    median: list[float]
    low: list[float]
    high: list[float]
    peak_mib: list[float]


def compute_lines(points: list[dict[str, Any]]) -> list[Line]:
    """The lines of one curve, in the order of their names' first points."""
    lines = []
    for name in dict.fromkeys(point["name"] for point in points):
        own = sorted((point for point in points if point["name"] == name), key=lambda point: point["value"])
        numbers = ([point[key] for point in own] for key in ("value", "median", "low", "high", "peak_mib"))
        lines.append(Line(name, *numbers))
    return lines


def plot_time(lines: list[Line], by: str, axes: Axes) -> Axes:
    for line in lines:
        who, _, dtype = line.name.partition(", ")
        look = {"color": COLOURS[who], "marker": MARKERS[who], "markersize": 5}
        axes.plot(line.x, line.median, "-" if dtype == "fp32" else "--", label=line.name, **look)
        axes.fill_between(line.x, line.low, line.high, color=COLOURS[who], alpha=0.12, linewidth=0)
    return _named(axes, by, "ms a step", lines)


def plot_memory(lines: list[Line], by: str, axes: Axes) -> Axes:
    for line in lines:
        if line.name.endswith("fp32"):  # one process, one peak
            who = line.name.partition(",")[0]
            gib = [mib / 1024 for mib in line.peak_mib]
            axes.plot(line.x, gib, color=COLOURS[who], marker=MARKERS[who], markersize=5, label=who)
    return _named(axes, by, "peak memory, GiB", lines)


def _named(axes: Axes, by: str, what: str, lines: list[Line]) -> Axes:
    axes.set_xlabel(BY[by])
    axes.set_ylabel(what)
    axes.set_ylim(bottom=0)
    if by == "threads":  # there are no halves
        axes.set_xticks(lines[0].x)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    return axes


def draw(stored: dict[str, Any], folder: Path) -> None:
    """A file `step_by_….svg` of each curve that is stored."""
    plt.rcParams["svg.hashsalt"] = "fullrank"  # the same points, the same file
    for by in BY:
        if by not in stored:
            continue
        lines = compute_lines(stored[by]["points"])
        figure, (above, below) = plt.subplots(2, 1, figsize=SIZE, layout="constrained")
        plot_time(lines, by, above)
        plot_memory(lines, by, below)
        figure.savefig(folder / f"step_by_{by}.svg", metadata={"Date": None})
        plt.close(figure)


def main() -> None:
    draw(json.loads(STORED.read_text(encoding="utf-8")), FIGURES)


if __name__ == "__main__":
    main()
