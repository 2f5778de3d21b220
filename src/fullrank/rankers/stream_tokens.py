"""A request as one stream of tokens: its fields, its histories, and separators between them.

Legend: R requests · E events · F request fields · N tokens of all streams · D token width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fullrank.data.inputs import HistoryInputs
from fullrank.features.tokenizer_modes import FieldTokenizer
from fullrank.layers.gated_stream_block import StreamForm
from fullrank.layers.jagged import segment_ids
from fullrank.layers.linear import xavier_linear
from fullrank.layers.stream_attention import Streams
from fullrank.rankers.field_front import FieldState

Regime = Literal["newest", "every"]


class EventToken(nn.Module):
    """`W e + b` of the numbers of an event or a candidate; then LayerNorm and SiLU in UniRank's form."""

    def __init__(self, in_width: int, width: int, form: StreamForm) -> None:
        super().__init__()
        self.linear = xavier_linear(in_width, width)
        self.norm = nn.LayerNorm(width) if form == "unirank" else None

    def forward(self, x_EW: Tensor) -> Tensor:
        y_ED = self.linear(x_EW)
        return y_ED if self.norm is None else F.silu(self.norm(y_ED))


def outcome_places(history: HistoryInputs) -> tuple[int, ...]:
    """Where the outcomes stand among an event's fields."""
    return tuple(at for at, one in enumerate(history.fields) if one.of == "outcome")


@dataclass(frozen=True, eq=False)
class TokenStream:
    """`x_ND`: the tokens. `static`: of each stream's first tokens, how many are fields. `target_position_R`: of what
    stands behind a stream. `event_tokens`: for each history the tokens of its events, oldest first (in regime `every`
    those that do not know the event's outcome). `event_counts`: how many events of each history, of each request."""

    x_ND: Tensor
    streams: Streams
    static: int
    target_position_R: Tensor
    event_tokens: tuple[Tensor, ...]
    event_counts: tuple[Tensor, ...]

    def without_static(self) -> tuple[Tensor, Streams]:
        """Which tokens are no fields, and their streams."""
        within_N = torch.arange(self.streams.num_tokens, device=self.x_ND.device)
        within_N = within_N - self.streams.offsets[:-1][segment_ids(self.streams.offsets, len(within_N))]
        (kept,) = (within_N >= self.static).nonzero(as_tuple=True)
        lengths = self.streams.lengths - self.static
        offsets = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
        return kept, Streams(offsets, self.streams.positions_N[kept])


class StreamTokens(nn.Module):
    """[fields ; <sep> ; events of a history ; … ; <sep>], a stream a request; `regime` "every" gives an event two
    tokens, one that does not know its outcomes and one of these (one alone, where a history has none).

    Rotary positions: fields 0, an event its place in the stream's events (both of its tokens the same), a separator
    that of the event before it, what stands behind the stream one more than the last event. Several histories follow
    one another, a separator before each. Their order, and the positions of separators, are our choices.
    """

    def __init__(
        self,
        num_fields: int,
        histories: tuple[HistoryInputs, ...],
        embedding_width: int,
        width: int,
        regime: Regime,
        form: StreamForm,
    ) -> None:
        super().__init__()
        self.form: StreamForm = form
        self.embedding_width = embedding_width
        self.outcomes = [list(outcome_places(history)) if regime == "every" else [] for history in histories]
        self.others = [
            [at for at in range(len(history.fields)) if at not in outcomes]
            for history, outcomes in zip(histories, self.outcomes, strict=True)
        ]
        self.fields: FieldTokenizer | None = None
        if num_fields:
            self.fields = FieldTokenizer((embedding_width,) * num_fields, width, norm=form == "unirank")
        self.events = nn.ModuleList(EventToken(len(at) * embedding_width, width, form) for at in self.others)
        self.actions = nn.ModuleList(
            EventToken(len(at) * embedding_width, width, form) if at else nn.Identity() for at in self.outcomes
        )
        self.separators_HD = nn.Parameter(torch.randn(len(histories) + 1, width) * 0.01)

    def forward(self, front: FieldState) -> TokenStream:
        fields_RFE, offsets = front.fields_RFD, front.offsets
        events_EFE = [events_EW.unflatten(1, (-1, self.embedding_width)) for events_EW in front.events_EW]
        R, device = len(fields_RFE), fields_RFE.device
        static = 0 if self.fields is None else self.fields.num_tokens
        each = [2 if outcomes else 1 for outcomes in self.outcomes]  # tokens of an event
        counts = tuple(one.diff() for one in offsets)
        none_R = fields_RFE.new_zeros(R, dtype=torch.int64)
        before_hR = torch.stack([none_R, *counts]).cumsum(0)  # events, and tokens of events, of earlier histories
        tokens_hR = torch.stack([none_R, *(n * count_R for n, count_R in zip(each, counts, strict=True))]).cumsum(0)
        lengths_R = static + len(counts) + 1 + tokens_hR[-1]
        starts = torch.cat([lengths_R.new_zeros(1), lengths_R.cumsum(0)])
        at, x, positions, own = [], [], [], []

        def put(place: Tensor, tokens: Tensor, position: Tensor) -> None:
            at.append(place.flatten())
            x.append(tokens.reshape(-1, tokens.shape[-1]))
            positions.append(position.flatten())

        if self.fields is not None:
            made_RFD = self.fields(fields_RFE.flatten(1)).x_BTD
            made_RFD = F.silu(made_RFD) if self.form == "unirank" else made_RFD
            place_RF = starts[:-1, None] + torch.arange(static, device=device)
            put(place_RF, made_RFD, torch.zeros_like(place_RF))
        for h, separator_D in enumerate(self.separators_HD):
            begins_R = starts[:-1] + static + h + tokens_hR[h]
            last = h == len(counts)
            put(begins_R, separator_D.expand(R, -1), before_hR[h] + last)
            if last:
                break
            events = events_EFE[h]
            request_E = segment_ids(offsets[h], len(events))
            within_E = torch.arange(len(events), device=device) - offsets[h][:-1][request_E]
            place_E = begins_R[request_E] + 1 + each[h] * within_E
            position_E = before_hR[h][request_E] + 1 + within_E
            own.append(place_E)
            put(place_E, self.events[h](events[:, self.others[h]].flatten(1)), position_E)
            if self.outcomes[h]:
                put(place_E + 1, self.actions[h](events[:, self.outcomes[h]].flatten(1)), position_E)
        flat = torch.cat(x)
        order = torch.cat(at)
        x_ND = torch.zeros_like(flat).index_copy(0, order, flat)
        position_N = torch.cat(positions)
        position_N = torch.zeros_like(position_N).index_copy(0, order, position_N)
        return TokenStream(x_ND, Streams(starts, position_N), static, before_hR[-1] + 1, tuple(own), counts)
