"""Objectives: from a ranker's output and a batch's labels to named losses. A model knows nothing of labels.

`MultiTask` sums one loss a task; the losses, one a file, are `BinaryCrossEntropy`, `SquaredError`, and two that compare
the rows of a request, `RequestSoftmax` and `RequestPairwise`. `ObjectiveConfig` chooses them by the tasks' kinds.
"""

from fullrank.training.objectives.base import LabelColumn, Objective, Scored
from fullrank.training.objectives.binary_cross_entropy import BinaryCrossEntropy
from fullrank.training.objectives.choice import ObjectiveConfig
from fullrank.training.objectives.multi_task import MultiTask, TaskLoss, Term
from fullrank.training.objectives.pairwise import RequestPairwise
from fullrank.training.objectives.softmax import RequestSoftmax
from fullrank.training.objectives.squared_error import SquaredError

__all__ = [
    "BinaryCrossEntropy",
    "LabelColumn",
    "MultiTask",
    "Objective",
    "ObjectiveConfig",
    "RequestPairwise",
    "RequestSoftmax",
    "Scored",
    "SquaredError",
    "TaskLoss",
    "Term",
]
