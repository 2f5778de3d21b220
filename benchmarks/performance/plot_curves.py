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
BY = ("batch", "features", "width", "threads")
COLOURS = {"ours": "#1f5fbf", "by hand": "#b5651d"}


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
        colour, style = _look(line.name)
        axes.plot(line.x, line.median, style, color=colour, marker="o", markersize=3, label=line.name)
        axes.fill_between(line.x, line.low, line.high, color=colour, alpha=0.12, linewidth=0)
    return _named(axes, by, "ms a step (median; least to most)")


def plot_memory(lines: list[Line], by: str, axes: Axes) -> Axes:
    for line in lines:
        if line.name.endswith("fp32"):  # one process, one peak
            who = line.name.partition(",")[0]
            axes.plot(line.x, line.peak_mib, color=COLOURS[who], marker="o", markersize=3, label=who)
    return _named(axes, by, "peak of the process, MiB")


def _look(name: str) -> tuple[str, str]:
    who, _, dtype = name.partition(", ")
    return COLOURS[who], "-" if dtype == "fp32" else "--"


def _named(axes: Axes, by: str, what: str) -> Axes:
    axes.set_xlabel(by)
    axes.set_ylabel(what)
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.25)
    axes.legend(fontsize=7, frameon=False)
    return axes


def main() -> None:
    stored = json.loads(STORED.read_text(encoding="utf-8"))
    plt.rcParams["svg.hashsalt"] = "fullrank"  # the same points, the same file
    for by in BY:
        if by not in stored:
            continue
        lines = compute_lines(stored[by]["points"])
        figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3), layout="constrained")
        plot_time(lines, by, left)
        plot_memory(lines, by, right)
        figure.savefig(FIGURES / f"dcnv2_by_{by}.svg", metadata={"Date": None})
        plt.close(figure)


if __name__ == "__main__":
    main()
