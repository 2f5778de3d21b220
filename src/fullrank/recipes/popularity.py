"""The baseline everything has to beat: how often an item's rows were positive, whoever asked."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fullrank.data.batch import Batch
from fullrank.data.inputs import Inputs
from fullrank.data.loader import Loader
from fullrank.data.partitions import PreparedData


@dataclass(frozen=True)
class PopularityOutput:
    """The part of a ranker's output that evaluation reads."""

    logits: dict[str, Tensor]


class Popularity(nn.Module):
    """`p_item = (positives + a · p) / (rows + a)`, with p the rate over all training rows and a = `prior_rows`.

    An item without training rows (and so every unknown one) gets p. Counts only labels that are known, a row 1 /
    sample_rate times: the rate of the traffic before sampling. Not a ranker: it knows no user, and learns nothing but a
    count per item id and task. An item has one id: not for key spaces of several hashes.
    """

    logit_IK: Tensor

    def __init__(self, logit_IK: Tensor, tasks: tuple[str, ...]) -> None:
        super().__init__()
        self.tasks = tasks
        self.register_buffer("logit_IK", logit_IK)

    @staticmethod
    def inputs(data: PreparedData, tasks: tuple[str, ...]) -> Inputs:
        """The item id and nothing else; labels in the order of the schema."""
        whole = Inputs.of(data.schema)
        item = tuple(field for field in whole.candidate if field.name == "item")
        labels = tuple(task for task in whole.tasks if task.name in tasks)
        return Inputs(request=(), candidate=item, histories=(), tasks=labels)

    @staticmethod
    def fit(data: PreparedData, tasks: tuple[str, ...], prior_rows: float = 10.0) -> Popularity:
        loader = Loader(data, Popularity.inputs(data, tasks), "train", batch_size=65_536)
        num_items = data.transform.id_maps["item"].num_rows
        rows_IK, positives_IK = (torch.zeros(num_items, len(tasks), dtype=torch.float64) for _ in range(2))
        for batch in loader.epoch(0):
            assert batch.labels is not None
            item_B = batch.candidates.features.ids_nF[:, 0]
            count_B1 = 1.0 / batch.labels.sample_rate_B.double()[:, None]
            rows_IK.index_add_(0, item_B, count_B1 * batch.labels.known_BK.double())
            positives_IK.index_add_(0, item_B, count_B1 * batch.labels.values_BK.double())
        # half a row of either kind keeps the logit of a task without one class finite
        rate_K = (positives_IK.sum(0) + 0.5) / (rows_IK.sum(0) + 1.0)
        rate_IK = (positives_IK + prior_rows * rate_K) / (rows_IK + prior_rows)
        return Popularity(torch.logit(rate_IK).float(), tasks)

    def forward(self, batch: Batch) -> PopularityOutput:
        item_B = batch.candidates.features.ids_nF[:, 0]
        return PopularityOutput({task: self.logit_IK[item_B, k] for k, task in enumerate(self.tasks)})
