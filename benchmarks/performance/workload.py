"""What every contender of a figure gets: sizes, ids and labels, as files of one folder."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

Kind = Literal["zipf", "uniform"]


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """`steps` batches go round. Each feature has a table of its own, all of one size, whose row 0 is padding and is not
    drawn. `zipf`: P(id) ~ id^-zipf, so rows are numbered by how often they come, as FuxiCTR's and our id maps do."""

    features: int = 39
    rows_of_a_feature: int
    width: int = 16
    batch: int = 4096
    steps: int = 32
    cross_layers: int = 3
    hidden: tuple[int, ...] = (400, 400, 400)
    init_std: float = 0.01
    lr: float = 1e-3
    zipf: float = 1.05
    threads: int = 2

    @property
    def rows(self) -> int:
        return self.features * self.rows_of_a_feature

    @property
    def table_mib(self) -> float:
        return self.rows * self.width * 4 / 2**20

    def quick(self) -> Sizes:
        """Small enough for a test; its figures mean nothing."""
        return replace(
            self, features=5, rows_of_a_feature=min(500, self.rows_of_a_feature), batch=256, steps=2, hidden=(16, 16)
        )


def rows_in_all(rows: int, **others: int) -> Sizes:
    """Sizes with about `rows` rows over all features."""
    features = others.get("features", Sizes.features)
    return Sizes(rows_of_a_feature=round(rows / features), **others)  # type: ignore[arg-type]  # whole numbers alone


def write(sizes: Sizes, folder: Path, kinds: tuple[Kind, ...] = ("zipf",)) -> Path:
    """The folder, with `sizes.json`, `ids.KIND.npy` (int32 [S, B, F]) and `labels.npy` (float32 [S, B], a quarter of
    them 1, at random: time does not depend on what is learnt)."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    for kind in kinds:
        np.save(folder / f"ids.{kind}.npy", ids(sizes, kind, random))
    labels_SB = (random.random((sizes.steps, sizes.batch)) < 0.25).astype(np.float32)
    np.save(folder / "labels.npy", labels_SB)
    (folder / "sizes.json").write_text(json.dumps(asdict(sizes)))
    return folder


def ids(sizes: Sizes, kind: Kind, random: np.random.Generator) -> np.ndarray:
    """int32 [S, B, F] in 1 .. rows_of_a_feature - 1."""
    shape = (sizes.steps, sizes.batch, sizes.features)
    last = sizes.rows_of_a_feature - 1
    if kind == "uniform":
        return random.integers(1, last, shape, dtype=np.int32, endpoint=True)
    below = np.cumsum(np.arange(1, last + 1, dtype=np.float64) ** -sizes.zipf)
    drawn = np.searchsorted(below, random.random(shape) * below[-1], side="right")
    return (np.minimum(drawn, last - 1) + 1).astype(np.int32)
