"""Our DCNv2, trained as `training/loop.py` does: `Ranker`, objective and `RankerOptimizer` on batches in memory.

Every field is the candidate's, as in our reader of Criteo, and each row its own request.
"""

from __future__ import annotations

from itertools import cycle
from typing import Any

import torch
from worker import Mode, Work, serve, work

import fullrank
from fullrank.data.batch import Batch, Candidates, FeatureBlock, Labels, Requests
from fullrank.data.inputs import Field, Inputs, TaskInput
from fullrank.features.tables import DiskTables
from fullrank.kernels.pages import keep_freed_memory
from fullrank.rankers import DCNv2
from fullrank.rankers.field_front import EmbeddingConfig
from fullrank.training.config import TrainConfig
from fullrank.training.objectives import Objective, ObjectiveConfig
from fullrank.training.optimizers import RankerOptimizer


def main() -> None:
    keep_freed_memory()  # as `train` does
    given = work()
    learner = build(given.sizes, seed=0)
    modes = {}
    for kind in given.ids_SBF:
        made = batches(given, kind)
        for dtype in ("fp32", "bf16"):
            modes[f"{dtype}, {kind}"] = Mode(stepper(*learner, cycle(made), dtype == "bf16"))
    serve(modes, fullrank=fullrank.__version__)


def build(sizes: dict[str, Any], seed: int, disk: DiskTables | None = None) -> tuple[DCNv2, RankerOptimizer, Objective]:
    """The ranker, what updates it, and its loss."""
    spaces = [f"c{place}" for place in range(sizes["features"])]
    inputs = Inputs(
        request=(),
        candidate=tuple(Field(name=space, kind="categorical", key_space=space, of="pair") for space in spaces),
        histories=(),
        tasks=(TaskInput(name="click"),),
    )
    config = DCNv2.Config(
        embedding=EmbeddingConfig(width=sizes["width"], init_std=sizes["init_std"], disk=disk or DiskTables()),
        structure="parallel",
        num_cross_layers=sizes["cross_layers"],
        hidden=tuple(sizes["hidden"]),
    )
    ranker = config.build(inputs, {space: sizes["rows_of_a_feature"] for space in spaces}, seed=seed).train()
    optimizer = RankerOptimizer(ranker, TrainConfig(batch_size=sizes["batch"], lr=sizes["lr"]))
    return ranker, optimizer, ObjectiveConfig().build(inputs.tasks)


def batches(given: Work, kind: str) -> list[Batch]:
    pairs = zip(given.ids_SBF[kind], given.labels_SB, strict=True)
    return [batch_of(ids_BF.contiguous(), label_B) for ids_BF, label_B in pairs]


def batch_of(ids_BF: torch.Tensor, label_B: torch.Tensor) -> Batch:
    rows = len(label_B)
    none = torch.empty(rows, 0)
    nobody = torch.zeros(rows, dtype=torch.int64)
    return Batch(
        Requests(features=FeatureBlock(none.long(), none), histories=(), user_R=nobody, time_R=nobody),
        Candidates(FeatureBlock(ids_BF, none), torch.arange(rows)),
        labels_of(label_B),
    )


def labels_of(label_B: torch.Tensor) -> Labels:
    """Of one task, all known, of weight one."""
    one_B = torch.ones(len(label_B))
    return Labels(
        values_BK=label_B[:, None],
        known_BK=torch.ones(len(label_B), 1, dtype=torch.bool),
        weight_B=one_B,
        sample_rate_B=one_B,
        propensity_B=one_B,
    )


def stepper(ranker, optimizer, objective, following, bf16: bool):
    def step() -> None:
        batch = next(following)
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            output = ranker(batch)
        stacked = torch.stack(list(objective(output, batch).values()))
        stacked.tolist()  # the loop looks whether they are finite
        stacked.sum().backward()
        optimizer.collect()
        optimizer.apply(None)

    return step


if __name__ == "__main__":
    main()
