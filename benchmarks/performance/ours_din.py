"""Our DIN, trained as `training/loop.py` does, on ragged histories: requests of one candidate and one history each."""

from __future__ import annotations

import sys
from collections.abc import Callable
from itertools import cycle
from pathlib import Path

import numpy as np
import torch
from ours_dcnv2 import labels_of, stepper
from worker import Mode, serve, work

import fullrank
from fullrank.data.batch import Batch, Candidates, FeatureBlock, HistoryBatch, Requests
from fullrank.data.inputs import Field, HistoryInputs, Inputs, TaskInput
from fullrank.features.tables import TableOptimizer
from fullrank.kernels.bodies import bodies
from fullrank.kernels.pages import keep_freed_memory
from fullrank.rankers import DIN
from fullrank.rankers.field_front import EmbeddingConfig
from fullrank.training.config import TrainConfig
from fullrank.training.objectives import ObjectiveConfig
from fullrank.training.optimizers import RankerOptimizer


def main() -> None:
    keep_freed_memory()  # as `train` does
    given = work()
    sizes = given.sizes
    item = Field(name="item", kind="categorical", key_space="item", of="item")
    event = Field(name="item", kind="categorical", key_space="item")
    past = HistoryInputs(name="past", last_n=sizes["longest"], fields=(event,))
    inputs = Inputs(request=(), candidate=(item,), histories=(past,), tasks=(TaskInput(name="click"),))
    lazy_adam = TableOptimizer(semantics="lazy", lr=sizes["lr"])
    config = DIN.Config(
        embedding=EmbeddingConfig(width=sizes["width"], init_std=sizes["init_std"], optimizer=lazy_adam),
        attention_hidden=tuple(sizes["attention_hidden"]),
        attention_activation="dice",
        hidden=tuple(sizes["hidden"]),
    )
    ranker = config.build(inputs, {"item": sizes["items"]}, seed=0).train()
    optimizer = RankerOptimizer(ranker, TrainConfig(batch_size=sizes["rows"], lr=sizes["lr"]))
    objective = ObjectiveConfig().build(inputs.tasks)
    made = batches(Path(sys.argv[1]), given.labels_SB)

    def mode(bf16: bool) -> Mode:
        return Mode(stepper(ranker, optimizer, objective, cycle(made), bf16))

    modes = {"fp32": mode(False), "bf16": mode(True), "fp32, plain torch": in_plain_torch(mode(False).step)}
    serve(modes, fullrank=fullrank.__version__)


def in_plain_torch(step: Callable[[], object]) -> Mode:
    """The same step with the references of all kernels, which write every pair out."""

    def plain() -> None:
        with bodies("reference"):
            step()

    return Mode(plain)


def batches(folder: Path, labels_SB: torch.Tensor) -> list[Batch]:
    candidate_SB, lengths_SB, events_E = (
        np.load(folder / f"{name}.npy", allow_pickle=False) for name in ("candidate", "lengths", "events")
    )
    steps, rows = candidate_SB.shape
    events_of_step = np.split(events_E, np.cumsum(lengths_SB.sum(axis=1))[:-1])
    nobody_B = torch.zeros(rows, dtype=torch.int64)
    nothing = FeatureBlock(torch.empty(rows, 0, dtype=torch.int64), torch.empty(rows, 0))
    made = []
    for step in range(steps):
        offsets = np.concatenate([[0], np.cumsum(lengths_SB[step])])
        past = HistoryBatch(items(events_of_step[step]), torch.from_numpy(offsets))
        labels = labels_of(labels_SB[step])
        requests = Requests(nothing, (past,), nobody_B, nobody_B)
        made.append(Batch(requests, Candidates(items(candidate_SB[step]), torch.arange(rows)), labels))
    return made


def items(ids: np.ndarray) -> FeatureBlock:
    return FeatureBlock(torch.from_numpy(ids).long()[:, None], torch.empty(len(ids), 0))


if __name__ == "__main__":
    main()
