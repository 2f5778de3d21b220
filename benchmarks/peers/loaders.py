"""Other loaders of the same rows, a step being an epoch, or the first `part` batches of one where an epoch takes
minutes. Each is asked for batches as its own training loop asks, with its own defaults.

* `pyarrow`: `ParquetFile.iter_batches`, the columns stacked to int64 `[B, F]`; in order.
* `fuxictr`: `RankDataLoader`, which hands out a dict of columns. Its own format (`npz`, all in memory, a worker)
  shuffled; Parquet, on Ray: one file in order, one file shuffled (all rows are read before its first batch), and a
  folder of files shuffled (files in a random order, and a buffer of a million rows).
* `torch-rechub`: `DataGenerator` on arrays in memory, shuffled, and `ParquetIterableDataset` in order; both hand out a
  dict of columns.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from worker import Mode, serve

Batches = Callable[[], Iterable[Any]]  # of one epoch
Rows = Callable[[Any], int]  # of a batch


class Given:
    """The folder of the command line, its sizes, and the modes that are asked for."""

    def __init__(self) -> None:
        self.folder, self.wanted = Path(sys.argv[1]), sys.argv[2:]
        self.sizes = json.loads((self.folder / "sizes.json").read_text())
        self.names: list[str] = self.sizes["names"]
        self.batch: int = self.sizes["batch"]
        self.path = self.folder / "flat.parquet"
        self.modes: dict[str, Mode] = {}

    def add(self, name: str, make: Callable[[], Batches], rows_of: Rows, *, part: bool = False) -> None:
        if name not in self.wanted:
            return
        batches = make()
        rows = min(self.sizes["rows"], self.sizes["part"] * self.batch if part else self.sizes["rows"])

        def step() -> None:
            found = sum(map(rows_of, islice(batches(), self.sizes["part"] if part else None)))
            assert found == rows, f"{name}: {found} rows of {rows}"

        self.modes[name] = Mode(step)

    def arrays(self) -> dict[str, np.ndarray]:
        table = pq.read_table(self.path, columns=[*self.names, "click"])
        return {name: table[name].to_numpy() for name in table.column_names}


def plain_pyarrow(given: Given) -> None:
    def batches() -> Iterable[torch.Tensor]:
        for batch in pq.ParquetFile(given.path).iter_batches(given.batch, columns=[*given.names, "click"]):
            columns = [torch.from_numpy(batch.column(name).to_numpy().copy()) for name in given.names]
            torch.from_numpy(batch.column("click").to_numpy().copy())
            yield torch.stack(columns, dim=1)

    given.add("pyarrow, Parquet, in order", lambda: batches, len)


def fuxictr(given: Given) -> None:
    from fuxictr.pytorch.dataloaders import RankDataLoader

    columns = [*given.names, "click"]
    feature_map = SimpleNamespace(
        features=dict.fromkeys(given.names), labels=["click"], get_column_index=columns.index
    )  # all that its loaders ask of one

    def loader(data: Path, kind: str, shuffle: bool) -> Batches:
        pair: Any = RankDataLoader(
            feature_map, stage="train", train_data=str(data), batch_size=given.batch, shuffle=shuffle, data_format=kind
        )
        return lambda: pair[0]

    def npz() -> Batches:
        whole = given.folder / "whole.npz"
        arrays: dict[str, Any] = {**given.arrays()}
        np.savez(whole, **arrays)
        return loader(whole, "npz", True)

    def rows_of(found: dict[str, Any]) -> int:
        return len(found["click"])

    given.add("fuxictr, npz, shuffled", npz, rows_of, part=True)
    given.add("fuxictr, Parquet, in order", lambda: loader(given.path, "parquet", False), rows_of)
    given.add("fuxictr, Parquet, shuffled", lambda: loader(given.path, "parquet", True), rows_of)
    parts = given.folder / "parts"
    given.add("fuxictr, files of Parquet, shuffled", lambda: loader(parts, "parquet", True), rows_of)


def rechub(given: Given) -> None:
    from torch.utils.data import DataLoader
    from torch_rechub.data.dataset import ParquetIterableDataset
    from torch_rechub.utils.data import DataGenerator

    def arrays() -> Batches:
        read = given.arrays()
        x, y = {name: read[name] for name in given.names}, read["click"]
        one, its = {name: column[:1] for name, column in x.items()}, y[:1]
        train, _, _ = DataGenerator(x, y).generate_dataloader(
            x_val=one, y_val=its, x_test=one, y_test=its, batch_size=given.batch
        )
        return lambda: train

    def parquet() -> Batches:
        rows = ParquetIterableDataset([str(given.path)], columns=[*given.names, "click"], batch_size=given.batch)
        return lambda: DataLoader(rows, batch_size=None)

    given.add("torch-rechub, arrays, shuffled", arrays, lambda found: len(found[1]), part=True)
    given.add("torch-rechub, Parquet, in order", parquet, lambda found: len(found["click"]))


def main() -> None:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    given, about = Given(), {}
    torch.set_num_threads(given.sizes["threads"])
    for library, add in {"pyarrow": plain_pyarrow, "fuxictr": fuxictr, "torch-rechub": rechub}.items():
        if any(name.startswith(library) for name in given.wanted):
            add(given)
            about[library.replace("-", "_")] = version(library)
    serve(given.modes, **about)


if __name__ == "__main__":  # workers of a data loader may import this file again
    main()
