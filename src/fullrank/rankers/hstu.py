"""HSTU as a ranker: fields, history and candidate in one stream, attention without softmax.

Legend: R requests · B rows · N tokens of all streams · D token width.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor, nn

from fullrank.data.batch import Candidates, Requests
from fullrank.data.inputs import Inputs
from fullrank.features.tables import EmbeddingTables
from fullrank.layers.hstu_block import HSTUBlock
from fullrank.layers.silu_attention import silu_attention
from fullrank.layers.stream_attention import Streams
from fullrank.layers.stream_targets import target_attention
from fullrank.rankers.base import Output, Ranker, Taps, TaskTowers, seeded, tap
from fullrank.rankers.field_front import EmbeddingConfig, FieldFront
from fullrank.rankers.stream_tokens import EventToken, StreamTokens


@dataclass(frozen=True)
class HSTUState:
    """Of each layer the keys and values that candidates read, and their streams."""

    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]
    streams: Streams


class HSTU(Ranker):
    """[request fields ; <sep> ; events ; <sep>] and a token of the candidate behind it, through layers of causal
    attention that takes SiLU of every score in the place of a softmax. The candidate's token is read by one network per
    task.

    The paper ranks with a stream of items and actions in turn, and its candidates do not see one another when they are
    scored together; here they do not in training either. Our choices: an event is one token of all its fields, the
    request's fields stand in front (as in the authors' DLRM-HSTU), separators, a candidate of one token: the stream is
    that of `TokenFormer`, so that both differ in their layers alone. Events come before the request, so their outcomes
    may be among their fields.

    As nothing before the candidate knows it, the stream runs once per request. Cost `S²` of S tokens: not for histories
    of thousands.

    Taps: `candidate`, `layers.L` [B, D] (the candidate's token) · `pooled` [B, D].

    Reference: Zhai et al., "Actions Speak Louder than Words", 2024, arXiv:2402.17152.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """`positions`: the n of `SiLUWeights`, about the longest stream. `towers`: each task's MLP, with `dropout`."""

        embedding: EmbeddingConfig = field(default_factory=EmbeddingConfig)
        width: int = 64
        heads: int = 4
        num_layers: int = 4
        positions: int = 128
        towers: tuple[int, ...] = (64,)
        dropout: float = 0.0

        def __post_init__(self) -> None:
            for name in ("num_layers", "positions", "heads"):
                if getattr(self, name) < 1:
                    raise ValueError(f"Expected HSTU {name} >= 1, got {getattr(self, name)}.")

        def build(self, inputs: Inputs, num_rows: dict[str, int], seed: int) -> HSTU:
            if not inputs.candidate:
                raise ValueError("HSTU reads its candidate's token: expected a candidate field, got none.")
            tables = self.embedding.build(inputs, num_rows, seed)
            with seeded(seed):
                return HSTU(self, inputs, tables)

    def __init__(self, config: Config, inputs: Inputs, tables: EmbeddingTables) -> None:
        super().__init__()
        self.config, self.inputs, self.tables = config, inputs, tables
        embedding_width, width = config.embedding.width, config.width
        self.front = FieldFront(inputs, tables, embedding_width, None)
        self.stream = StreamTokens(len(inputs.request), inputs.histories, embedding_width, width, "newest", "paper")
        self.candidate = EventToken(len(inputs.candidate) * embedding_width, width, "paper")
        self.blocks = nn.ModuleList(HSTUBlock(width, config.heads, config.positions) for _ in range(config.num_layers))
        self.towers = TaskTowers(inputs.task_names, width, config.towers, config.dropout)

    def encode_request(self, requests: Requests) -> HSTUState:
        front = self.front.encode_request(requests)
        stream = self.stream(front)
        x_ND, keys, values = stream.x_ND, [], []
        for index, block in enumerate(self.blocks):
            assert isinstance(block, HSTUBlock)
            q, k, v, gate = block.heads(x_ND)
            keys.append(k)
            values.append(v)
            if index + 1 < len(self.blocks):  # of the last layer candidates read keys and values alone
                x_ND = block.merge(x_ND, silu_attention(q, k, v, stream.streams, block.weigh), gate)
        return HSTUState(tuple(keys), tuple(values), stream.streams)

    def score(self, state: HSTUState, candidates: Candidates, *, taps: Taps | None = None) -> Output:
        request_B = candidates.request_of_row_B
        x_BD = tap(taps, "candidate", self.candidate(self.front.candidate_fields(candidates).flatten(1)))
        for index, block in enumerate(self.blocks):
            assert isinstance(block, HSTUBlock)
            *own_Bhd, gate_BD = block.heads(x_BD)
            q, k, v = (part.unsqueeze(1) for part in own_Bhd)
            keys, values = state.keys[index], state.values[index]
            read_B1hd = target_attention(q, k, v, keys, values, state.streams, request_B, weigh=block.weigh)
            x_BD = tap(taps, f"layers.{index}", block.merge(x_BD, read_B1hd.squeeze(1), gate_BD))
        pooled_BD = tap(taps, "pooled", x_BD)
        return Output(self.towers(pooled_BD), {}, taps if taps is not None else {})

    def frozen_for(self, task: str) -> set[str]:
        return self.towers.names_of_others(task, "towers")
