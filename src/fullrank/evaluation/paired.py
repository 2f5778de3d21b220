"""Several seeds of one recipe against several of another: mean, spread, and whether a difference is more than noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

Verdict = Literal["better", "worse", "inside the noise", "too few seeds", "not defined"]


@dataclass(frozen=True, kw_only=True)
class Spread:
    """`mean` and sample standard deviation `sd` (n - 1 below; nan of one value) of `n` values."""

    n: int
    mean: float
    sd: float


@dataclass(frozen=True, kw_only=True)
class PairedDifference:
    """`mean` of n differences (value - baseline), their `sd`, and the interval `[low, high]` of the true mean."""

    n: int
    mean: float
    sd: float
    low: float
    high: float
    verdict: Verdict


def spread(values: Sequence[float]) -> Spread:
    """Mean and sample standard deviation."""
    array = np.asarray(values, dtype=np.float64)
    if not len(array):
        return Spread(n=0, mean=float("nan"), sd=float("nan"))
    return Spread(
        n=len(array), mean=float(array.mean()), sd=float(array.std(ddof=1)) if len(array) > 1 else float("nan")
    )


def paired_difference(
    values: Sequence[float], baseline: Sequence[float], *, higher_is_better: bool, level: float = 0.9
) -> PairedDifference:
    """Student's interval of the mean of paired differences d_i = value_i - baseline_i.

    ``mean(d) ± t_{(1 + level) / 2, n - 1} · sd(d) / sqrt(n)``. A pair shares its seed: rows in one order, and what
    both models draw alike; that takes out of the difference what the seeds have in common. "better" or "worse" is
    said only where the interval holds no 0, "not defined" where some value is nan.

    It speaks of the training's chance on these very rows, not of other users or days (resample users for that), and
    it takes the differences for normal: with three seeds it is a rough guide. Several metrics looked at together
    have more chances to differ than one.
    """
    if len(values) != len(baseline):
        raise ValueError(f"Expected pairs, got {len(values)} values and {len(baseline)} of the baseline.")
    found = spread([value - base for value, base in zip(values, baseline, strict=True)])
    verdict: Verdict
    if found.n < 2 or not np.isfinite(found.sd):
        nan = float("nan")
        verdict = "too few seeds" if np.isfinite(found.mean) or not found.n else "not defined"
        return PairedDifference(n=found.n, mean=found.mean, sd=found.sd, low=nan, high=nan, verdict=verdict)
    from scipy.stats import t

    half = float(t.ppf((1 + level) / 2, found.n - 1)) * found.sd / found.n**0.5
    low, high = found.mean - half, found.mean + half
    verdict = "inside the noise"
    if low > 0 or high < 0:
        verdict = "better" if (low > 0) == higher_is_better else "worse"
    return PairedDifference(n=found.n, mean=found.mean, sd=found.sd, low=low, high=high, verdict=verdict)
