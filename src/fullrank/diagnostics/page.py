"""A collapse report as one page: for every picture how to read it and what to try."""

from __future__ import annotations

from pathlib import Path

from fullrank.diagnostics.collapse import CollapseReport, Spectrum
from fullrank.diagnostics.plots import plot_depth, plot_histories, plot_spectra, plot_training
from fullrank.evaluation.html_page import HtmlPage

LOW = 0.1  # of what a rank could be: named


def write_diagnosis(report: CollapseReport, path: Path) -> Path:
    """One HTML page that stands alone."""
    import matplotlib.pyplot as plt

    run = report.run
    page = HtmlPage(f"How {run.record.type_tag} uses its space")
    page.text(
        f"A ranker trained by fullrank {run.record.fullrank}, in {run.path}, on {report.rows:,} {report.split} rows. A "
        "rank says how many directions are used, not whether they are the right ones: a model may be good with few. "
        "Compare models by their metrics, and look here for where they differ."
    )
    _low(page, report)
    page.heading("Tables")
    figure, ax = plt.subplots(figsize=(8, 3.6))
    plot_spectra(report.tables, ax)
    page.figure(
        figure,
        "Singular values of each table's rows. A line that falls at once belongs to a table that uses few of its "
        "directions: rows of few keys, or keys that were seen together. Try a narrower table, weight decay, or several "
        "sets of tables (RankUp).",
    )
    page.table(["table", "rows read", "abundance", "entropy rank", "of"], [_line(one) for one in report.tables])
    if report.similar:
        page.text(
            "Tables of one key space, compared: cosines of a key's rows near 1, or CKA near 1, say that the second "
            "table has learned nothing else than the first."
        )
        rows = [[one.key_space, one.one, one.other, f"{one.cosine:.2f}", f"{one.cka:.2f}"] for one in report.similar]
        page.table(["key space", "table", "and", "cosine", "CKA"], rows, words=3)
    page.heading("Layers")
    figure, ax = plt.subplots(figsize=(8, 3.6))
    plot_depth(report.ranks, ("sample", "centred", "token", "flat"), ax)
    page.figure(
        figure,
        "Effective rank over depth. sample: the tokens of a row; centred: less what all rows have in common; token: "
        "one token over rows; flat: all tokens over rows. A saw that goes up at mixing and down at networks, ever "
        "less, is the damped oscillation that RankElastor describes: try gated networks. sample high and centred low: "
        "tokens differ by constants. The last layer may be low without harm, as its head reads few directions.",
    )
    figure, ax = plt.subplots(figsize=(8, 3.6))
    plot_spectra(report.points, ax)
    page.figure(figure, "Singular values of all tokens of a layer over rows, less their mean: early falls are narrow.")
    if report.histories:
        page.heading("Histories")
        figure, ax = plt.subplots(figsize=(8, 3.2))
        plot_histories(report.histories, ax)
        page.figure(
            figure,
            "Effective rank of a row's event tokens through the layers. Where the line with fields lies below the one "
            "without, fields of few values drag the events down (collapse propagation): try fewer full layers.",
        )
    page.heading("During training")
    if report.training:
        figure, ax = plt.subplots(figsize=(8, 3.6))
        plot_training(report.training, "flat", ax)
        page.figure(
            figure,
            "Effective rank of all tokens over rows, by step. A point that falls while others stay is where directions "
            "get lost: look at its learning rate and norm.",
        )
    else:
        page.text("No probes were written. Train with --probe-every 200 to see how ranks move.")
    return page.write(path)


def _low(page: HtmlPage, report: CollapseReport) -> None:
    page.heading("What uses little of its space?")
    tables = [one for one in report.tables if one.share < LOW]
    points = [one for one in report.ranks if one.form == "flat" and one.share < LOW]
    if not tables and not points:
        page.text(f"No table and no layer uses less than {LOW:.0%} of its directions.")
        return
    rows = [[f"table {one.name}", f"{one.abundance:.1f}", str(one.most)] for one in tables]
    rows += [[f"layer {one.point}", f"{one.mean:.1f}", str(one.most)] for one in points]
    page.table([f"under {LOW:.0%}", "directions used", "of"], rows)


def _line(one: Spectrum) -> list[str]:
    return [one.name, f"{one.rows:,}", f"{one.abundance:.1f}", f"{one.entropy:.1f}", str(one.most)]
