"""The one thing models read: a request part, a candidate part, and labels that know what is not yet known.

Shape suffixes, here and everywhere: R requests · B rows (candidates) · F fields · N values of all bags · E events ·
K tasks · D width. R <= B: what belongs to a request (user, context, histories) is read and encoded once, however many
candidates it has.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

Self = TypeVar("Self")


@dataclass(frozen=True)
class Bag:
    """A multi-valued field of n owners: owner i holds `ids_N[offsets[i]:offsets[i + 1]]`, int64. An empty bag is
    legal. `weights_N` (float32) is None when the schema names no weights."""

    ids_N: Tensor
    offsets: Tensor
    weights_N: Tensor | None = None


@dataclass(frozen=True)
class FeatureBlock:
    """The fields of n owners (requests, rows or events), packed in the order of the `Inputs` it was asked with.

    `ids_nF`: int64 local ids of the categorical fields. `numbers_nF`: float32, NaN where missing (for an outcome: not
    yet known). `bags`: one per multi field, `vectors_nD`: one per vector field; both in field order.
    """

    ids_nF: Tensor
    numbers_nF: Tensor
    bags: tuple[Bag, ...] = ()
    vectors_nD: tuple[Tensor, ...] = ()

    @property
    def num_owners(self) -> int:
        return self.ids_nF.shape[0]


@dataclass(frozen=True)
class HistoryBatch:
    """One history of every request, jagged: request r owns events `offsets[r]:offsets[r + 1]`, oldest first."""

    events: FeatureBlock
    offsets: Tensor

    @property
    def num_events(self) -> int:
        return self.events.num_owners


@dataclass(frozen=True)
class Requests:
    """What is encoded once per request. `user_R` (the user's 64-bit key code, 0 if the log has none) and `time_R`
    (int64 µs, or a position) group and slice metrics; they are not model inputs."""

    features: FeatureBlock
    histories: tuple[HistoryBatch, ...]
    user_R: Tensor
    time_R: Tensor

    @property
    def num_requests(self) -> int:
        return self.features.num_owners


@dataclass(frozen=True)
class Candidates:
    """The rows to score: their own fields, and the request each belongs to (int64)."""

    features: FeatureBlock
    request_of_row_B: Tensor

    @property
    def num_rows(self) -> int:
        return self.features.num_owners


@dataclass(frozen=True)
class Labels:
    """`values_BK` float32 (0 where unknown), `known_BK` bool. `weight_B` counts rows in training; `sample_rate_B` is
    the share of such rows that was kept; `propensity_B` the logging policy's. All are 1 where the log has none."""

    values_BK: Tensor
    known_BK: Tensor
    weight_B: Tensor
    sample_rate_B: Tensor
    propensity_B: Tensor


@dataclass(frozen=True)
class Batch:
    """R requests, B rows. `labels` is None when there is nothing to compare with (predict, serve)."""

    requests: Requests
    candidates: Candidates
    labels: Labels | None = None

    @property
    def num_rows(self) -> int:
        return self.candidates.num_rows


def map_tensors(value: Any, function: Any) -> Any:
    """The same batch (or any part of it) with `function` applied to every tensor."""
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, tuple):
        return tuple(map_tensors(item, function) for item in value)
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{f.name: map_tensors(getattr(value, f.name), function) for f in fields(value)})
    return value


def to_device(part: Self, device: torch.device | str) -> Self:
    """The same batch (or any part of it) on `device`."""
    return map_tensors(part, lambda tensor: tensor.to(device))
