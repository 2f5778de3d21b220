"""Ranks while a model learns: a line of `metrics.jsonl` every so many steps, and a warning where one falls too low."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from fullrank.data.batch import Batch
from fullrank.diagnostics.points import Form, judged, point_ranks, share_of
from fullrank.diagnostics.spectrum import RankKind, effective_rank
from fullrank.diagnostics.table_rows import TableRows, tables_in_memory
from fullrank.features.tables import EmbeddingTables
from fullrank.training.callbacks import Callback, StepReport

NO_NUMBER = "holds what is no number"


class Probe(Callback):
    """After the first step and every `every` steps the ranker scores `batch` in eval mode, and the effective ranks of
    its taps and tables are written, `{"ranks": {point: {form: rank}}, "tables": {table: information abundance}, "low":
    [...]}`.

    `batch` stays the same, so that numbers of two steps can be compared: take some dozens of rows that are not trained
    on (64 cost little; centred forms have at most one direction less than rows). Of tables see `trained_rows`; they are
    read as they lie in memory (deferred weight decay is left deferred). Nothing that training goes by is touched:
    weights have the same bits with and without a probe.

    A point's rank (`judged`: of a token over rows) or a table's abundance that is under `warn_below` of the way from 1
    to the most it could be is named once, on stderr, and in every line (`low`). So is a point or table that is no
    number any more; its ranks are null. By custom a tenth, of entropy ranks (stable ranks are about half of them); a
    last layer may well be low, as its head reads few directions: what falls while others stay is what to look at.
    """

    def __init__(
        self,
        batch: Batch,
        *,
        every: int = 200,
        kind: RankKind = "entropy",
        forms: tuple[Form, ...] = ("sample", "token", "flat"),
        warn_below: float = 0.1,
    ) -> None:
        if every < 1:
            raise ValueError(f"Expected a probe every 1 step or more, got {every}.")
        if batch.num_rows < 2:
            raise ValueError(f"Expected a probe's batch of at least 2 rows, got {batch.num_rows}.")
        if not 0 <= warn_below <= 1:
            raise ValueError(f"Expected warn_below to be a share, 0 to 1, got {warn_below}.")
        point_ranks({"tried": torch.eye(2)}, kind, forms)  # its errors now, not at some step
        self.batch, self.every, self.forms, self.warn_below = batch, every, forms, warn_below
        self.kind: RankKind = kind
        self._warned: set[str] = set()
        self._rows: dict[str, TableRows] = {}

    def on_step(self, ranker: nn.Module, report: StepReport) -> Mapping[str, Any] | None:
        if report.step % self.every and report.step > 1:
            return None
        low: dict[str, str] = {}  # name → why
        ranks = self._points(ranker, low)
        tables = getattr(ranker, "tables", None)
        abundance = self._tables(tables, low) if isinstance(tables, EmbeddingTables) else {}
        for name in sorted(low.keys() - self._warned):
            print(f"Rank: {name}: {low[name]} at step {report.step}.", file=sys.stderr)
        self._warned |= low.keys()
        return {"ranks": ranks, "tables": abundance, "low": sorted(low)}

    def _why(self, what: str, rank: float, most: int) -> str:
        share = share_of(rank, most)
        return f"{what} {rank:.2f} of {most}, {share:.1%} of the way from 1 (under {self.warn_below:.0%})"

    def _tables(self, tables: EmbeddingTables, low: dict[str, str]) -> dict[str, float | None]:
        """Of each table with trained rows."""
        found: dict[str, float | None] = {}
        for name in tables_in_memory(tables):
            if name not in self._rows:  # how rows began is drawn once
                self._rows[name] = TableRows.of(tables, name)
            _, rows = self._rows[name].trained(tables)
            if not len(rows):
                continue
            if not rows.isfinite().all():
                found[name], low[f"table {name}"] = None, NO_NUMBER
                continue
            found[name] = rank = float(effective_rank(rows, "abundance"))
            if share_of(rank, min(rows.shape)) < self.warn_below:
                low[f"table {name}"] = self._why("abundance", rank, min(rows.shape))
        return found

    def _points(self, ranker: nn.Module, low: dict[str, str]) -> dict[str, dict[str, float] | None]:
        """Ranks by point and form."""
        taps: dict[str, Tensor] = {}
        was_training = ranker.training
        ranker.eval()
        try:
            with torch.no_grad():
                ranker(self.batch, taps=taps)
        finally:
            ranker.train(was_training)
        ranks: dict[str, dict[str, float] | None] = {}
        for point in [name for name, x in taps.items() if not x.isfinite().all()]:
            ranks[point], low[f"layer {point}"] = None, NO_NUMBER
            del taps[point]
        every = point_ranks(taps, self.kind, self.forms)
        for found in every:
            of_point = ranks.setdefault(found.point, {})
            assert of_point is not None
            of_point[found.form] = round(found.mean, 4)
        for found in judged(every):
            if found.share < self.warn_below:
                what = f"{self.kind} rank of a token over rows"
                low[f"layer {found.point}"] = self._why(what, found.mean, found.most)
        return ranks
