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
from fullrank.data.splits import SPLITS
from fullrank.diagnostics.points import EVENTS, PointRank, event_ranks, judged, point_ranks, share_of
from fullrank.diagnostics.spectrum import rank_of, singular_values
from fullrank.diagnostics.table_rows import trained_rows
from fullrank.rankers import Ranker, TokenFormer
from fullrank.rankers.load import load_ranker
from fullrank.schema import did_you_mean
from fullrank.training.run import Run

ROWS = 512
ROWS_OF_TABLE = 1 << 16
LOW = 0.1  # of what a rank could be: named


@dataclass(frozen=True, kw_only=True)
class Spectrum:
    """The singular values of a table (its `rows` that were read and that training has moved; nothing is subtracted) or
    of a point (centred, all tokens side by side), the largest being 1; information abundance and entropy rank, and what
    both could be at most."""

    name: str
    rows: int
    values: tuple[float, ...]
    abundance: float
    entropy: float
    most: int

    @property
    def share(self) -> float:
        """Where abundance lies from 1 to the most that it could be."""
        return share_of(self.abundance, self.most)


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
    taken out of its stream; over the `rows` that have at least two events. `most`: the mean of what it could be."""

    point: str
    with_fields: float
    without_fields: float
    most: float
    rows: int


@dataclass(frozen=True, kw_only=True)
class CollapseReport:
    """`training`: the lines of `metrics.jsonl` that probes wrote, oldest first. `untrained`: tables none of whose rows
    training has moved; `on_disk`: tables that are not looked at."""

    run: Run
    split: str
    rows: int
    tables: tuple[Spectrum, ...]
    untrained: tuple[str, ...]
    on_disk: tuple[str, ...]
    points: tuple[Spectrum, ...]
    ranks: tuple[PointRank, ...]
    similar: tuple[SetSimilarity, ...]
    histories: tuple[HistoryRank, ...]
    training: tuple[dict[str, Any], ...]

    @property
    def low_tables(self) -> list[Spectrum]:
        """Whose abundance is under `LOW` of what it could be."""
        return [one for one in self.tables if one.share < LOW]

    @property
    def numbers(self) -> dict[str, dict[str, Any]]:
        """Rank and what it could be, of tables and of points by form."""
        points: dict[str, Any] = {}
        for one in self.ranks:
            points.setdefault(one.point, {})[one.form] = [one.mean, one.most]
        return {"tables": {one.name: [one.abundance, one.most] for one in self.tables}, "points": points}

    @property
    def low_points(self) -> list[PointRank]:
        """Where a token over rows has under `LOW` of the rank it could have."""
        return [one for one in judged(self.ranks) if one.share < LOW]


@torch.no_grad()
def collapse_report(run: Run, data: PreparedData, split: str = "valid", rows: int = ROWS) -> CollapseReport:
    """Measure a run's ranker on `rows` rows of a split, by lot but the same every time (of the train split if it has
    none). No picture is made."""
    if split not in SPLITS:
        raise ValueError(f"Expected a split of {SPLITS}, got {split!r}.{did_you_mean(split, SPLITS)}")
    if rows < 2:
        raise ValueError(f"Expected at least 2 rows to look at, got {rows}.")
    data.lineage.check(run.record.lineage, str(run.path))
    ranker = load_ranker(run)
    data = data.pinned(run.transform())
    split = split if data.num_rows(split) else "train"
    batch = next(iter(Loader(data, ranker.inputs, split, batch_size=rows, shuffle=True, seed=0).epoch(0)))
    taps: dict[str, Tensor] = {}
    ranker(batch, taps=taps)
    points = {name: x for name, x in taps.items() if x.dim() >= 2 and name.split(".")[0] != EVENTS}
    tables = trained_rows(ranker.tables, ROWS_OF_TABLE)
    return CollapseReport(
        run=run,
        split=split,
        rows=batch.num_rows,
        tables=tuple(_spectrum(name, x_UD, min(x_UD.shape)) for name, (_, x_UD) in tables.items() if len(x_UD)),
        untrained=tuple(name for name, (row_U, _) in tables.items() if not len(row_U)),
        on_disk=tuple(name for name, (_, _, spec) in ranker.tables.plan.places.items() if spec.disk is not None),
        points=tuple(_of_point(name, x.flatten(1)) for name, x in points.items() if x.numel()),
        ranks=tuple(point_ranks(points)),
        similar=tuple(_similar(ranker, tables)),
        histories=tuple(_histories(ranker, batch, taps)),
        training=tuple(_training(run)),
    )


def _of_point(name: str, x_BW: Tensor) -> Spectrum:
    """Centred, which takes one direction."""
    away_BW = x_BW - x_BW.mean(0)
    return _spectrum(name, away_BW, min(len(x_BW) - 1, x_BW.shape[1]))


def _spectrum(name: str, x: Tensor, most: int) -> Spectrum:
    values_S = singular_values(x)
    largest = float(values_S[0])
    shown = (values_S[:most] / largest).tolist() if largest else [0.0] * most
    return Spectrum(
        name=name,
        rows=len(x),
        values=tuple(shown),
        abundance=float(rank_of(values_S, "abundance")),
        entropy=float(rank_of(values_S)),
        most=most,
    )


def _similar(ranker: Ranker, tables: dict[str, tuple[Tensor, Tensor]]) -> Iterator[SetSimilarity]:
    """Of every two tables of one key space and width, whose rows were moved together."""
    by_space: dict[str, list[str]] = {}
    for name in tables:
        by_space.setdefault(ranker.tables.plan.places[name][2].key_space, []).append(name)
    for space, names in by_space.items():
        for one, other in combinations(names, 2):
            (own_U, x), (other_U, y) = tables[one], tables[other]
            if len(own_U) and torch.equal(own_U, other_U) and x.shape == y.shape:
                x, y = x.double(), y.double()
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
    known = int((taps[f"{EVENTS}.length"] >= 2).sum()) if f"{EVENTS}.length" in taps else 0
    for name, (rank, most) in event_ranks(taps).items():
        yield HistoryRank(point=name, with_fields=rank, without_fields=bare[name][0], most=most, rows=known)


@contextmanager
def _without_fields(ranker: TokenFormer) -> Iterator[None]:
    fields, ranker.stream.fields = ranker.stream.fields, None
    try:
        yield
    finally:
        ranker.stream.fields = fields


def _training(run: Run) -> Iterator[dict[str, Any]]:
    path = run.path / "metrics.jsonl"
    if not path.exists():
        return
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if line.endswith("\n"):  # of a run at work, or killed: half a line
                try:
                    found = json.loads(line)
                except json.JSONDecodeError as error:
                    got = f"{path}, line {number}, got {line.strip()!r}"
                    raise ValueError(f"Expected a line of JSON in {got}.") from error
                if "ranks" in found:
                    yield found
