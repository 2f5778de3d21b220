"""Make docs/backbones.md, its pictures, and the tables of docs/systems of what the grid and the claims stored.

    python benchmarks/backbones/page.py

A test makes the pages again and fails where one says otherwise.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import beside
import oscillation
from stored import Lines, in_words, plus_minus

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from render import table  # in the folder above

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "backbones.md"
SYSTEMS = ROOT / "docs" / "systems"
BEGIN, END = "<!-- made by benchmarks/backbones/page.py -->", "<!-- end -->"  # what is between is made anew
CLAIMS = ROOT / "benchmarks" / "results" / "backbone_claims.json"
DEPTH_ON, DEEP = "movielens-1m", ("rankmixer", "rankelastor")  # what the figure of depths is of
HEAD = """# Backbones compared

Made by `python benchmarks/backbones/grid.py --data FOLDER --work FOLDER`, `record.py backbone_claims` (see
`claims.py`) and `benchmarks/backbones/page.py`. Every run is a line of `benchmarks/results/backbones.jsonl`; a run that
is there is not made again. Recipes have the same rows in the same order, seeds, rates and number of epochs, and, where
a figure compares systems, dense parameters within a tenth of 65,000; nothing was tuned for any of them. Numbers are of
test rows, mean ± sd over seeds; a difference is paired by seed, with Student's 90 % interval.

* movielens-1m: `liked` (a rating of 4 or more), with `loved` (5) beside it; histories of at most 100 events; one epoch.
  movielens-1m/4: the same of every fourth user, for what compares streams.
* simulated: 1.2 M rows with planted additive, FM (products of two latent vectors), three-way, gated and sequence
  effects; the truth is known. *gap* is the share of the way from an AUC of a half to the truth's. One epoch.
* frappe: fields alone, four epochs.

DCNv2, RankMixer, RankElastor, RankUp and Wukong read a history as the mean of its events, the others attend to events.
*MFLOP a row* is of training (three times forward). *rank*: of a row's tokens at the last layer, as a share of what it
could be, for mixers of tokens. One thread a run.
"""
FIGURES = {
    "core": "Systems",
    "peers": "Other backbones",
    "ffn": "Gated, GELU and ReLU networks, under two mixers (RankElastor's blocks; equal weights under one mixer)",
    "mixing": "Other mixers in the same blocks",
    "tokens": "How fields become tokens (RankMixer)",
    "parts": "RankUp's parts, each beside a control of its size",
    "streams": "TokenFormer's layers",
    "depth": "Depth",
}
SLOPE = """Of each planted effect, the slope of the logit on what it adds to the true one, all at once (1: its true
strength; smaller also where other effects are missed):"""
LOST = """How much of the AUC that is missing to the truth comes back when the effect is given its true strength:"""


def ran(lines: Lines, figure: str, data: str) -> bool:
    """Whether any run of a figure on a set is there."""
    return any(lines.of(data, recipe, figure) for recipe in lines.recipes(data, figure))


def last_rank(own: list[dict[str, Any]]) -> str:
    """Of the last layer of a mixer of tokens, the mean over seeds."""
    of_layers = [[ranks["sample"] for name, ranks in one["ranks"].items() if name.endswith(".ffn")] for one in own]
    shares = [found[-1][0] / found[-1][1] for found in of_layers if found]
    return f"{fmean(shares):.2f}" if shares else ""


def of_recipe(lines: Lines, data: str, figure: str, recipe: str) -> dict[str, str]:
    own, wanted = lines.of(data, recipe, figure), lines.wanted(data, recipe, figure)
    row = {"recipe": recipe, "seeds": str(len(own)) if len(own) == wanted else f"{len(own)} of {wanted}"}
    if not own:
        gap = ["gap"] if data == "simulated" else []
        names = ("parameters", "MFLOP a row", "AUC", "log loss", *gap, "rows/s", "rank")
        return row | dict.fromkeys(names, "") | {"AUC": "not run"}  # columns in this order, whoever comes first
    row |= {"parameters": f"{own[0]['dense_parameters']:,}", "MFLOP a row": f"{own[0]['mflop_a_row']:g}"}
    for name in ("auc", "log_loss"):
        row[name.replace("auc", "AUC").replace("_", " ")] = plus_minus(lines.spread(data, recipe, figure, name))
    if data == "simulated":
        row["gap"] = plus_minus(lines.spread(data, recipe, figure, "gap"), 3)
    return row | {"rows/s": f"{sum(one['rows_a_second'] for one in own) / len(own):,.0f}", "rank": last_rank(own)}


def effects(lines: Lines, data: str, figure: str, kind: str) -> str:
    """A row a recipe that was run: of each planted effect its `slope` or what is `lost` without it."""
    rows = []
    for recipe in lines.recipes(data, figure):
        row = {kind: recipe}
        for name in (key for one in lines.of(data, recipe, figure)[:1] for key in one if key.startswith(f"{kind} ")):
            row[name.removeprefix(f"{kind} ").replace("_", " ")] = plus_minus(
                lines.spread(data, recipe, figure, name), 2
            )
        rows += [row] if len(row) > 1 else []
    return table(rows)


def sections(lines: Lines) -> Iterator[str]:
    for figure, title in FIGURES.items():
        yield f"## {title}"
        for data in lines.sets(figure):
            yield f"**{data}**"
            names = lines.recipes(data, figure)
            yield table([of_recipe(lines, data, figure, recipe) for recipe in names])
            if not ran(lines, figure, data):
                continue
            if data == "simulated":
                yield SLOPE
                yield effects(lines, data, figure, "slope")
                yield LOST
                yield effects(lines, data, figure, "lost")
            if figure == "core":
                first, *others = [(name, figure) for name in names]
                differences = (f"{one[0]} {in_words(lines.difference(data, one, first))}" for one in others)
                yield f"Paired AUC differences from {names[0]}: {'; '.join(differences)}."
        if figure == "depth" and (rows := oscillation.rows(lines, DEPTH_ON, DEEP)):
            yield oscillation.READ
            yield table(rows)
        there = (one for one in PICTURES if one.figure == figure and one.there(lines))
        yield from (f"![{one.says}](figures/{one.file})" for one in there)


def claims() -> Iterator[str]:
    yield "## What the papers claim, and what our rows say"
    if not CLAIMS.exists():
        yield "**Not run.**"
        return
    stored = json.loads(CLAIMS.read_text(encoding="utf-8"))
    rows = []
    for one in stored["runs"]:
        row = {"test": one["label"], "data": one["data"], "claim": one["claim"], "seeds": str(one["n"])}
        found = f"{one['difference']:+.4f} [{one['low']:+.4f}, {one['high']:+.4f}]" if "difference" in one else "–"
        found += f", sd of permutations {one['sd_of_permutations']:.4f}" if "sd_of_permutations" in one else ""
        rows.append(row | {"difference": found, "verdict": one["verdict"]})
    yield table(rows)


def rendered(lines: Lines | None = None) -> str:
    """The page, as it should be."""
    lines = lines or Lines()
    spent = f"{len(lines.all)} runs, {lines.hours:.1f} hours of the processor."
    not_run = (
        "**E7** (RankElastor on the whole of Criteo_x1 and Avazu_x4): not run, the sets are not at hand; "
        "`benchmarks/backbones/published.py` has both configurations."
    )
    return "\n\n".join([HEAD.rstrip(), spent, *claims(), *sections(lines), not_run]) + "\n"


def with_figures(text: str, system: str, lines: Lines | None = None) -> str:
    """The page of a system with its table as it should be."""
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    lines = lines or Lines()
    there = [one for one in PICTURES if system in one.systems and one.there(lines)]
    parts = [table(beside.rows(lines, system)), beside.NOTE]
    made = "\n\n".join([*parts, *(f"![{one.says}](../figures/{one.file})" for one in there)])
    return f"{before}{BEGIN}\n{made}\n{END}{after}"


def _depth(lines: Lines) -> Any:
    """AUC and log-loss over parameters and FLOPs: a grey line a seed, means with their sd."""
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(2, 2, figsize=(8, 6), sharey="row")
    for row, metric in zip(axes, ("auc", "log_loss"), strict=True):
        for ax, size in zip(row, ("dense_parameters", "mflop_a_row"), strict=True):
            for system in DEEP:
                names = [name for name in lines.recipes(DEPTH_ON, "depth") if name.startswith(system)]
                names = [name for name in names if lines.of(DEPTH_ON, name, "depth")]
                x = [lines.of(DEPTH_ON, name, "depth")[0][size] for name in names]
                of_each = [lines.values(DEPTH_ON, name, "depth", metric) for name in names]
                for seed in sorted(set().union(*of_each)):
                    ax.plot(x, [values.get(seed, float("nan")) for values in of_each], color="0.8", linewidth=0.8)
                spreads = [lines.spread(DEPTH_ON, name, "depth", metric) for name in names]
                ax.errorbar(x, [s.mean for s in spreads], [s.sd for s in spreads], marker="o", label=system)
            ax.set_xscale("log")
            ax.set_xticks(x, [f"{one:,.4g}" if one < 1000 else f"{one / 1000:,.0f}k" for one in x])  # of the last
            ax.minorticks_off()
            ax.set_xlabel(size.replace("_", " ").replace("mflop a row", "MFLOP a row, training"))
        row[0].set_ylabel(metric.replace("_", " "))
    axes[0][0].legend(fontsize=8)
    return figure


def _trajectories(lines: Lines) -> Any:
    """The ranks of a row's tokens and of a token over rows along eight layers; a line a seed."""
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), sharey=True)
    for ax, system in zip(axes, DEEP, strict=True):
        for one in lines.of(DEPTH_ON, f"{system}, 8 layers", "depth"):
            for form, colour in (("sample", "tab:blue"), ("token", "tab:orange")):
                shares = oscillation.along(one, form)
                ax.plot(list(shares.values()), color=colour, marker=".", label=form)
                ax.set_xticks(range(len(shares)), list(shares), rotation=90, fontsize=6)
        ax.set_title(system, fontsize=9)
    axes[0].set_ylabel("effective rank / the most")
    handles, labels = axes[0].get_legend_handles_labels()
    axes[0].legend(handles[:2], labels[:2], fontsize=8)
    return figure


def _events(lines: Lines) -> Any:
    """The mean rank of a row's event tokens behind each layer, a line a recipe."""
    from matplotlib import pyplot as plt

    there = [data for data in lines.sets("streams") if ran(lines, "streams", data)]
    figure, axes = plt.subplots(1, len(there), figsize=(4.5 * len(there), 3.4), squeeze=False)
    for ax, data in zip(axes[0], there, strict=True):
        for recipe in lines.recipes(data, "streams"):
            own = lines.of(data, recipe, "streams")
            names = [name for name in own[0]["ranks"] if name.startswith("events")] if own else []
            means = [sum(one["ranks"][name]["sample"][0] for one in own) / len(own) for name in names]
            ax.plot(range(len(names)), means, marker="o", markersize=3, label=recipe)
        ax.set_title(data, fontsize=9)
        ax.set_xlabel("layers behind")
        ax.locator_params(axis="x", integer=True)
    axes[0][0].set_ylabel("effective rank of a row's events")
    axes[0][0].legend(fontsize=7)
    return figure


@dataclass(frozen=True, kw_only=True)
class Picture:
    """`there`: whether enough was run to draw it. `systems`: whose pages show it, too."""

    figure: str
    systems: tuple[str, ...]
    says: str
    file: str
    draw: Callable[[Lines], Any]
    there: Callable[[Lines], bool]


PICTURES = (
    Picture(
        figure="depth",
        systems=(),
        says="AUC and log-loss by parameters and FLOPs",
        file="backbones_depth.svg",
        draw=_depth,
        there=lambda lines: ran(lines, "depth", DEPTH_ON),
    ),
    Picture(
        figure="depth",
        systems=DEEP,
        says="Effective rank over the layers of eight",
        file="backbones_ranks.svg",
        draw=_trajectories,
        there=lambda lines: any(lines.of(DEPTH_ON, f"{name}, 8 layers", "depth") for name in DEEP),
    ),
    Picture(
        figure="streams",
        systems=("tokenformer",),
        says="Effective rank of event tokens over layers",
        file="backbones_events.svg",
        draw=_events,
        there=lambda lines: any(ran(lines, "streams", data) for data in lines.sets("streams")),
    ),
)


def _save(figure: Any, path: Path) -> None:
    from matplotlib import pyplot as plt

    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def main() -> None:
    import matplotlib

    lines = Lines()
    PAGE.write_text(rendered(lines), encoding="utf-8")
    for system in beside.SYSTEMS:
        page = SYSTEMS / f"{system}.md"
        page.write_text(with_figures(page.read_text(encoding="utf-8"), system, lines), encoding="utf-8")
    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "fullrank"  # the same numbers, the same file
    for one in PICTURES:
        if one.there(lines):
            _save(one.draw(lines), ROOT / "docs" / "figures" / one.file)
    print(f"{PAGE}: {len(lines.all)} runs")


if __name__ == "__main__":
    main()
