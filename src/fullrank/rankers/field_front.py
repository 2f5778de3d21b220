"""The common front of rankers that see a row as F field vectors: request, candidate and pooled histories.

Legend: R requests · B rows · E events · F fields · D embedding width.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from fullrank.data.batch import Candidates, FeatureBlock, Requests
from fullrank.data.inputs import Field, Inputs
from fullrank.features.field_embedding import FieldEmbedding
from fullrank.features.tables import DiskTables, EmbeddingTables, TableOptimizer, TablePlan, TableSpec
from fullrank.layers.din_pooling import DINPooling
from fullrank.layers.jagged import segment_mean
from fullrank.schema import did_you_mean

HistoryPooling = Literal["mean", "din"]


@dataclass(frozen=True, kw_only=True)
class EmbeddingConfig:
    """One table of this width per key space, how its rows start and learn, and which tables live on disk."""

    width: int = 16
    init_std: float = 0.01
    optimizer: TableOptimizer = field(default_factory=TableOptimizer)
    disk: DiskTables = field(default_factory=DiskTables)

    def build(self, inputs: Inputs, num_rows: dict[str, int], seed: int) -> EmbeddingTables:
        """The tables that `inputs` needs; `num_rows` may know more key spaces than these."""
        return EmbeddingTables(TablePlan(self.specs(inputs, num_rows)), seed)

    def specs(self, inputs: Inputs, num_rows: dict[str, int]) -> tuple[TableSpec, ...]:
        """The tables of `build` as a plan's part, for models that have another set of tables beside these."""
        return table_specs(inputs, num_rows, "main", self.width, self.init_std, self.optimizer, self.disk)


def table_specs(
    inputs: Inputs,
    num_rows: dict[str, int],
    set: str,
    width: int,
    init_std: float,
    optimizer: TableOptimizer,
    disk: DiskTables,
) -> tuple[TableSpec, ...]:
    """A table of the named set for every key space of `inputs`."""
    known, spaces = list(num_rows), inputs.key_spaces()
    for space in disk.key_spaces:
        if space not in spaces:
            near = did_you_mean(space, list(spaces))
            raise ValueError(f"Expected key spaces of {list(spaces)} to live on disk, got {space!r}.{near}")
    specs = []
    for space in spaces:
        if space not in num_rows:
            near = did_you_mean(space, known)
            raise ValueError(f"Expected num_rows of key space {space!r}, got those of {known}.{near}")
        rows = num_rows[space]
        specs.append(
            TableSpec(
                key_space=space,
                num_rows=rows,
                width=width,
                set=set,
                init_std=init_std,
                optimizer=optimizer,
                disk=disk.of(space),
            )
        )
    return tuple(specs)


@dataclass(frozen=True)
class FieldState:
    """`fields_RFD`: the request's fields, then (mean pooling) the pooled fields of each history. `events_EW` and
    `offsets` (not with mean pooling): the events of each history, flat, still jagged."""

    fields_RFD: Tensor
    events_EW: tuple[Tensor, ...] = ()
    offsets: tuple[Tensor, ...] = ()


class FieldFront(nn.Module):
    """`x_BFD` of every row: request fields · candidate fields · the fields of each history, pooled over its events.

    A history of f event fields becomes f fields. `mean`: their mean over the events, once per request. `din`:
    attention of the candidate (`DINPooling` on the concatenated fields), once per row. An empty history is zeros. None:
    no history is among the fields; its events are in the state, for the ranker to read in its own way. `set` names the
    tables that are read.
    That a pooled history is one field per event field, and the order of fields (`mean`: histories before the
    candidate; `din`: after it), are our choices.
    """

    def __init__(
        self,
        inputs: Inputs,
        tables: EmbeddingTables,
        width: int,
        pooling: HistoryPooling | None,
        attention_width: int = 0,
        set: str = "main",
    ) -> None:
        super().__init__()
        if not (inputs.request or inputs.candidate or inputs.histories):
            raise ValueError("Expected inputs with at least one field or history, got none.")
        if pooling == "din" and inputs.histories and not inputs.candidate:
            raise ValueError("History pooling 'din' needs candidate fields to attend with, got none. Use 'mean'.")
        self.width = width
        self.pooling = pooling
        self.field_names = _field_names(inputs, pooling)
        self.num_fields = len(self.field_names)
        self.request = _embedding(inputs.request, tables, width, set)
        self.candidate = _embedding(inputs.candidate, tables, width, set)
        self.events = nn.ModuleList(
            FieldEmbedding(history.fields, tables, width, set) for history in inputs.histories
        )
        self.attention: nn.ModuleList | None = None
        if pooling == "din":
            candidate_width = len(inputs.candidate) * width
            self.attention = nn.ModuleList(
                DINPooling(candidate_width, len(history.fields) * width, attention_width)
                for history in inputs.histories
            )

    def encode_request(self, requests: Requests) -> FieldState:
        fields_RFD = self._embed(self.request, requests.features)
        pairs = list(zip(self.events, requests.histories, strict=True))
        if self.pooling == "mean":
            pooled = [segment_mean(embed(history.events), history.offsets) for embed, history in pairs]
            return FieldState(torch.cat([fields_RFD, *pooled], dim=1))
        events_EW = tuple(embed(history.events).flatten(1) for embed, history in pairs)
        return FieldState(fields_RFD, events_EW, tuple(history.offsets for _, history in pairs))

    def forward(self, state: FieldState, candidates: Candidates) -> Tensor:
        """`x_BFD` of B rows, F = `num_fields`."""
        request_of_row_B = candidates.request_of_row_B
        candidate_BFD = self.candidate_fields(candidates)
        parts = [state.fields_RFD.index_select(0, request_of_row_B), candidate_BFD]
        if self.attention is not None:
            for attend, events_EW, offsets in zip(self.attention, state.events_EW, state.offsets, strict=True):
                pooled_BW = attend(candidate_BFD.flatten(1), events_EW, offsets, request_of_row_B)
                parts.append(pooled_BW.unflatten(1, (-1, self.width)))
        parts = [part_BFD for part_BFD in parts if part_BFD.shape[1]]
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)

    def candidate_fields(self, candidates: Candidates) -> Tensor:
        """The candidate fields alone, `[B, F, D]`: for models that need no vector of the request's fields a row."""
        return self._embed(self.candidate, candidates.features)

    def _embed(self, embedding: FieldEmbedding | None, block: FeatureBlock) -> Tensor:
        if embedding is not None:
            return embedding(block)
        return torch.zeros(block.num_owners, 0, self.width, device=block.ids_nF.device)


def _embedding(
    fields: tuple[Field, ...], tables: EmbeddingTables, width: int, set: str
) -> FieldEmbedding | None:
    return FieldEmbedding(fields, tables, width, set) if fields else None


def _field_names(inputs: Inputs, pooling: HistoryPooling | None) -> tuple[str, ...]:
    """The fields in the order of `x_BFD`; a pooled history's are `HISTORY.FIELD`."""
    request = tuple(field.name for field in inputs.request)
    candidate = tuple(field.name for field in inputs.candidate)
    pooled = tuple(f"{history.name}.{field.name}" for history in inputs.histories for field in history.fields)
    if pooling is None:
        return request + candidate
    return request + pooled + candidate if pooling == "mean" else request + candidate + pooled
