"""Preparing the logs of the laws and reading them back: batches, and how they are held against each other."""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fullrank.data import prepare as prepare_module
from fullrank.data.batch import Batch
from fullrank.data.inputs import Inputs
from fullrank.data.loader import Loader
from fullrank.data.partitions import PreparedData
from fullrank.data.prepare import Budget, prepare
from fullrank.data.source import LogSource
from fullrank.data.splits import AllTrain, Split
from fullrank.data.stage_fit import fit_items
from fullrank.data.transform import Transform
from fullrank.schema import KeySpace, Schema


def prepared(source: LogSource, folder: Path, split: Split | None = None, block_rows: int = 1 << 16) -> PreparedData:
    prepare(source, folder, split=split or AllTrain(), budget=Budget(block_rows=block_rows))
    return PreparedData.open(folder)


def prepared_with(
    fitted: Transform, source: LogSource, folder: Path, split: Split | None = None, *, keep_items: bool = True
) -> PreparedData:
    """Prepare with ids and scalers that were fitted before. `keep_items=False`: with this log's own item table."""

    def held(self: Any, inputs: Any, *_: Any) -> Transform:
        schema, maps, scalers = self.schema, fitted.id_maps, fitted.scalers
        items = fitted.items and replace(fitted.items, num_saved=0)
        if not keep_items:
            items = fit_items(schema, inputs, maps, scalers, None)
        return Transform(schema, maps, scalers, items)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prepare_module._Preparation, "_fit", held)
        return prepared(source, folder, split)


def nothing_fitted(schema: Schema, buckets: int = 50) -> Schema:
    """The schema with hashed key spaces and unscaled numbers: what it makes of a record depends on no other."""
    features = tuple(replace(f, scale="none") if f.kind == "numeric" else f for f in schema.features)
    spaces = tuple(KeySpace(name=name, policy="hashed", buckets=buckets) for name in schema.used_key_spaces())
    return replace(schema, features=features, key_spaces=spaces)


def batches(
    data: PreparedData, split: str = "train", batch_size: int = 64, partitions: tuple[int, ...] | None = None
) -> list[Batch]:
    loader = Loader(data, Inputs.of(data.schema), split, batch_size=batch_size, partitions=partitions)
    return list(loader.epoch(0))


def rows_of(data: PreparedData, index: np.ndarray, inputs: Inputs, split: str = "train") -> Batch:
    """Some rows of a split that is one block, without labels."""
    loader = Loader(data, inputs, split, batch_size=1)
    (block,) = data.blocks(split)
    return replace(loader._take(loader._pack([block]).take(index)), labels=None)


def differences(left: Any, right: Any, place: str = "batch") -> list[str]:
    """Where two batches (or parts of them) are not equal to the bit; NaN equals NaN."""
    if isinstance(left, torch.Tensor) and isinstance(right, torch.Tensor):
        if left.dtype != right.dtype or left.shape != right.shape:
            return [f"{place}: {left.dtype} {tuple(left.shape)}, {right.dtype} {tuple(right.shape)}"]
        bits = {torch.float32: torch.int32, torch.float64: torch.int64}.get(left.dtype, left.dtype)
        differ = left.contiguous().view(bits) != right.contiguous().view(bits)
        if differ.any():
            at = tuple(differ.nonzero()[0].tolist())
            return [f"{place}{list(at)}: {left[at]}, {right[at]} ({int(differ.sum())} of {differ.numel()} differ)"]
        return []
    if isinstance(left, tuple) and isinstance(right, tuple):
        if len(left) != len(right):
            return [f"{place}: {len(left)} and {len(right)} parts"]
        both = enumerate(zip(left, right, strict=True))
        return [found for i, (a, b) in both for found in differences(a, b, f"{place}[{i}]")]
    if is_dataclass(left) and type(left) is type(right):
        return [
            found
            for f in fields(left)
            for found in differences(getattr(left, f.name), getattr(right, f.name), f"{place}.{f.name}")
        ]
    return [] if left is None and right is None else [f"{place}: {type(left)} and {type(right)}"]


def assert_same(left: list[Batch], right: list[Batch]) -> None:
    assert len(left) == len(right)
    for number, (one, two) in enumerate(zip(left, right, strict=True)):
        assert differences(one, two, f"batch {number}") == []
