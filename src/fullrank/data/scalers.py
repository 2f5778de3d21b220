"""Scaling of numeric features: fitted once on the training rows, in one pass, the same whatever the order or the
chunks the rows come in.

    none      x
    standard  (x - mean) / sd                     population sd; 1 for a constant column
    log       standard of sign(x) log1p|x|
    quantile  piecewise linear from fitted quantiles to [0, 1]: the share of training values below x, half of those
              equal; flat outside of what was seen

NaN (missing) stays NaN and is not fitted; a column that was never there is left as it is. Row counts: a user's number
counts once a row, not once a user. Don't use `quantile` where distances matter far out: it is flat beyond the training
values; `log` is not.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from fullrank.data.columns import Ragged
from fullrank.data.keys import splitmix64
from fullrank.data.normalised import Normalised
from fullrank.kernels.exact_sums import add_exactly
from fullrank.schema import Scale, Schema

QUANTILES = 1024
SAMPLE = 200_000  # values that quantiles are read from; a level is then off by about 0.001 (1 / (2 sqrt(SAMPLE)))


@dataclass(frozen=True)
class Scaler:
    """One fitted scaler. `values` ascending and their `levels` in [0, 1] are for `quantile` alone."""

    scale: Scale = "none"
    mean: float = 0.0
    sd: float = 1.0
    values: tuple[float, ...] = ()
    levels: tuple[float, ...] = ()

    def apply(self, numbers: np.ndarray) -> np.ndarray:
        """float32 in, float32 out; computed in float64."""
        if self.scale == "none":
            return numbers
        if self.scale == "quantile":
            if not self.values:
                return numbers
            scaled = np.interp(numbers.astype(np.float64), self.values, self.levels)
            return np.where(np.isnan(numbers), np.nan, scaled).astype(np.float32)
        numbers = symmetric_log(numbers) if self.scale == "log" else numbers
        return ((numbers.astype(np.float64) - self.mean) / self.sd).astype(np.float32)


@dataclass(frozen=True)
class Scalers:
    """The fitted scaler of every numeric feature, and of numeric event features as `@history.NAME.FEATURE`."""

    by_name: dict[str, Scaler] = field(default_factory=dict)

    def apply(self, name: str, numbers: np.ndarray) -> np.ndarray:
        return self.by_name[name].apply(numbers)

    def to_json(self) -> dict[str, Any]:
        return {name: asdict(scaler) for name, scaler in self.by_name.items()}

    @staticmethod
    def from_json(value: dict[str, Any]) -> Scalers:
        """What `to_json` gave, bit for bit: JSON floats are written so that they read back exactly."""
        return Scalers(
            {
                name: Scaler(s["scale"], s["mean"], s["sd"], tuple(s["values"]), tuple(s["levels"]))
                for name, s in value.items()
            }
        )

    def save(self, path: Path) -> None:
        path.write_text(json.dumps(self.to_json(), allow_nan=False) + "\n", encoding="utf-8")

    @staticmethod
    def load(path: Path) -> Scalers:
        return Scalers.from_json(json.loads(path.read_text(encoding="utf-8")))


class ScalersFitter:
    """Fits every scaler of a schema: `add` training rows, then `finish`."""

    def __init__(self, schema: Schema):
        scales: dict[str, Scale] = {f.name: f.scale for f in schema.features if f.kind == "numeric"}
        self._history_of: dict[str, str] = {}
        for history in schema.histories:
            for feature in history.features:
                if feature.kind == "numeric":
                    name = f"@history.{history.name}.{feature.name}"
                    scales[name], self._history_of[name] = feature.scale, history.name
        self._fitters = {name: ScalerFitter(scale) for name, scale in scales.items()}

    def add(self, rows: Normalised, ordinals: np.ndarray) -> None:
        """Training rows and their numbers in the data (any order, each once). A row of the log that is no event of a
        by_user history does not count for that history's features."""
        row_order = splitmix64(ordinals.astype(np.uint64))
        for name, fitter in self._fitters.items():
            column = rows.columns.get(name)
            if isinstance(column, Ragged):
                lengths = np.diff(column.offsets)
                place = np.arange(len(column.values), dtype=np.uint64) - np.repeat(
                    column.offsets[:-1].astype(np.uint64), lengths
                )
                fitter.add(column.values, splitmix64(np.repeat(row_order, lengths) + place))
            elif column is not None:
                where = f"@history.{self._history_of[name]}.where" if name in self._history_of else ""
                chosen = rows.array(where) if where else slice(None)
                fitter.add(column[chosen], row_order[chosen])

    def add_events(self, history: str, events: Normalised, ordinals: np.ndarray) -> None:
        """Events of a by_user history's own file, as `normalise_events` gives them."""
        order = splitmix64(ordinals.astype(np.uint64))
        prefix = f"@history.{history}."
        for name, fitter in self._fitters.items():
            if name.startswith(prefix):
                fitter.add(events.array(name.removeprefix(prefix)), order)

    def finish(self) -> Scalers:
        return Scalers({name: fitter.finish() for name, fitter in self._fitters.items()})


class ScalerFitter:
    """One column: exact moments, or quantiles of a bottom-k sample; nothing depends on the order of the values."""

    def __init__(self, scale: Scale):
        self.scale: Scale = scale
        self._moments = _Moments()
        self._sample = _Sample()

    def add(self, numbers: np.ndarray, order: np.ndarray) -> None:
        """float32 values, and for each a uint64 that is evenly spread and its own (a hash of where it stands)."""
        if self.scale == "quantile":
            there = ~np.isnan(numbers)
            self._sample.add(numbers[there], order[there])
        elif self.scale != "none":
            self._moments.add(symmetric_log(numbers) if self.scale == "log" else numbers)

    def finish(self) -> Scaler:
        if self.scale == "quantile":
            values, levels = self._sample.quantiles()
            return Scaler(self.scale, values=values, levels=levels)
        mean, sd = self._moments.mean_and_sd()
        return Scaler(self.scale, mean, sd) if self._moments.count else Scaler()


def symmetric_log(x: np.ndarray) -> np.ndarray:
    """sign(x) log1p|x|, float32: like x near 0, like a logarithm far out."""
    wide = x.astype(np.float64)
    return (np.sign(wide) * np.log1p(np.abs(wide))).astype(np.float32)


class _Moments:
    """Exact sums of float32 values and of their squares.

    Nothing is rounded before mean and variance are, once each: they cannot depend on order or chunks.
    """

    def __init__(self) -> None:
        self.count = 0
        self._sums = np.zeros((3, 256), dtype=np.int64)  # of mantissas, and of the two halves of their squares

    def add(self, values: np.ndarray) -> None:
        """Those that are not NaN."""
        self.count += add_exactly(values, self._sums)

    def mean_and_sd(self) -> tuple[float, float]:
        if not self.count:
            return 0.0, 1.0
        sums, high, low = ([int(part) for part in row] for row in self._sums)
        total = sum(sums[e] << (e - 1) for e in range(1, 256))  # in units of 2^-149
        squares = sum(((high[e] << 24) + low[e]) << (2 * (e - 1)) for e in range(1, 256))  # of 2^-298
        mean = float(Fraction(total, self.count << 149))
        variance = Fraction(squares * self.count - total * total, self.count**2 << 298)
        return mean, float(variance) ** 0.5 or 1.0


class _Sample:
    """The `SAMPLE` values of least `order`: a uniform sample that does not depend on the order of arrival."""

    def __init__(self) -> None:
        self._values: list[np.ndarray] = []
        self._order: list[np.ndarray] = []
        self._held = 0

    def add(self, values: np.ndarray, order: np.ndarray) -> None:
        self._values.append(values)
        self._order.append(order)
        self._held += len(values)
        if self._held >= 2 * SAMPLE:
            self._cut()

    def _cut(self) -> None:
        values, order = np.concatenate(self._values), np.concatenate(self._order)
        if len(values) > SAMPLE:
            least = np.argpartition(order, SAMPLE)[:SAMPLE]
            values, order = values[least], order[least]
        self._values, self._order, self._held = [values], [order], len(values)

    def quantiles(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """At most `QUANTILES` distinct values and the level of each."""
        if not self._held:
            return (), ()
        self._cut()
        values = np.sort(self._values[0]).astype(np.float64)
        at = np.linspace(0, len(values) - 1, QUANTILES)
        knots = np.unique(values[np.rint(at).astype(np.int64)])
        span = max(len(values) - 1, 1)
        first, last = np.searchsorted(values, knots, "left"), np.searchsorted(values, knots, "right") - 1
        levels = (first + last) / 2 / span if len(values) > 1 else np.array([0.5])
        return tuple(knots.tolist()), tuple(levels.tolist())
