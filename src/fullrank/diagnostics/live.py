"""Ranks while a model learns: a line of `metrics.jsonl` every so many steps, and a warning where one falls too low."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from fullrank.data.batch import Batch
from fullrank.diagnostics.points import Form, point_ranks
from fullrank.diagnostics.spectrum import RankKind, effective_rank
from fullrank.features.tables import EmbeddingTables
from fullrank.training.callbacks import Callback, StepReport

ROWS_OF_TABLE = 4096


class Probe(Callback):
    """Every `every` steps the ranker scores `batch` in eval mode, and the effective ranks of its taps and tables are
    written, `{"ranks": {point: {form: rank}}, "tables": {table: information abundance}}`.

    `batch` stays the same, so that numbers of two steps can be compared: take some dozens of rows that are not trained
    on (64 cost little; centred forms have at most one direction less than rows). Of a table 4,096 rows are read, evenly
    spread, as they lie in memory (deferred weight decay is left deferred); tables on disk are left out. Nothing that
    training goes by is touched: weights have the same bits with and without a probe.

    A point whose `flat` rank, or a table whose abundance, is under `warn_below` of what it could be is named once, on
    stderr, and again in the line (`low`). By custom a tenth; a last layer may well be low, as its head reads few
    directions: what falls while others stay is what to look at.
    """

    def __init__(
        self,
        batch: Batch,
        *,
        every: int = 200,
        kind: RankKind = "entropy",
        forms: tuple[Form, ...] = ("sample", "flat"),
        warn_below: float = 0.1,
    ) -> None:
        if every < 1:
            raise ValueError(f"Expected a probe every 1 step or more, got {every}.")
        if batch.num_rows < 2:
            raise ValueError(f"Expected a probe's batch of at least 2 rows, got {batch.num_rows}.")
        self.batch, self.every, self.forms, self.warn_below = batch, every, forms, warn_below
        self.kind: RankKind = kind
        self._warned: set[str] = set()

    def on_step(self, ranker: nn.Module, report: StepReport) -> Mapping[str, Any] | None:
        if report.step % self.every:
            return None
        ranks, shares = self._points(ranker)
        tables = getattr(ranker, "tables", None)
        abundance: dict[str, float] = {}
        if isinstance(tables, EmbeddingTables):
            for name, rows in sampled_tables(tables).items():
                abundance[name] = float(effective_rank(rows, "abundance"))
                shares[f"table {name}"] = abundance[name] / min(rows.shape)
        low = sorted(name for name, share in shares.items() if share < self.warn_below)
        for name in low:
            if name not in self._warned:
                self._warned.add(name)
                print(
                    f"Rank: {name} uses {shares[name]:.0%} of its directions at step {report.step} (under "
                    f"{self.warn_below:.0%}). Look at it with fullrank diagnose.",
                    file=sys.stderr,
                )
        return {"ranks": ranks, "tables": abundance, "low": low}

    def _points(self, ranker: nn.Module) -> tuple[dict[str, dict[str, float]], dict[str, float]]:
        """Ranks by point and form, and the share of their most that the flat ones are."""
        taps: dict[str, Tensor] = {}
        was_training = ranker.training
        ranker.eval()
        try:
            with torch.no_grad():
                ranker(self.batch, taps=taps)
        finally:
            ranker.train(was_training)
        ranks: dict[str, dict[str, float]] = {}
        shares: dict[str, float] = {}
        for found in point_ranks(taps, self.kind, self.forms):
            ranks.setdefault(found.point, {})[found.form] = round(found.mean, 4)
            if found.form == "flat":
                shares[found.point] = found.share
        return ranks, shares


@torch.no_grad()
def sampled_tables(tables: EmbeddingTables, most: int = ROWS_OF_TABLE) -> dict[str, Tensor]:
    """Up to `most` rows of every table in memory, evenly spread over those that keys can have (row 0 is padding)."""
    found = {}
    for name, (arena, base, spec) in tables.plan.places.items():
        if spec.disk is None and spec.num_rows > 1:
            step = max(1, (spec.num_rows - 1) // most)
            found[name] = tables.arenas[arena].detach()[base + 1 : base + spec.num_rows : step][:most]
    return found
