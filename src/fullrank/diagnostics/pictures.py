"""The pictures of a page, each with the sentence that says how to read it and what to try: of one run, or of several
side by side."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fullrank.diagnostics.collapse import CollapseReport
from fullrank.diagnostics.plots import plot_depth, plot_histories, plot_spectra, plot_training
from fullrank.evaluation.html_page import HtmlPage

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLUMNS = 3  # of pictures side by side


@dataclass(frozen=True, kw_only=True)
class Picture:
    """`of`: what it shows of a report; where that is empty there is nothing to draw."""

    reading: str
    of: Callable[[CollapseReport], Sequence[Any]]
    draw: Callable[[Any, Axes], None]


TABLES = Picture(
    reading="Singular values of each table's rows (nothing subtracted), of tables that use least first. A line that "
    "falls at once belongs to a table that uses few of its directions: rows of few keys, or keys that were seen "
    "together. Try a narrower table, weight decay, or several sets of tables (RankUp).",
    of=lambda report: report.tables,
    draw=plot_spectra,
)
DEPTH = Picture(
    reading="Effective rank over depth, in the model's order. sample: the tokens of a row; centred: "
    "less what all rows have in common; token: one token over rows; flat: all tokens side by side over rows (all that "
    "there is where a point is one vector). A saw in sample that goes up at mixing and down at networks, ever less, is "
    "the damped oscillation that RankElastor describes: try gated networks. sample high and centred low: tokens differ "
    "by constants. The last layer may be low without harm, as its head reads few directions.",
    of=lambda report: report.ranks,
    draw=plot_depth,
)
POINTS = Picture(
    reading="Singular values of all tokens of a layer side by side, over rows and less their mean. A line that falls "
    "early belongs to a layer that tells rows apart by few directions: try a wider one before it, or a gate.",
    of=lambda report: report.points,
    draw=plot_spectra,
)
HISTORIES = Picture(
    reading="Effective rank of a row's event tokens before the first layer (events) and behind each (events.0 is the "
    "first), the mean over rows of at least two events. Where the line with fields lies below the one without, fields "
    "of few values drag the events down (collapse propagation): try fewer full layers.",
    of=lambda report: report.histories,
    draw=plot_histories,
)
TRAINING = Picture(
    reading="Effective rank of all tokens over rows, by step. A point that falls while others stay is where directions "
    "get lost: look at its learning rate and norm.",
    of=lambda report: report.training,
    draw=plot_training,
)
PICTURES = (TABLES, DEPTH, POINTS, HISTORIES, TRAINING)


def show(page: HtmlPage, picture: Picture, report: CollapseReport) -> None:
    """One run's picture with its reading, if there is anything to be seen."""
    import matplotlib.pyplot as plt

    shown = picture.of(report)
    if not shown:
        return
    figure, ax = plt.subplots(figsize=(8, 3.6))
    picture.draw(shown, ax)
    page.figure(figure, picture.reading)


def side_by_side(page: HtmlPage, reports: Mapping[str, CollapseReport]) -> None:
    """Every picture of all runs that have it, next to one another, each under its name."""
    import matplotlib.pyplot as plt

    for picture in PICTURES:
        own = {name: shown for name, report in reports.items() if (shown := picture.of(report))}
        if not own:
            continue
        columns = min(COLUMNS, len(own))
        rows = -(-len(own) // columns)
        figure, axes = plt.subplots(rows, columns, figsize=(5 * columns, 3.8 * rows), squeeze=False, sharey=True)
        for ax in axes.flat[len(own) :]:
            ax.set_visible(False)
        for (name, shown), ax in zip(own.items(), axes.flat, strict=False):
            picture.draw(shown, ax)
            ax.set_title(name, fontsize=10)
        figure.tight_layout()
        page.figure(figure, picture.reading)
