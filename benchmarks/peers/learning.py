"""What all learners of `performance/time_to_auc.py` have in common: the rows in their order, and two modes: `train`, a
step on the next batch, and `validate`, which writes the logits of the validation rows (float32) as `logits.npy`.

A learner's folder, its first argument, holds `sizes.json`, in which `rows` names the folder of the rows, and
`order.npy`, the training rows in the order of their batches.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from worker import Mode, serve

Batches = Iterator[tuple[torch.Tensor, torch.Tensor]]  # ids int64 [B, F] and labels float32 [B]
Learner = tuple[Callable[[], object], Callable[[torch.Tensor], torch.Tensor]]  # a step; ids -> logits
FEW_ROWS = 1000  # of the tables of the learner that warms up


def teach(make: Callable[[dict, Batches], Learner], **about: object) -> None:
    """Serve what `make(sizes, batches)` gives. Before that another of the same sizes, but for its tables, makes two
    steps: what a process does only once (compiling, allocating) is no part of learning."""
    folder = Path(sys.argv[1])
    sizes = json.loads((folder / "sizes.json").read_text())
    torch.set_num_threads(sizes["threads"])
    torch.manual_seed(sizes["seed"])
    rows = Path(sizes["rows"])
    order_N, ids_NF, label_N, valid_VF = (
        np.load(path, mmap_mode="r", allow_pickle=False)
        for path in (folder / "order.npy", rows / "ids.npy", rows / "labels.npy", rows / "valid_ids.npy")
    )

    def batches() -> Batches:
        for start in range(0, len(order_N) - sizes["batch"] + 1, sizes["batch"]):
            taken_B = order_N[start : start + sizes["batch"]]
            yield torch.from_numpy(ids_NF[taken_B]).long(), torch.from_numpy(label_N[taken_B])

    few = min(FEW_ROWS, sizes["rows_of_a_feature"])
    step, _ = make(sizes | {"rows_of_a_feature": few}, ((ids % few, label) for ids, label in islice(batches(), 2)))
    for _ in range(2):
        step()
    torch.manual_seed(sizes["seed"])
    step, predict = make(sizes, batches())

    def validate() -> None:
        with torch.no_grad():
            pieces = (valid_VF[start : start + sizes["batch"]] for start in range(0, len(valid_VF), sizes["batch"]))
            logits = [predict(torch.from_numpy(np.array(piece)).long()) for piece in pieces]
        np.save(folder / "logits.npy", torch.cat(logits).numpy())

    serve({"train": Mode(step), "validate": Mode(validate)}, **about)
