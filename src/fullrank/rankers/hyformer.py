"""HyFormer: query tokens read each history, then mix with the feature tokens, layer by layer.

Legend: R requests · B rows · N events of a history · H histories · Q query tokens of a history · T all tokens of a row
· D token width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from fullrank.data.batch import Candidates, Requests
from fullrank.data.inputs import Inputs
from fullrank.features.tables import EmbeddingTables
from fullrank.features.tokenizer import AutoTokenizer
from fullrank.layers.jagged import segment_mean
from fullrank.layers.linear import xavier_linear
from fullrank.layers.mlp import MLP
from fullrank.layers.precision import at_least_float32
from fullrank.layers.stream_attention import Streams
from fullrank.rankers.base import Output, Ranker, Taps, TaskTowers, seeded, tap
from fullrank.rankers.field_front import EmbeddingConfig, FieldFront
from fullrank.rankers.hyformer_layer import HyFormerLayer


@dataclass(frozen=True)
class HyFormerState:
    """`fields_RFE`: the request's fields. `means`: each history's mean token, `[R, D]`. `read`: of each layer the keys
    and values of each history. `streams`: of each history."""

    fields_RFE: Tensor
    means: tuple[Tensor, ...]
    read: tuple[list[tuple[Tensor, Tensor]], ...]
    streams: tuple[Streams, ...]


class HyFormer(Ranker):
    """Tokens of a row: `queries` for each history, `Q = FFN_i([all fields ; mean of each history])`, and `num_tokens`
    feature tokens. Each layer:

        S_h = Transformer(S_h)              causal, a history at a time, once per request
        Q_h = Q_h + attention(Q_h, S_h)     query decoding
        [Q ; F] = RankMixer block           query boosting: mixing and a network per token

    Mean of all tokens → one network per task. Histories stay apart; candidates read their means, keys and values, so
    they are encoded once per request.

    Fixed by the paper: queries made of all fields and pooled histories, decoding and boosting in turn, histories apart.
    Our choices, where it leaves several or we know none: the Transformer as encoder (pre-RMSNorm, causal), norm and
    skip of the decoding, feature tokens by Linears of all fields, all sizes, the mean as read-out. `width` is rounded
    up to a multiple of all tokens and heads (mixing needs that).

    Not without histories: it then is RankMixer with tokens of all fields.

    Taps: `tokens`, `layers.L` [B, T, D] (queries first) · `pooled` [B, D].

    Reference: HyFormer, 2026, arXiv:2601.12681.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """`queries`: of each history. `num_tokens`: of features. `towers`: each task's MLP, with `dropout`."""

        embedding: EmbeddingConfig = field(default_factory=EmbeddingConfig)
        num_tokens: int = 4
        queries: int = 2
        width: int = 64
        heads: int = 4
        num_layers: int = 2
        expansion: int = 2
        towers: tuple[int, ...] = (64,)
        dropout: float = 0.0

        def __post_init__(self) -> None:
            for name in ("num_tokens", "queries", "num_layers", "heads"):
                if getattr(self, name) < 1:
                    raise ValueError(f"Expected HyFormer {name} >= 1, got {getattr(self, name)}.")

        def build(self, inputs: Inputs, num_rows: dict[str, int], seed: int) -> HyFormer:
            tables = self.embedding.build(inputs, num_rows, seed)
            with seeded(seed):
                return HyFormer(self, inputs, tables)

    def __init__(self, config: Config, inputs: Inputs, tables: EmbeddingTables) -> None:
        super().__init__()
        self.config, self.inputs, self.tables = config, inputs, tables
        embedding_width, num_histories = config.embedding.width, len(inputs.histories)
        tokens = config.num_tokens + config.queries * num_histories
        multiple = math.lcm(tokens, config.heads)
        width = -(-config.width // multiple) * multiple
        self.front = FieldFront(inputs, tables, embedding_width, None)
        self.events = nn.ModuleList(
            xavier_linear(len(history.fields) * embedding_width, width) for history in inputs.histories
        )
        flat_width = self.front.num_fields * embedding_width
        self.features = AutoTokenizer(flat_width, config.num_tokens, width, norm=False)
        self.queries = nn.ModuleList(
            MLP(flat_width + num_histories * width, (width,), width) for _ in range(config.queries * num_histories)
        )
        self.layers = nn.ModuleList(
            HyFormerLayer(num_histories, tokens, width, config.heads, config.expansion)
            for _ in range(config.num_layers)
        )
        self.towers = TaskTowers(inputs.task_names, width, config.towers, config.dropout)

    def encode_request(self, requests: Requests) -> HyFormerState:
        front = self.front.encode_request(requests)
        events = [embed(x_EW) for embed, x_EW in zip(self.events, front.events_EW, strict=True)]
        streams = tuple(
            Streams(offsets, torch.zeros_like(x[:, 0], dtype=torch.int64))
            for offsets, x in zip(front.offsets, events, strict=True)
        )
        means = tuple(
            segment_mean(at_least_float32(x_ND), offsets)  # a sum of many in bfloat16 would stop to grow
            for x_ND, offsets in zip(events, front.offsets, strict=True)
        )
        read = []
        for layer in self.layers:
            assert isinstance(layer, HyFormerLayer)
            events = layer.encode(events, streams)
            read.append(layer.keys_and_values(events))
        return HyFormerState(front.fields_RFD, means, tuple(read), streams)

    def score(self, state: HyFormerState, candidates: Candidates, *, taps: Taps | None = None) -> Output:
        request_B = candidates.request_of_row_B
        fields_BFE = state.fields_RFE.index_select(0, request_B)
        flat_BW = torch.cat([fields_BFE, self.front.candidate_fields(candidates)], dim=1).flatten(1)
        known_BV = torch.cat([flat_BW, *(mean_RD.index_select(0, request_B) for mean_RD in state.means)], dim=1)
        queries = [make(known_BV).unsqueeze(1) for make in self.queries]
        x_BTD = tap(taps, "tokens", torch.cat([*queries, self.features(flat_BW).x_BTD], dim=1))
        for index, layer in enumerate(self.layers):
            x_BTD = layer(x_BTD, state.read[index], state.streams, request_B, self.config.queries)
            tap(taps, f"layers.{index}", x_BTD)
        pooled_BD = tap(taps, "pooled", x_BTD.mean(1))
        return Output(self.towers(pooled_BD), {}, taps if taps is not None else {})

    def frozen_for(self, task: str) -> set[str]:
        return self.towers.names_of_others(task, "towers")
