"""One stage of a continued run: what it begins with, and a run's face that begins there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from fullrank.rankers import Ranker
from fullrank.training.callbacks import Result
from fullrank.training.checkpoint import Checkpoint, Position
from fullrank.training.config import TrainConfig
from fullrank.training.optimizers import RankerOptimizer
from fullrank.training.run import Run
from fullrank.training.schedule import Schedule
from fullrank.training.watch import Watch
from fullrank.training.weights import load_weights, tables_of, weight_tensors

PARTS = ("dense", "tables", "optimizer", "average")
Parts = Mapping[str, Mapping[str, Tensor]]


@dataclass(frozen=True)
class InMemory(Checkpoint):
    """A checkpoint that is on no disk, but for tables that live there."""

    parts: Parts = field(default_factory=dict)

    def has(self, part: str) -> bool:
        return part in self.parts

    def tensors(self, part: str) -> dict[str, Tensor]:
        return dict(self.parts[part])


@dataclass(frozen=True)
class StageRun(Run):
    """A run as the training loop shall see it during one stage: it begins with `beginning` (None: with what is on
    disk), and is not finished when the stage is."""

    beginning: Checkpoint | None = None

    def latest_checkpoint(self) -> Checkpoint | None:
        return self.beginning or super().latest_checkpoint()

    def result(self) -> Result | None:
        return None

    def finish(self, result: Result) -> None:
        return None


def first_state(run: Run, epoch: int) -> InMemory:
    """All that a finished run had, as the beginning of another whose first stage is epoch `epoch`.

    Its step count and its weights: where it went by a validation metric, the best ones, beside the state of the
    optimizer of its last step (our choice: nothing else is kept, and later weights were judged worse). Tables that live
    on disk have the state that belongs to their weights: both are in one row.
    """
    newest, result = run.latest_checkpoint(), run.result()
    assert newest is not None and result is not None
    parts = {part: newest.tensors(part) for part in PARTS if newest.has(part)}
    rows = newest
    if result.best is not None:
        rows = best = run.best_checkpoint()
        parts |= {part: best.tensors(part) for part in ("dense", "tables")}
        if "average" in parts:
            parts["average"] = {name: parts["dense"][name] for name in parts["average"]}
    position = replace(
        newest.position, epoch=epoch, row=0, metrics_bytes=0, seconds=0.0, validated_step=0, valid={},
        window={}, window_steps=0, window_norm=0.0, early=Watch(), plateau=Watch(),
    )  # fmt: skip
    return InMemory(rows.path, position, files=rows.files, parts=parts)


def grown(ranker: Ranker, state: Checkpoint, num_rows: Mapping[str, int], config: TrainConfig) -> Parts:
    """The parts of a checkpoint after the tables of each key space were made `num_rows` long: rows and their state keep
    every bit, new rows are as the run's seed makes them. `ranker` is one of the checkpoint's sizes; it grows."""
    load_weights(ranker, state)
    optimizer = RankerOptimizer(ranker, config)
    stored = state.tensors("optimizer")
    random = stored.pop("random")
    optimizer.load_state_tensors(stored)
    spaces = {spec.key_space for spec in tables_of(ranker).plan.specs}
    optimizer.grow({space: rows for space, rows in num_rows.items() if space in spaces})
    own: dict[str, Tensor] = {"random": random, **optimizer.state_tensors()}
    average: dict[str, Any] = {"average": state.tensors("average")} if state.has("average") else {}
    return weight_tensors(ranker) | {"optimizer": own} | average


def one_pass(config: TrainConfig, epoch: int) -> TrainConfig:
    """How a stage trains: the run's settings, one pass, at a constant rate (times what a plateau had lowered it to)
    and without validation: what comes next is the validation."""
    return replace(
        config,
        epochs=epoch + 1,
        schedule=Schedule(),
        early_stop="",
        validate_every_epochs=None,
        validate_every_steps=None,
    )


def advanced(state: Checkpoint, position: Position, parts: Parts | None = None) -> InMemory:
    """The same state at another position, with other parts if given."""
    kept = parts or {part: state.tensors(part) for part in PARTS if state.has(part)}
    return InMemory(state.path, position, files=state.files, grows=parts is not None or state.grows, parts=kept)

