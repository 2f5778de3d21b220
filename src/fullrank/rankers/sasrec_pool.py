"""SASRecPool: self-attention reads each history once per request. Legend: R requests · B rows · D encoder width."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from fullrank.data.batch import Candidates, Requests
from fullrank.data.inputs import Inputs
from fullrank.features.tables import EmbeddingTables
from fullrank.layers.causal_encoder import CausalEncoder
from fullrank.rankers.base import Output, Ranker, Taps, TaskTowers, seeded, tap
from fullrank.rankers.field_front import EmbeddingConfig, FieldFront, FieldState


@dataclass(frozen=True)
class SASRecState:
    """`front`: the request's embedded fields. `histories_RD`: the state of each history's newest event."""

    front: FieldState
    histories_RD: tuple[Tensor, ...]


class SASRecPool(Ranker):
    """Request fields, candidate fields and, of each history, the newest event's state of a causal self-attention
    encoder (`CausalEncoder`), flat into one MLP per task.

    The paper scores items by the product of that state and an item's vector, and learns from every position; as a
    ranker of rows, with fields beside it and learnt from the rows' labels alone, it is our framing. An event enters as
    its fields side by side (the paper: its item). The encoder runs once per request, however many candidates there
    are; what it makes cannot depend on the candidate, as DIN's pooling does.

    Taps: `fields` [B, F, E] (request and candidate; E the embedding width) · `history.NAME` [B, D] ·
    `pooled` (what the MLPs read).

    Reference: Kang & McAuley, "Self-Attentive Sequential Recommendation", ICDM 2018, arXiv:1808.09781.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """`width`, `num_blocks`, `heads`: of the encoder of each history. `towers`: hidden widths of each task's MLP.
        `dropout` acts on events, on each branch of a block, and in the towers."""

        embedding: EmbeddingConfig = field(default_factory=EmbeddingConfig)
        width: int = 64
        num_blocks: int = 2
        heads: int = 1
        towers: tuple[int, ...] = (128, 64)
        dropout: float = 0.0

        def build(self, inputs: Inputs, num_rows: dict[str, int], seed: int) -> SASRecPool:
            tables = self.embedding.build(inputs, num_rows, seed)
            with seeded(seed):
                return SASRecPool(self, inputs, tables)

    def __init__(self, config: Config, inputs: Inputs, tables: EmbeddingTables) -> None:
        super().__init__()
        self.config, self.inputs, self.tables = config, inputs, tables
        embedding_width = config.embedding.width
        self.front = FieldFront(inputs, tables, embedding_width, None)
        self.encoders = nn.ModuleList(
            CausalEncoder(
                len(history.fields) * embedding_width,
                config.width,
                max_events=history.last_n,
                blocks=config.num_blocks,
                heads=config.heads,
                dropout=config.dropout,
            )
            for history in inputs.histories
        )
        flat_width = self.front.num_fields * embedding_width + len(inputs.histories) * config.width
        self.towers = TaskTowers(inputs.task_names, flat_width, config.towers, config.dropout)

    def encode_request(self, requests: Requests) -> SASRecState:
        front = self.front.encode_request(requests)
        encoded = zip(self.encoders, front.events_EW, front.offsets, strict=True)
        histories_RD = tuple(encoder(events_EW, offsets) for encoder, events_EW, offsets in encoded)
        return SASRecState(FieldState(front.fields_RFD), histories_RD)

    def score(self, state: SASRecState, candidates: Candidates, *, taps: Taps | None = None) -> Output:
        parts = [tap(taps, "fields", self.front(state.front, candidates)).flatten(1)]
        for history, encoded_RD in zip(self.inputs.histories, state.histories_RD, strict=True):
            encoded_BD = encoded_RD.index_select(0, candidates.request_of_row_B)
            parts.append(tap(taps, f"history.{history.name}", encoded_BD))
        pooled_BW = tap(taps, "pooled", torch.cat(parts, dim=1))
        return Output(self.towers(pooled_BW), {}, taps if taps is not None else {})

    def frozen_for(self, task: str) -> set[str]:
        return self.towers.names_of_others(task, "towers")
