"""A collapse report as one page: for every picture how to read it and what to try."""

from __future__ import annotations

from pathlib import Path

from fullrank.diagnostics.collapse import CollapseReport, Spectrum
from fullrank.diagnostics.pictures import DEPTH, HISTORIES, POINTS, TABLES, TRAINING, show
from fullrank.evaluation.html_page import HtmlPage

LOW = 0.1  # of what a rank could be: named


def write_diagnosis(report: CollapseReport, path: Path) -> Path:
    """One HTML page that stands alone."""
    run = report.run
    page = HtmlPage(f"How {run.record.type_tag} uses its space")
    page.text(
        f"A ranker trained by fullrank {run.record.fullrank}, in {run.path}, on {report.rows:,} {report.split} rows. A "
        "rank says how many directions are used, not whether they are the right ones: a model may be good with few. "
        "Compare models by their metrics, and look here for where they differ."
    )
    _low(page, report)
    page.heading("Tables")
    show(page, TABLES, report)
    page.table(["table", "rows read", "abundance", "entropy rank", "of"], [_line(one) for one in report.tables])
    if report.similar:
        page.text(
            "Tables of one key space, compared: cosines of a key's rows near 1, or CKA near 1, say that the second "
            "table has learned nothing else than the first."
        )
        rows = [[one.key_space, one.one, one.other, f"{one.cosine:.2f}", f"{one.cka:.2f}"] for one in report.similar]
        page.table(["key space", "table", "and", "cosine", "CKA"], rows, words=3)
    page.heading("Layers")
    show(page, DEPTH, report)
    show(page, POINTS, report)
    if report.histories:
        page.heading("Histories")
        show(page, HISTORIES, report)
    page.heading("During training")
    if report.training:
        show(page, TRAINING, report)
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
