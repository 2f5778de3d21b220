"""The sum of one loss a task."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from fullrank.data.batch import Batch
from fullrank.training.objectives.base import LabelColumn, Scored
from fullrank.training.objectives.binary_cross_entropy import BinaryCrossEntropy
from fullrank.training.objectives.pairwise import RequestPairwise
from fullrank.training.objectives.softmax import RequestSoftmax
from fullrank.training.objectives.squared_error import SquaredError

TaskLoss = BinaryCrossEntropy | SquaredError | RequestSoftmax | RequestPairwise


@dataclass(frozen=True, kw_only=True)
class Term:
    """`weight` times the `loss` of one task."""

    task: str
    loss: TaskLoss
    weight: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.weight < float("inf"):
            hint = " To leave a task out, exclude it." if self.weight == 0 else ""
            raise ValueError(f"Expected a weight > 0 for task {self.task!r}, got {self.weight}.{hint}")


@dataclass(frozen=True, kw_only=True)
class MultiTask:
    """``L = Σ_k λ_k L_k``, one term for each label column, in their order (`Inputs.task_names`).

    The losses come named by their task, already weighted: what is reported is what is descended. The model's own losses
    follow as ``aux.NAME``, unchanged. Losses are computed in float32, whatever the logits are.

    A sum with fixed weights does not balance tasks: one whose loss is larger or noisier leads. Weights are the only
    remedy here.
    """

    terms: tuple[Term, ...]

    @property
    def whole_requests(self) -> bool:
        """Whether some loss compares the rows of a request: then the loader must not cut requests."""
        return any(term.loss.whole_requests for term in self.terms)

    def __call__(self, output: Scored, batch: Batch) -> dict[str, Tensor]:
        labels = batch.labels
        if labels is None:
            raise ValueError("Expected a batch with labels, got one without: an objective needs them.")
        if labels.values_BK.shape[1] != len(self.terms):
            tasks = tuple(term.task for term in self.terms)
            got = f"{labels.values_BK.shape[1]} label columns"
            raise ValueError(f"Expected one label column for each task of {tasks}, got {got}.")
        losses = {}
        for k, term in enumerate(self.terms):
            if term.task not in output.logits:
                raise ValueError(f"Expected logits of task {term.task!r}, got those of {list(output.logits)}.")
            column = LabelColumn(
                labels.values_BK[:, k],
                labels.known_BK[:, k],
                labels.weight_B,
                labels.sample_rate_B,
                batch.candidates.request_of_row_B,
                batch.requests.num_requests,
            )
            losses[term.task] = term.weight * term.loss(output.logits[term.task].float(), column)
        return losses | {f"aux.{name}": loss.float() for name, loss in output.aux.items()}
