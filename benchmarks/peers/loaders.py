"""The loaders of FuxiCTR and torch-rechub on a Parquet file: a line of JSON each. See `benchmarks/loader.py`.

    python loaders.py FILE BATCH COLUMN…

Runs in an environment that has both. Each is asked for batches as its own training loop asks: for an epoch, or,
where the first batch comes soon, for some seconds of it.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow.parquet as pq

SECONDS = 8.0


def rate(batches: Iterable[Any], rows_of: Any, whole: bool) -> float:
    """Of the faster of two epochs, from asking for it to its end, or (not `whole`) to the last batch in time."""
    best = 0.0
    for _ in range(2):
        rows, begun = 0, time.perf_counter()
        for batch in batches:
            rows += rows_of(batch)
            if not whole and time.perf_counter() - begun > SECONDS:
                break
        best = max(best, rows / (time.perf_counter() - begun))
    return best


def say(label: str, batches: Iterable[Any], rows_of: Any, *, whole: bool = False) -> None:
    print(json.dumps({"label": label, "rows_per_second": rate(batches, rows_of, whole)}), flush=True)


def fuxictr(path: Path, batch: int, names: list[str], arrays: dict[str, np.ndarray], work: Path) -> None:
    from fuxictr.pytorch.dataloaders import RankDataLoader

    columns = [*names, "click"]
    feature_map = SimpleNamespace(
        features=dict.fromkeys(names), labels=["click"], get_column_index=columns.index
    )  # all that its loaders ask of one

    def loader(data: Path, kind: str, shuffle: bool) -> Iterable[Any]:
        train, _ = RankDataLoader(
            feature_map, stage="train", train_data=str(data), batch_size=batch, shuffle=shuffle, data_format=kind
        )
        return train

    def size(found: dict[str, Any]) -> int:
        return len(found["click"])

    whole = work / "whole.npz"
    np.savez(whole, **arrays)
    say("fuxictr, its own format, shuffled", loader(whole, "npz", True), size)
    say("fuxictr, Parquet, in order", loader(path, "parquet", False), size, whole=True)
    say("fuxictr, Parquet, shuffled", loader(path, "parquet", True), size, whole=True)  # reads all before its first


def rechub(path: Path, batch: int, names: list[str], arrays: dict[str, np.ndarray]) -> None:
    from torch.utils.data import DataLoader
    from torch_rechub.data.dataset import ParquetIterableDataset
    from torch_rechub.utils.data import DataGenerator

    x = {name: arrays[name] for name in names}
    none = {name: values[:1] for name, values in x.items()}
    generator = DataGenerator(x, arrays["click"])
    train, _, _ = generator.generate_dataloader(
        x_val=none, y_val=arrays["click"][:1], x_test=none, y_test=arrays["click"][:1], batch_size=batch
    )
    say("torch-rechub, DataGenerator, shuffled", train, lambda found: len(found[1]))
    stream = ParquetIterableDataset([str(path)], columns=[*names, "click"], batch_size=batch)
    say("torch-rechub, Parquet, in order", DataLoader(stream, batch_size=None), lambda found: len(found["click"]))


def main() -> None:
    path, batch, names = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
    table = pq.read_table(path, columns=[*names, "click"])
    arrays = {name: table[name].to_numpy() for name in table.column_names}
    rechub(path, batch, names, arrays)
    with tempfile.TemporaryDirectory() as work:
        fuxictr(path, batch, names, arrays, Path(work))


if __name__ == "__main__":  # workers of a data loader may import this file again
    main()
