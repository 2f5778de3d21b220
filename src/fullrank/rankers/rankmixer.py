"""RankMixer: tokens, parameter-free mixing, per-token networks.

Legend: B rows · T tokens · D token width. Inside the stack tensors are token-major, `[T, B, D]`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from fullrank.data.batch import Candidates, Requests
from fullrank.data.inputs import Inputs
from fullrank.features.tables import EmbeddingTables
from fullrank.features.tokenizer import TokenizerConfig
from fullrank.kernels.bias_gelu import bias_gelu
from fullrank.kernels.mixed_norm import mixed_norm, runs_mixed_norm
from fullrank.kernels.residual_norm import residual_norm
from fullrank.kernels.token_ffn import runs_on_tiles, token_ffn
from fullrank.kernels.token_major import runs_between_products
from fullrank.layers.mixing import check_mixable, mix_token_major
from fullrank.layers.norm import NormPlacement, ResidualNorm
from fullrank.layers.per_token_ffn import PerTokenFFN
from fullrank.rankers.base import Output, Ranker, Taps, TaskTowers, check_choice, seeded, tap
from fullrank.rankers.field_front import EmbeddingConfig, FieldFront, FieldState, HistoryPooling


class RankMixerBlock(nn.Module):
    """`S = LN(mix(X) + X)`, `X' = LN(FFN(S) + S)` (post-LN, the paper's), or
    `S = mix(LN(X)) + X`, `X' = FFN(LN(S)) + S` (pre-LN); `[T, B, D] -> [T, B, D]`, D a multiple of T.

    Parameters: `T (2 k D² + k D + D) + 4 D`, `k` the expansion. Forward FLOPs a row: about `4 k T D²`. Post-LN goes
    through fused bodies on a CPU where the sizes allow: in bf16 (autocast) the whole network of a token, on a processor
    with tiles (`runs_on_tiles`), in float32 what stands between products (`runs_between_products`).
    """

    def __init__(
        self, tokens: int, width: int, expansion: int, placement: NormPlacement = "post", dropout: float = 0.0
    ) -> None:
        super().__init__()
        check_mixable(tokens, width)
        self.mix_norm = ResidualNorm(width, placement)
        self.ffn_norm = ResidualNorm(width, placement)
        self.ffn = PerTokenFFN(tokens, width, expansion, dropout)

    def mix(self, x_TBD: Tensor) -> Tensor:
        """X -> S."""
        x_TBD = _as_autocast(x_TBD)
        if self.mix_norm.placement == "post" and runs_mixed_norm(x_TBD):
            norm = self.mix_norm.norm
            return mixed_norm(x_TBD, norm.weight, norm.bias, norm.eps)
        return self.mix_norm(x_TBD, mix_token_major)

    def feed(self, s_TBD: Tensor) -> Tensor:
        """S -> X'."""
        s_TBD = _as_autocast(s_TBD)
        norm, ffn = self.ffn_norm.norm, self.ffn
        drops = self.training and ffn.dropout.p > 0
        if self.ffn_norm.placement == "post" and not drops:
            if runs_on_tiles(s_TBD, ffn.weight1_TDH):
                weights = (ffn.weight1_TDH, ffn.bias1_T1H, ffn.weight2_THD, ffn.bias2_T1D)
                return token_ffn(s_TBD, weights, norm.weight, norm.bias, norm.eps)
            if runs_between_products(s_TBD, ffn.weight1_TDH):
                hidden_TBH = bias_gelu(torch.bmm(s_TBD, ffn.weight1_TDH), ffn.bias1_T1H)
                y_TBD = torch.bmm(hidden_TBH, ffn.weight2_THD)
                return residual_norm(y_TBD, ffn.bias2_T1D, s_TBD, norm.weight, norm.bias, norm.eps)
        return self.ffn_norm(s_TBD, self.ffn)

    def forward(self, x_TBD: Tensor) -> Tensor:
        return self.feed(self.mix(x_TBD))


def _as_autocast(x_TBD: Tensor) -> Tensor:
    """x in bf16 inside autocast to bf16 on a CPU."""
    cast = x_TBD.is_cpu and torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16
    return x_TBD.to(torch.bfloat16) if cast and x_TBD.dtype == torch.float32 else x_TBD


class RankMixer(Ranker):
    """Field vectors → T tokens → L blocks of (mixing, per-token FFN) → mean over tokens → one MLP per task.

    The paper groups fields by hand into tokens; here `chunk` cuts the concatenation of all fields and `field` makes a
    token of each. It has no sequence module: a history enters as pooled fields, by `mean` or by attention of the
    candidate (`din`, of token width). The paper does not print k, dropout or tower sizes: our choices, as are the
    default sizes. Without its sparse mixture of experts.

    Not for few fields: with one token there is nothing to mix, and DCNv2 is cheaper.

    Taps: `tokens`, `layers.L.mix`, `layers.L.ffn` [B, T, D] · `pooled` [B, D].

    Reference: Zhu et al., "RankMixer", 2025, arXiv:2507.15551.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """`towers`: hidden widths of each task's MLP. `dropout` acts on the hidden units of FFNs and towers."""

        embedding: EmbeddingConfig = field(default_factory=EmbeddingConfig)
        tokenizer: TokenizerConfig = field(default_factory=lambda: TokenizerConfig(num_tokens=8, token_width=64))
        num_layers: int = 2
        expansion: int = 2
        norm: NormPlacement = "post"
        history: HistoryPooling = "mean"
        towers: tuple[int, ...] = (64,)
        dropout: float = 0.0

        def __post_init__(self) -> None:
            check_choice("RankMixer norm", self.norm, NormPlacement)
            check_choice("RankMixer history", self.history, HistoryPooling)

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
        self.blocks = nn.ModuleList(
            RankMixerBlock(self.tokenizer.num_tokens, width, config.expansion, config.norm, config.dropout)
            for _ in range(config.num_layers)
        )
        self.towers = TaskTowers(inputs.task_names, width, config.towers, config.dropout)

    def encode_request(self, requests: Requests) -> FieldState:
        return self.front.encode_request(requests)

    def score(self, state: FieldState, candidates: Candidates, *, taps: Taps | None = None) -> Output:
        tokens = self.tokenizer(self.front(state, candidates).flatten(1))
        x_TBD = tap(taps, "tokens", tokens.x_BTD).transpose(0, 1)
        for index, block in enumerate(self.blocks):
            assert isinstance(block, RankMixerBlock)
            s_TBD = block.mix(x_TBD)
            x_TBD = block.feed(s_TBD)
            tap(taps, f"layers.{index}.mix", s_TBD.transpose(0, 1))
            tap(taps, f"layers.{index}.ffn", x_TBD.transpose(0, 1))
        pooled_BD = tap(taps, "pooled", x_TBD.mean(0))
        return Output(self.towers(pooled_BD), {}, taps if taps is not None else {})

    def frozen_for(self, task: str) -> set[str]:
        return self.towers.names_of_others(task, "towers")
