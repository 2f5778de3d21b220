"""A layer of RankMixer, with one network per token or a sparse mixture of them.

Legend: B rows · T tokens · D token width · E experts. Tensors are token-major, `[T, B, D]`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fullrank.kernels.bias_gelu import bias_gelu
from fullrank.kernels.mixed_norm import mixed_norm, runs_mixed_norm
from fullrank.kernels.residual_norm import residual_norm
from fullrank.kernels.token_ffn import runs_on_tiles, token_ffn
from fullrank.kernels.token_major import runs_between_products
from fullrank.layers.mixing import check_mixable, mix_token_major
from fullrank.layers.norm import NormPlacement, ResidualNorm
from fullrank.layers.per_token_ffn import PerTokenFFN
from fullrank.layers.per_token_moe import PerTokenMoE


class TokenMixing(nn.Module):
    """`S = LN(mix(X) + X)` (post-LN) or `S = mix(LN(X)) + X` (pre-LN); `[T, B, D] -> [T, B, D]`, 2 D parameters."""

    def __init__(self, tokens: int, width: int, placement: NormPlacement) -> None:
        super().__init__()
        check_mixable(tokens, width)
        self.mix_norm = ResidualNorm(width, placement)

    def mix(self, x_TBD: Tensor) -> Tensor:
        """X -> S."""
        x_TBD = _as_autocast(x_TBD)
        if self.mix_norm.placement == "post" and runs_mixed_norm(x_TBD):
            norm = self.mix_norm.norm
            return mixed_norm(x_TBD, norm.weight, norm.bias, norm.eps)
        return self.mix_norm(x_TBD, mix_token_major)


class RankMixerBlock(TokenMixing):
    """`S = LN(mix(X) + X)`, `X' = LN(FFN(S) + S)` (post-LN, the paper's), or
    `S = mix(LN(X)) + X`, `X' = FFN(LN(S)) + S` (pre-LN); `[T, B, D] -> [T, B, D]`, D a multiple of T.

    Parameters: `T (2 k D² + k D + D) + 4 D`, `k` the expansion. Forward FLOPs a row: about `4 k T D²`. Post-LN goes
    through fused bodies on a CPU where the sizes allow: in bf16 (autocast) the whole network of a token, on a processor
    with tiles (`runs_on_tiles`), in float32 what stands between products (`runs_between_products`).
    """

    def __init__(
        self, tokens: int, width: int, expansion: int, placement: NormPlacement = "post", dropout: float = 0.0
    ) -> None:
        super().__init__(tokens, width, placement)
        self.ffn_norm = ResidualNorm(width, placement)
        self.ffn = PerTokenFFN(tokens, width, expansion, dropout)

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


class SparseRankMixerBlock(TokenMixing):
    """The same with a mixture of networks per token (`PerTokenMoE`) where the one network stands.

    Parameters: `T E (2 k D² + k D + D) + 2 T (D E + E) + 4 D`.
    """

    def __init__(
        self, tokens: int, width: int, expansion: int, placement: NormPlacement, experts: int, active: float
    ) -> None:
        super().__init__(tokens, width, placement)
        self.ffn_norm = ResidualNorm(width, placement)
        self.ffn = PerTokenMoE(tokens, width, expansion, experts, active)

    def feed(self, s_TBD: Tensor, by_infer_B: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """S -> X' and the gates `[T, B, E]` of the infer router, which routes the rows `by_infer_B` (None: all)."""
        gates: list[Tensor] = []

        def branch(x_TBD: Tensor) -> Tensor:
            y_TBD, gates_TBE = self.ffn(x_TBD, by_infer_B)
            gates.append(gates_TBE)
            return y_TBD

        x_TBD = self.ffn_norm(_as_autocast(s_TBD), branch)
        return x_TBD, gates[0]


def _as_autocast(x_TBD: Tensor) -> Tensor:
    """x in bf16 inside autocast to bf16 on a CPU."""
    cast = x_TBD.is_cpu and torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16
    return x_TBD.to(torch.bfloat16) if cast and x_TBD.dtype == torch.float32 else x_TBD
