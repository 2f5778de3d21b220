"""OneTrans: one causal Transformer over events and features, shared weights for events, own weights for each feature.

Legend: R requests · B rows · N tokens of all streams · T feature tokens of a candidate · D token width.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn

from fullrank.data.batch import Candidates, Requests
from fullrank.data.inputs import Inputs
from fullrank.features.tables import EmbeddingTables
from fullrank.features.tokenizer import AutoTokenizer
from fullrank.layers.linear import xavier_linear
from fullrank.layers.mixed_part import KeysAndValues, MixedPart
from fullrank.layers.per_token_linear import PerTokenLinear
from fullrank.layers.stream_attention import Streams, tail_attention
from fullrank.layers.stream_targets import target_attention
from fullrank.rankers.base import Output, Ranker, Taps, TaskTowers, seeded, tap
from fullrank.rankers.field_front import EmbeddingConfig, FieldFront
from fullrank.rankers.stream_tokens import StreamTokens


@dataclass(frozen=True)
class OneTransState:
    """`fields_RFE`: the request's fields, for the feature tokens. Of each layer the keys and values of events, and
    their streams."""

    fields_RFE: Tensor
    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]
    streams: tuple[Streams, ...]


class OneTrans(Ranker):
    """[events ; <sep> ; features of the request and the candidate], causal: T feature tokens, each a Linear of all
    fields (Auto-Split), behind the events. Events share one set of weights, every feature token owns its own. Layer l
    makes the newest `tails[l]` tokens of a history, the last one none (the pyramid); features are made by all layers.
    Mean of the feature tokens → one network per task.

    As events come first and nothing of the candidate stands before them, they are computed once per request, and
    candidates read their keys and values.

    Fixed by the paper: pre-RMSNorm, causal, mixed parameters, feature tokens split off one projection of all fields,
    the pyramid, that no token of one candidate sees another's. Our choices: one Linear as that projection, all sizes
    and tails, GELU, histories one after another with a learned separator before each and behind the last, no positions
    but order and what an event's fields say of its age, the mean as read-out.

    Not for a few fields without history: it is then a Transformer with T (4 + 2 k) D² weights a layer, k the expansion.

    Taps: `tokens`, `layers.L` [B, T, D] (the feature tokens) · `pooled` [B, D].

    Reference: OneTrans, 2025, arXiv:2510.26104.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """`num_tokens`: T. `tails`: one a layer but the last. `towers`: each task's MLP, with `dropout`."""

        embedding: EmbeddingConfig = field(default_factory=EmbeddingConfig)
        num_tokens: int = 8
        width: int = 64
        heads: int = 4
        expansion: int = 2
        tails: tuple[int, ...] = (32,)
        towers: tuple[int, ...] = (64,)
        dropout: float = 0.0

        def __post_init__(self) -> None:
            for name in ("num_tokens", "heads"):
                if getattr(self, name) < 1:
                    raise ValueError(f"Expected OneTrans {name} >= 1, got {getattr(self, name)}.")
            if any(tail < 1 for tail in self.tails) or any(b > a for a, b in itertools.pairwise(self.tails)):
                raise ValueError(f"Expected OneTrans tails >= 1 that do not grow, got {self.tails}.")

        def build(self, inputs: Inputs, num_rows: dict[str, int], seed: int) -> OneTrans:
            tables = self.embedding.build(inputs, num_rows, seed)
            with seeded(seed):
                return OneTrans(self, inputs, tables)

    def __init__(self, config: Config, inputs: Inputs, tables: EmbeddingTables) -> None:
        super().__init__()
        self.config, self.inputs, self.tables = config, inputs, tables
        embedding_width, width, tokens = config.embedding.width, config.width, config.num_tokens
        self.front = FieldFront(inputs, tables, embedding_width, None)
        self.stream = StreamTokens(0, inputs.histories, embedding_width, width, "newest", "paper")
        self.features = AutoTokenizer(self.front.num_fields * embedding_width, tokens, width, norm=False)
        own = partial(PerTokenLinear, tokens)
        self.of_events = nn.ModuleList(
            MixedPart(width, config.heads, config.expansion, xavier_linear) for _ in config.tails
        )
        self.of_events.append(KeysAndValues(width, config.heads, xavier_linear))
        self.of_features = nn.ModuleList(MixedPart(width, config.heads, config.expansion, own) for _ in self.of_events)
        self.towers = TaskTowers(inputs.task_names, width, config.towers, config.dropout)

    def encode_request(self, requests: Requests) -> OneTransState:
        front = self.front.encode_request(requests)
        stream = self.stream(front)
        x_ND, streams = stream.x_ND, stream.streams
        keys, values, of_layers = [], [], []
        for part, tail in itertools.zip_longest(self.of_events, self.config.tails):
            assert isinstance(part, KeysAndValues)
            k, v = part.heads(x_ND)
            keys.append(k)
            values.append(v)
            of_layers.append(streams)
            if isinstance(part, MixedPart):
                kept, alone = streams.newest_alone(tail)
                x_ND = x_ND.index_select(0, kept)
                x_ND = part.merge(x_ND, tail_attention(part.queries(x_ND), k, v, streams, tail))
                streams = alone
        return OneTransState(front.fields_RFD, tuple(keys), tuple(values), tuple(of_layers))

    def score(self, state: OneTransState, candidates: Candidates, *, taps: Taps | None = None) -> Output:
        request_B = candidates.request_of_row_B
        fields_BFE = state.fields_RFE.index_select(0, request_B)
        flat_BW = torch.cat([fields_BFE, self.front.candidate_fields(candidates)], dim=1).flatten(1)
        x_BTD = tap(taps, "tokens", self.features(flat_BW).x_BTD)
        for index, part in enumerate(self.of_features):
            assert isinstance(part, MixedPart)
            q, k, v = part.all_heads(x_BTD)
            events = state.keys[index], state.values[index], state.streams[index]
            read_BThd = target_attention(q, k, v, *events, request_B)
            x_BTD = tap(taps, f"layers.{index}", part.merge(x_BTD, read_BThd))
        pooled_BD = tap(taps, "pooled", x_BTD.mean(1))
        return Output(self.towers(pooled_BD), {}, taps if taps is not None else {})

    def frozen_for(self, task: str) -> set[str]:
        return self.towers.names_of_others(task, "towers")
