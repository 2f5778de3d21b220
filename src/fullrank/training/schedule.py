"""How the learning rate goes over a run."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

Decay = Literal["constant", "cosine", "linear", "plateau"]


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """A factor on every learning rate, of dense parameters and of tables alike: a linear warm-up, then a decay.

    With x = rows seen before a step, X = rows of all epochs, W = rows of the warm-up and p = (x - W) / (X - W):

        warm-up    rows seen after the step / W, up to 1
        constant   1
        cosine     floor + (1 - floor) (1 + cos πp) / 2       (Loshchilov & Hutter 2017, arXiv:1608.03983, one cycle)
        linear     floor + (1 - floor) (1 - p)
        plateau    times `factor`, but not below `floor`, whenever `metric` did not improve `patience` times in a row

    Rows, not steps, are the clock (our choice), so that batches may differ in size.

    Args:
        decay: what follows the warm-up.
        warmup_steps: steps of `accumulate · batch_size` rows each; 0: none.
        floor: the least factor, a share of the learning rate.
        metric: of plateau: the validation metric to go by, TASK.METRIC.
        factor: of plateau: what the learning rate is multiplied by.
        patience: of plateau: validations in a row without improvement that lower it.

    cosine and linear are made for runs that go to their last epoch: with early stopping the rate has hardly fallen when
    a run stops, so use plateau there.
    """

    decay: Decay = "constant"
    warmup_steps: int = 0
    floor: float = 0.0
    metric: str = ""
    factor: float = 0.1
    patience: int = 1

    def __post_init__(self) -> None:
        if self.decay not in get_args(Decay):
            raise ValueError(f"Expected schedule.decay to be one of {get_args(Decay)}, got {self.decay!r}.")
        if self.warmup_steps < 0:
            raise ValueError(f"Expected schedule.warmup_steps >= 0, got {self.warmup_steps}.")
        if not 0 <= self.floor <= 1:
            raise ValueError(f"Expected schedule.floor in [0, 1], a share of the learning rate, got {self.floor}.")
        if not 0 < self.factor < 1:
            raise ValueError(f"Expected schedule.factor in (0, 1), got {self.factor}.")
        if self.patience < 1:
            raise ValueError(f"Expected schedule.patience >= 1, got {self.patience}.")
        if bool(self.metric) != (self.decay == "plateau"):
            raise ValueError(
                f"Expected schedule.metric (TASK.METRIC) with schedule.decay='plateau' and only there, got "
                f"{self.metric!r} with {self.decay!r}."
            )

    def at(self, before: int, after: int, *, warmup: int, total: int) -> float:
        """The factor of a step that goes from `before` to `after` rows seen; `plateau`'s own comes on top."""
        if before < warmup:
            return min(1.0, after / warmup)
        if self.decay not in ("cosine", "linear"):
            return 1.0
        p = (before - warmup) / (total - warmup)
        fallen = (1 + math.cos(math.pi * p)) / 2 if self.decay == "cosine" else 1 - p
        return self.floor + (1 - self.floor) * fallen

    def lowered(self, factor: float) -> float:
        """`plateau`'s factor after one more reduction."""
        return max(self.floor, factor * self.factor)
