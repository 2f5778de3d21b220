"""Our loader, a step being an epoch: int64 `[B, F]` and labels, shuffled in windows of 8 blocks or in order; and with
histories, where beside 9 categories a row brings the newest 50 events of its user, 4 fields each."""

from __future__ import annotations

import json
import sys
from itertools import count
from pathlib import Path

import torch
from worker import Mode, serve

import fullrank
from fullrank.data.inputs import Inputs
from fullrank.data.loader import Loader
from fullrank.data.partitions import PreparedData
from fullrank.kernels.pages import keep_freed_memory


def main() -> None:
    keep_freed_memory()  # as `train` does
    folder = Path(sys.argv[1])
    sizes = json.loads((folder / "sizes.json").read_text())
    torch.set_num_threads(sizes["threads"])
    modes = {
        "shuffled": mode(folder / "flat", sizes["batch"], shuffle=True),
        "in order": mode(folder / "flat", sizes["batch"], shuffle=False),
        "histories": mode(folder / "past", sizes["batch_of_histories"], shuffle=True),
    }
    serve(modes, fullrank=fullrank.__version__)


def mode(folder: Path, batch: int, *, shuffle: bool) -> Mode:
    data = PreparedData.open(folder)
    loader = Loader(data, Inputs.of(data.schema), "train", batch_size=batch, shuffle=shuffle)
    epochs = count()

    def step() -> None:
        rows = sum(found.num_rows for found in loader.epoch(next(epochs)))
        assert rows == loader.num_rows

    return Mode(step)


if __name__ == "__main__":
    main()
