"""The pictures of a collapse report, each drawn from its numbers alone."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from fullrank.diagnostics.collapse import HistoryRank, Spectrum
from fullrank.diagnostics.points import FORMS, Form, PointRank

if TYPE_CHECKING:
    from typing import Any

    from matplotlib.axes import Axes

MOST_LINES, COLOURS = 12, 10


def plot_spectra(spectra: Sequence[Spectrum], ax: Axes) -> None:
    """Singular values over their number, both from 0 to 1 and the first one 1, those of the least share of abundance
    (`MOST_LINES` of them), which is how they are ordered."""
    shown = sorted(spectra, key=lambda one: one.share)[:MOST_LINES]
    for at, one in enumerate(shown):
        place = [at / max(1, one.most - 1) for at in range(len(one.values))]
        style = "-" if at < COLOURS else "--"
        ax.plot(place, [max(value, 1e-9) for value in one.values], style, linewidth=1.2, label=one.name)
    if len(spectra) > len(shown):
        ax.plot([], [], " ", label=f"{len(spectra) - len(shown)} more use more")
    least = min((value for one in shown for value in one.values), default=1.0)
    ax.set_yscale("log")
    low = min(1e-2, max(1e-5, least / 2))
    low = low if ax.get_autoscaley_on() else min(low, ax.get_ylim()[0])  # a picture beside it may have set the axis
    ax.set_ylim(low, 1.5)
    ax.set_xlabel("number of the singular value, as a share of all")
    ax.set_ylabel("share of the largest value")
    ax.legend(fontsize=7)


def plot_depth(ranks: Sequence[PointRank], ax: Axes) -> None:
    """The effective rank of every point in the order of the model, as a share of what it could be; a line a form, with
    the least and the most of its matrices. Points that could have different ranks are not joined: a share of another
    whole is no rise or fall."""
    points = list(dict.fromkeys(one.point for one in ranks))
    for form in FORMS:
        own = [one for one in ranks if one.form == form]
        if not own:
            continue
        colour, label = f"C{FORMS.index(form)}", form
        for _, joined in groupby(own, key=lambda one: one.most):
            some = list(joined)
            place = [points.index(one.point) for one in some]
            shares = [one.mean / one.most for one in some]
            ax.plot(place, shares, color=colour, marker="o", markersize=3, linewidth=1.2, label=label)
            low, high = ([getattr(one, end) / one.most for one in some] for end in ("low", "high"))
            ax.fill_between(place, low, high, color=colour, alpha=0.12)
            label = None
    ax.set_xticks(range(len(points)), points, rotation=45, ha="right", fontsize=7)
    ax.set_ylim(0, 1.02)
    ax.set_ylabel("effective rank / the most it could be")
    ax.legend(fontsize=8)


def plot_training(lines: Sequence[dict[str, Any]], ax: Axes, form: Form = "flat") -> None:
    """A point's effective rank over the steps of training, a line a point."""
    for point in dict.fromkeys(point for line in lines for point in line["ranks"]):
        known = [(line["step"], line["ranks"].get(point) or {}) for line in lines]  # null: no number
        own = [(step, ranks[form]) for step, ranks in known if form in ranks]
        if own:
            ax.plot(*zip(*own, strict=True), marker="o", markersize=3, linewidth=1.2, label=point)
    ax.set_ylim(bottom=0)
    ax.set_xlabel("step")
    ax.set_ylabel(f"effective rank ({form})")
    ax.legend(fontsize=7)


def plot_histories(ranks: Sequence[HistoryRank], ax: Axes) -> None:
    """Event tokens' rank before and after each layer, with the fields in the stream and without them."""
    place = range(len(ranks))
    ax.plot(place, [one.with_fields for one in ranks], marker="o", markersize=3, label="with fields")
    ax.plot(place, [one.without_fields for one in ranks], marker="o", markersize=3, label="without fields")
    ax.plot(place, [one.most for one in ranks], color="0.6", linestyle="--", label="most there could be")
    ax.set_xticks(place, [one.point for one in ranks], rotation=45, ha="right", fontsize=7)
    ax.set_ylim(bottom=0)
    ax.set_ylabel("effective rank of a row's events")
    ax.legend(fontsize=8)
