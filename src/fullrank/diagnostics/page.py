"""A collapse report as one page: for every picture how to read it and what to try."""

from __future__ import annotations

from pathlib import Path

from fullrank.diagnostics.collapse import LOW, CollapseReport, Spectrum
from fullrank.diagnostics.pictures import DEPTH, HISTORIES, POINTS, TABLES, TRAINING, show
from fullrank.diagnostics.points import FORMS
from fullrank.evaluation.html_page import HtmlPage


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
    page.table(["table", "trained rows read", "abundance", "entropy rank", "of"], [_line(one) for one in report.tables])
    for names, why in ((report.untrained, "No row was trained of"), (report.on_disk, "On disk, and not looked at")):
        if names:
            page.text(f"{why}: {', '.join(names)}.")
    if report.similar:
        page.text(
            "Tables of one key space, compared: cosines of a key's rows near 1, or CKA near 1, say that the second "
            "table has learned nothing else than the first."
        )
        rows = [[one.key_space, one.one, one.other, f"{one.cosine:.2f}", f"{one.cka:.2f}"] for one in report.similar]
        page.table(["key space", "table", "and", "cosine", "CKA"], rows, words=3)
    page.heading("Layers")
    show(page, DEPTH, report)
    page.table(["layer", *FORMS], _ranks(report))
    show(page, POINTS, report)
    if report.histories:
        page.heading("Histories")
        show(page, HISTORIES, report)
        page.text(f"Of {report.histories[0].rows:,} rows with at least two events.")
    page.heading("During training")
    if report.training:
        show(page, TRAINING, report)
    else:
        page.text("No probes were written: with fullrank train --probe-every 200 this shows how ranks move.")
    return page.write(path)


def _low(page: HtmlPage, report: CollapseReport) -> None:
    page.heading("What uses little of its space?")
    page.text(
        "What has less than a tenth of the rank that it could have, from 1 to the most: tables by information "
        "abundance, layers by the entropy rank of a token over rows."
    )
    rows = [[f"table {one.name}", f"{one.abundance:.2f}", str(one.most)] for one in report.low_tables]
    rows += [[f"layer {one.point}", f"{one.mean:.2f}", str(one.most)] for one in report.low_points]
    page.table([f"under {LOW:.0%}", "rank", "of"], rows or [["none", "", ""]])


def _ranks(report: CollapseReport) -> list[list[str]]:
    """Of every point, in each form, the rank and what it could be."""
    by_point: dict[str, dict[str, str]] = {}
    for one in report.ranks:
        by_point.setdefault(one.point, {})[one.form] = f"{one.mean:.1f} of {one.most}"
    return [[point, *(forms.get(form, "") for form in FORMS)] for point, forms in by_point.items()]


def _line(one: Spectrum) -> list[str]:
    return [one.name, f"{one.rows:,}", f"{one.abundance:.1f}", f"{one.entropy:.1f}", str(one.most)]
