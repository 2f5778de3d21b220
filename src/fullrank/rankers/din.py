"""DIN: the candidate activates its request's history, event by event.

Legend: B rows · E events · F fields · M width that candidate and event have in common · W width of an event.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from fullrank.data.batch import Candidates, Requests
from fullrank.data.inputs import Field, Inputs
from fullrank.features.tables import EmbeddingTables
from fullrank.layers.activation import Activation
from fullrank.layers.activation_unit import ActivationUnitPooling
from fullrank.layers.mlp import MLP
from fullrank.rankers.base import Output, Ranker, Taps, TaskTowers, check_choice, seeded, tap
from fullrank.rankers.field_front import EmbeddingConfig, FieldFront, FieldState


class CandidateUnit(nn.Module):
    """`ActivationUnitPooling` of one history, with its q and k picked from the fields: `[B, W]` a row.

    k is made of the event fields that the candidate has too: of the same key space, of the same name (less `item.`) if
    it has several; q of the candidate's fields in the same order. Other event fields are o. A history that shares no
    key space with the candidate has all its fields as k, and q is a Linear (no bias) of all candidate fields: our
    choice, the paper has no such history.
    """

    def __init__(
        self,
        event_fields: Sequence[Field],
        candidate_fields: Sequence[Field],
        width: int,
        hidden: tuple[int, ...],
        activation: Activation,
    ) -> None:
        super().__init__()
        matches = [_counterpart(event, candidate_fields) for event in event_fields]
        common = [at for at, match in enumerate(matches) if match is not None]
        others = [at for at, match in enumerate(matches) if match is None]
        self.query_fields = [match for match in matches if match is not None]
        order = common + others
        self.event_order = None if order == sorted(order) else order
        event_width = len(event_fields) * width
        self.query: nn.Linear | None = None
        if not common:
            self.query = nn.Linear(len(candidate_fields) * width, event_width, bias=False)
            nn.init.xavier_normal_(self.query.weight)
        common_width = len(common) * width if common else event_width
        self.unit = ActivationUnitPooling(common_width, event_width, hidden, activation)

    def forward(self, candidate_BFD: Tensor, events_EFD: Tensor, offsets: Tensor, request_of_row_B: Tensor) -> Tensor:
        if self.query is None:
            query_BM = candidate_BFD[:, self.query_fields].flatten(1)
        else:
            query_BM = self.query(candidate_BFD.flatten(1))
        if self.event_order is not None:
            events_EFD = events_EFD[:, self.event_order]
        return self.unit(query_BM, events_EFD.flatten(1), offsets, request_of_row_B)


def _counterpart(event: Field, candidate_fields: Sequence[Field]) -> int | None:
    """The candidate field that an event field is compared with."""
    same = [at for at, own in enumerate(candidate_fields) if event.key_space and own.key_space == event.key_space]
    named = [at for at in same if candidate_fields[at].name == event.name.removeprefix("item.")]
    return next(iter(named or same), None)


class DIN(Ranker):
    """Request fields, candidate fields, and each history weighted event by event for the candidate
    (`ActivationUnitPooling`, no softmax), flat into an MLP; a Linear per task on top.

    Several histories have a unit each. One MLP for all tasks, and ReLU in it by default, are our choices (the paper:
    one task, Dice everywhere: `activation="dice"`). The default sizes are those of the authors' code. Left out: the
    paper's mini-batch aware regularization (a `lazy` table optimizer's weight decay is another thing).

    An event costs a row about `M A_1 + A_1 A_2` products, so histories of some hundreds of events at most; with
    hundreds of candidates a request, `SASRecPool` reads the history once.

    Taps: `fields` [B, F, D] (request and candidate) · `history.NAME` [B, W] · `flat` (the MLP's input) · `pooled`.

    Reference: Zhou et al., "Deep Interest Network for Click-Through Rate Prediction", KDD 2018, arXiv:1706.06978.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """`attention_hidden`, `attention_activation`: of the activation units. `hidden`, `activation`, `dropout` and,
        if `batch_norm`, BatchNorm after every Linear: of the MLP."""

        embedding: EmbeddingConfig = field(default_factory=EmbeddingConfig)
        attention_hidden: tuple[int, ...] = (80, 40)
        attention_activation: Activation = "dice"
        hidden: tuple[int, ...] = (200, 80)
        activation: Activation = "relu"
        dropout: float = 0.0
        batch_norm: bool = False

        def __post_init__(self) -> None:
            check_choice("DIN attention_activation", self.attention_activation, Activation)
            check_choice("DIN activation", self.activation, Activation)

        def build(self, inputs: Inputs, num_rows: dict[str, int], seed: int) -> DIN:
            tables = self.embedding.build(inputs, num_rows, seed)
            with seeded(seed):
                return DIN(self, inputs, tables)

    def __init__(self, config: Config, inputs: Inputs, tables: EmbeddingTables) -> None:
        super().__init__()
        if inputs.histories and not inputs.candidate:
            raise ValueError("DIN needs candidate fields to activate a history with, got none.")
        self.config, self.inputs, self.tables = config, inputs, tables
        width = config.embedding.width
        self.front = FieldFront(inputs, tables, width, None)
        self.units = nn.ModuleList(
            CandidateUnit(
                history.fields, inputs.candidate, width, config.attention_hidden, config.attention_activation
            )
            for history in inputs.histories
        )
        num_fields = self.front.num_fields + sum(len(history.fields) for history in inputs.histories)
        self.mlp = MLP(
            num_fields * width,
            config.hidden,
            dropout=config.dropout,
            batch_norm=config.batch_norm,
            activation=config.activation,
        )
        self.towers = TaskTowers(inputs.task_names, self.mlp.width, hidden=())

    def encode_request(self, requests: Requests) -> FieldState:
        return self.front.encode_request(requests)

    def score(self, state: FieldState, candidates: Candidates, *, taps: Taps | None = None) -> Output:
        x_BFD = tap(taps, "fields", self.front(state, candidates))
        candidate_BFD = x_BFD[:, len(self.inputs.request) :]
        parts = [x_BFD.flatten(1)]
        for unit, history, events_EW, offsets in zip(
            self.units, self.inputs.histories, state.events_EW, state.offsets, strict=True
        ):
            events_EFD = events_EW.unflatten(1, (len(history.fields), -1))
            pooled_BW = unit(candidate_BFD, events_EFD, offsets, candidates.request_of_row_B)
            parts.append(tap(taps, f"history.{history.name}", pooled_BW))
        flat_BW = tap(taps, "flat", torch.cat(parts, dim=1))
        return Output(self.towers(tap(taps, "pooled", self.mlp(flat_BW))), {}, taps if taps is not None else {})

    def frozen_for(self, task: str) -> set[str]:
        return self.towers.names_of_others(task, "towers")
