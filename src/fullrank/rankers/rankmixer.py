"""RankMixer: tokens, parameter-free mixing, per-token networks.

Legend: B rows · T tokens · D token width. Inside the stack tensors are token-major, `[T, B, D]`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import nn

from fullrank.data.batch import Candidates, Requests
from fullrank.data.inputs import Inputs
from fullrank.features.tables import EmbeddingTables
from fullrank.features.tokenizer import TokenizerConfig
from fullrank.layers.norm import NormPlacement
from fullrank.rankers.base import Output, Ranker, Taps, TaskTowers, check_choice, seeded, tap
from fullrank.rankers.field_front import EmbeddingConfig, FieldFront, FieldState, HistoryPooling
from fullrank.rankers.rankmixer_block import RankMixerBlock, SparseRankMixerBlock


class RankMixer(Ranker):
    """Field vectors → T tokens → L blocks of (mixing, per-token FFN) → mean over tokens → one MLP per task.

    The paper groups fields by hand into tokens; here `chunk` cuts the concatenation of all fields and `field` makes a
    token of each. It has no sequence module: a history enters as pooled fields, by `mean` or by attention of the
    candidate (`din`, of token width). The paper does not print k, dropout or tower sizes: our choices, as are the
    default sizes.

    With `experts` of two or more every token has a sparse mixture of networks (`PerTokenMoE`): trained densely, of
    which `active` of the gates stay open. Its penalty is `Output.aux["gates"]`, in training alone.

    Not for few fields: with one token there is nothing to mix, and DCNv2 is cheaper.

    Taps: `tokens`, `layers.L.mix`, `layers.L.ffn` [B, T, D] · `layers.L.gates` [B, T, E] (with experts) · `pooled`
    [B, D].

    Reference: Zhu et al., "RankMixer", 2025, arXiv:2507.15551.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """`towers`: hidden widths of each task's MLP. `dropout` acts on the hidden units of FFNs (not of experts) and
        towers. `experts`: networks a token; `active`: the share of their gates that the penalty aims at."""

        embedding: EmbeddingConfig = field(default_factory=EmbeddingConfig)
        tokenizer: TokenizerConfig = field(default_factory=lambda: TokenizerConfig(num_tokens=8, token_width=64))
        num_layers: int = 2
        expansion: int = 2
        norm: NormPlacement = "post"
        history: HistoryPooling = "mean"
        towers: tuple[int, ...] = (64,)
        dropout: float = 0.0
        experts: int = 1
        active: float = 0.25

        def __post_init__(self) -> None:
            check_choice("RankMixer norm", self.norm, NormPlacement)
            check_choice("RankMixer history", self.history, HistoryPooling)
            if self.experts < 1:
                raise ValueError(f"Expected at least 1 expert a token, got {self.experts}.")

        def build(self, inputs: Inputs, num_rows: dict[str, int], seed: int) -> RankMixer:
            tables = self.embedding.build(inputs, num_rows, seed)
            with seeded(seed):
                return RankMixer(self, inputs, tables)

    def __init__(self, config: Config, inputs: Inputs, tables: EmbeddingTables) -> None:
        super().__init__()
        self.config, self.inputs, self.tables = config, inputs, tables
        embedding_width, width = config.embedding.width, config.tokenizer.token_width
        self.front = FieldFront(inputs, tables, embedding_width, config.history, attention_width=width)
        self.tokenizer = config.tokenizer.build((embedding_width,) * self.front.num_fields, self.front.field_names)
        self.blocks = nn.ModuleList(self._block() for _ in range(config.num_layers))
        self.towers = TaskTowers(inputs.task_names, width, config.towers, config.dropout)

    def _block(self) -> RankMixerBlock | SparseRankMixerBlock:
        c, tokens = self.config, self.tokenizer.num_tokens
        width = c.tokenizer.token_width
        if c.experts == 1:
            return RankMixerBlock(tokens, width, c.expansion, c.norm, c.dropout)
        return SparseRankMixerBlock(tokens, width, c.expansion, c.norm, c.experts, c.active)

    def encode_request(self, requests: Requests) -> FieldState:
        return self.front.encode_request(requests)

    def score(self, state: FieldState, candidates: Candidates, *, taps: Taps | None = None) -> Output:
        tokens = self.tokenizer(self.front(state, candidates).flatten(1))
        x_TBD = tap(taps, "tokens", tokens.x_BTD).transpose(0, 1)
        by_infer_B = None
        if self.training and self.config.experts > 1:  # a row is routed by one router through all layers
            by_infer_B = torch.rand(candidates.num_rows, device=x_TBD.device) < 0.5
        penalties = []
        for index, block in enumerate(self.blocks):
            assert isinstance(block, (RankMixerBlock, SparseRankMixerBlock))
            s_TBD = block.mix(x_TBD)
            if isinstance(block, SparseRankMixerBlock):
                x_TBD, gates_TBE = block.feed(s_TBD, by_infer_B)
                tap(taps, f"layers.{index}.gates", gates_TBE.transpose(0, 1))
                penalties += [block.ffn.penalty(gates_TBE)] if self.training else []
            else:
                x_TBD = block.feed(s_TBD)
            tap(taps, f"layers.{index}.mix", s_TBD.transpose(0, 1))
            tap(taps, f"layers.{index}.ffn", x_TBD.transpose(0, 1))
        pooled_BD = tap(taps, "pooled", x_TBD.mean(0))
        aux = {"gates": torch.stack(penalties).sum()} if penalties else {}
        return Output(self.towers(pooled_BD), aux, taps if taps is not None else {})

    def frozen_for(self, task: str) -> set[str]:
        return self.towers.names_of_others(task, "towers")
