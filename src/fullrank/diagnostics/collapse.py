"""What a trained model makes of the space it has: spectra of its tables and points, and ranks over depth and training.

Legend: B rows · S singular values · D width.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import torch
from torch import Tensor

from fullrank.data.batch import Batch
from fullrank.data.loader import Loader
from fullrank.data.partitions import PreparedData
from fullrank.diagnostics.live import sampled_tables
from fullrank.diagnostics.points import EVENTS, PointRank, event_ranks, point_ranks
from fullrank.diagnostics.spectrum import rank_of, singular_values
from fullrank.rankers import Ranker, TokenFormer
from fullrank.rankers.load import load_ranker
from fullrank.training.run import Run

ROWS = 512
ROWS_OF_TABLE = 1 << 16


@dataclass(frozen=True, kw_only=True)
class Spectrum:
    """The singular values of a table (`rows` of it were read) or of a point (centred, all tokens side by side), the
    largest being 1; information abundance and entropy rank, and what both could be at most."""

    name: str
    rows: int
    values: tuple[float, ...]
    abundance: float
    entropy: float
    most: int

    @property
    def share(self) -> float:
        """Abundance, of the most that it could be."""
        return self.abundance / self.most


@dataclass(frozen=True, kw_only=True)
class SetSimilarity:
    """Two tables of one key space: the mean absolute cosine of a key's two rows, and linear CKA of both (1: equal up to
    a rotation; Kornblith et al. 2019, arXiv:1905.00414)."""

    key_space: str
    one: str
    other: str
    cosine: float
    cka: float


@dataclass(frozen=True, kw_only=True)
class HistoryRank:
    """The mean entropy rank of a row's event tokens, `[events, D]`, as the model runs and with the request's fields
    taken out of its stream; over rows with at least two events. `most`: the mean of what it could be."""

    point: str
    with_fields: float
    without_fields: float
    most: float


@dataclass(frozen=True, kw_only=True)
class CollapseReport:
    """`training`: the lines of `metrics.jsonl` that probes wrote, oldest first."""

    run: Run
    split: str
    rows: int
    tables: tuple[Spectrum, ...]
    points: tuple[Spectrum, ...]
    ranks: tuple[PointRank, ...]
    similar: tuple[SetSimilarity, ...]
    histories: tuple[HistoryRank, ...]
    training: tuple[dict[str, Any], ...]


@torch.no_grad()
def collapse_report(run: Run, data: PreparedData, split: str = "valid", rows: int = ROWS) -> CollapseReport:
    """Measure a run's ranker on the first `rows` rows of a split (the train split if it has none). Nothing is drawn."""
    ranker = load_ranker(run)
    data = data.pinned(run.transform())
    split = split if data.num_rows(split) else "train"
    batch = next(iter(Loader(data, ranker.inputs, split, batch_size=rows).epoch(0)))
    taps: dict[str, Tensor] = {}
    ranker(batch, taps=taps)
    points = {name: x for name, x in taps.items() if x.dim() >= 2 and name.split(".")[0] != EVENTS}
    tables = sampled_tables(ranker.tables, ROWS_OF_TABLE)
    return CollapseReport(
        run=run,
        split=split,
        rows=batch.num_rows,
        tables=tuple(_spectrum(name, x) for name, x in tables.items()),
        points=tuple(_spectrum(name, x.flatten(1) - x.flatten(1).mean(0)) for name, x in points.items() if x.numel()),
        ranks=tuple(point_ranks(points)),
        similar=tuple(_similar(ranker, tables)),
        histories=tuple(_histories(ranker, batch, taps)),
        training=tuple(_training(run)),
    )


def _spectrum(name: str, x: Tensor) -> Spectrum:
    values_S = singular_values(x)
    largest = float(values_S[0])
    shown = (values_S / largest).tolist() if largest else [0.0] * len(values_S)
    return Spectrum(
        name=name,
        rows=len(x),
        values=tuple(shown),
        abundance=float(rank_of(values_S, "abundance")),
        entropy=float(rank_of(values_S)),
        most=min(x.shape),
    )


def _similar(ranker: Ranker, tables: dict[str, Tensor]) -> Iterator[SetSimilarity]:
    """Of every two tables of one key space and width."""
    by_space: dict[str, list[str]] = {}
    for name in tables:
        by_space.setdefault(ranker.tables.plan.places[name][2].key_space, []).append(name)
    for space, names in by_space.items():
        for one, other in combinations(names, 2):
            x, y = (tables[name].double() for name in (one, other))
            if x.shape == y.shape:
                cosine = torch.nn.functional.cosine_similarity(x, y).abs().mean()
                yield SetSimilarity(key_space=space, one=one, other=other, cosine=float(cosine), cka=linear_cka(x, y))


def linear_cka(x_BD: Tensor, y_BE: Tensor) -> float:
    """`|Yᵀ X|² / (|Xᵀ X| |Yᵀ Y|)` of centred matrices (Frobenius norms); 0 where one is constant."""
    x, y = (one.double() - one.double().mean(0) for one in (x_BD, y_BE))
    below = (x.mT @ x).norm() * (y.mT @ y).norm()
    return float((y.mT @ x).square().sum() / below) if below else 0.0


def _histories(ranker: Ranker, batch: Batch, taps: dict[str, Tensor]) -> Iterator[HistoryRank]:
    if not isinstance(ranker, TokenFormer) or ranker.stream.fields is None:
        return
    without: dict[str, Tensor] = {}
    with _without_fields(ranker):
        ranker(batch, taps=without)
    bare = event_ranks(without)
    for name, (rank, most) in event_ranks(taps).items():
        yield HistoryRank(point=name, with_fields=rank, without_fields=bare[name][0], most=most)


@contextmanager
def _without_fields(ranker: TokenFormer) -> Iterator[None]:
    fields, ranker.stream.fields = ranker.stream.fields, None
    try:
        yield
    finally:
        ranker.stream.fields = fields


def _training(run: Run) -> Iterator[dict[str, Any]]:
    with (run.path / "metrics.jsonl").open(encoding="utf-8") as file:
        for line in file:
            if line.endswith("\n"):  # of a run at work, or killed: half a line
                found = json.loads(line)
                if "ranks" in found:
                    yield found
