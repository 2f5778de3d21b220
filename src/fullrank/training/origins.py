"""Where a run's first weights came from, if not from its seed: kept in `run.json`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fullrank.data.partitions import DataState

if TYPE_CHECKING:
    from fullrank.training.checkpoint import Checkpoint


@dataclass(frozen=True, kw_only=True)
class Origin:
    """A checkpoint of another run: the run's folder as it was given, the step, and what tells the checkpoint from any
    other (`Checkpoint.sha256`)."""

    run: str
    step: int
    checkpoint: str

    @staticmethod
    def of(run: str, checkpoint: Checkpoint) -> Origin:
        return Origin(run=run, step=checkpoint.position.step, checkpoint=checkpoint.sha256)


@dataclass(frozen=True, kw_only=True)
class Stage:
    """What a continued run learns in one pass: `partitions`, and what was known when the last of them was appended. It
    is a day with the late labels that came before it; the last stage may be late labels alone. `day`: the partition of
    rows, empty if there is none."""

    partitions: tuple[str, ...]
    day: str
    as_of: int


@dataclass(frozen=True, kw_only=True)
class Continued:
    """A run that began with all that another had: weights, optimizer state, step count. `since`: what the other had
    seen of the data. `stages`: what came since, in order; the first is epoch `epoch` of the order of rows."""

    origin: Origin
    since: DataState
    epoch: int
    stages: tuple[Stage, ...]
