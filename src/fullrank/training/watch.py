"""Going by a validation metric: which is known, which way is better, and how long it has not improved."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from fullrank.schema import did_you_mean

if TYPE_CHECKING:
    from fullrank.training.callbacks import TaskMetrics
    from fullrank.training.config import TrainConfig

Better = Literal["higher", "lower"]


class WatchError(ValueError):
    """Training cannot go by a metric. The message names it and those that are known."""


@dataclass(frozen=True, kw_only=True)
class Watch:
    """The best value of one metric so far, None before the first, where it was (`step`; `epoch` from 1), and how many
    validations in a row have not improved on it since."""

    best: float | None = None
    step: int = 0
    epoch: int = 0
    waited: int = 0

    def seen(self, value: float, better: Better, by_more_than: float, *, step: int, epoch: int) -> Watch:
        """After one more validation."""
        gain = 0.0 if self.best is None else value - self.best if better == "higher" else self.best - value
        if self.best is None or gain > by_more_than:
            return Watch(best=value, step=step, epoch=epoch)
        return replace(self, waited=self.waited + 1)


def value_of(metrics: TaskMetrics, name: str, scores: Iterable[str]) -> float:
    """The metric `name` (TASK.METRIC) of those that `scores` names; one that is not defined cannot be gone by."""
    task, _, metric = name.rpartition(".")
    value = metrics[task][metric]
    if value is None or value != value:
        values = {f"{t}.{m}": v for t, ofs in metrics.items() for m, v in ofs.items() if v is not None and v == v}
        defined = [other for other in scores if other in values]
        raise WatchError(
            f"Expected a number for {name}, got {value}: it is not defined on the validation rows. Go by one of "
            f"{', '.join(defined)}."
        )
    return float(value)


def check_watched(config: TrainConfig, scores: Mapping[str, Better] | None) -> None:
    """An error unless every metric that `config` goes by is one of `scores`, and is measured at some time. None: there
    is no validation."""
    for option, name in (("early_stop", config.early_stop), ("schedule.metric", config.schedule.metric)):
        if not name:
            continue
        if scores is None:
            raise WatchError(f"Expected validation rows to measure {option} {name!r} on, got none: prepare some.")
        if name not in scores:
            near = did_you_mean(name, list(scores))
            raise WatchError(f"Expected {option} to be one of {', '.join(scores)}, got {name!r}.{near}")
        by_epoch = config.validate_every_epochs
        if config.validate_every_steps is None and (by_epoch is None or by_epoch > config.epochs):
            raise WatchError(
                f"Expected a validation to measure {option} {name!r} at, got none in {config.epochs} epochs: set "
                "`validate_every_epochs` or `validate_every_steps`."
            )
