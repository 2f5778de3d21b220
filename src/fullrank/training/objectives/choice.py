"""Which loss each task gets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

from fullrank.data.inputs import TaskInput
from fullrank.schema import did_you_mean
from fullrank.training.objectives.binary_cross_entropy import BinaryCrossEntropy
from fullrank.training.objectives.multi_task import MultiTask, TaskLoss, Term
from fullrank.training.objectives.pairwise import RequestPairwise
from fullrank.training.objectives.softmax import RequestSoftmax
from fullrank.training.objectives.squared_error import SquaredError

BinaryLoss = Literal["auto", "softmax", "pairwise"]


@dataclass(frozen=True, kw_only=True)
class ObjectiveConfig:
    """From the tasks' kinds to an objective: a regression task gets `SquaredError`, a binary one what `binary` says.

    Args:
        binary: `auto`: `BinaryCrossEntropy`, each row by itself; `softmax`: `RequestSoftmax`; `pairwise`:
            `RequestPairwise`. The last two compare the rows of a request and give scores, not probabilities.
        undo_sample_rate: of the losses that go row by row; see `BinaryCrossEntropy`.
        weights: task → weight in the sum; 1 where not named.

    To give tasks losses of different sorts, write the `MultiTask` itself.
    """

    binary: BinaryLoss = "auto"
    undo_sample_rate: bool = False
    weights: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.binary not in get_args(BinaryLoss):
            near = did_you_mean(self.binary, get_args(BinaryLoss))
            raise ValueError(f"Expected an objective of {get_args(BinaryLoss)}, got {self.binary!r}.{near}")

    def build(self, tasks: Sequence[TaskInput]) -> MultiTask:
        """The objective of these tasks (`Inputs.tasks`); an error names the task that none can learn."""
        names = [task.name for task in tasks]
        if not names:
            raise ValueError("Expected at least one task to learn, got none: exclude fewer, or name one in the schema.")
        for name in self.weights:
            if name not in names:
                near = did_you_mean(name, names)
                raise ValueError(f"Expected weights of the tasks {names}, got one of {name!r}.{near}")
        return MultiTask(
            terms=tuple(
                Term(task=task.name, loss=self._loss(task), weight=self.weights.get(task.name, 1.0)) for task in tasks
            )
        )

    def _loss(self, task: TaskInput) -> TaskLoss:
        if task.kind == "multiclass":
            raise ValueError(
                f"Expected binary and regression tasks, got multiclass task {task.name!r}: no objective here learns it "
                f"yet. Leave it out (exclude={task.name!r})."
            )
        if task.kind == "regression":
            return SquaredError(undo_sample_rate=self.undo_sample_rate)
        if self.binary == "softmax":
            return RequestSoftmax()
        if self.binary == "pairwise":
            return RequestPairwise()
        return BinaryCrossEntropy(undo_sample_rate=self.undo_sample_rate)
