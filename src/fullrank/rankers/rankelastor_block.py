"""A layer of RankElastor, in the form of the paper and in that of its repository.

Legend: B rows · T tokens · D token width · r expansion.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from fullrank.layers.mixing import check_mixable, mix
from fullrank.layers.norm import RMSNorm
from fullrank.layers.per_token_glu import PerTokenGLU
from fullrank.layers.per_token_linear import PerTokenLinear
from fullrank.layers.token_mixers import FullMixing, KroneckerMixing, SegmentMixing

Form = Literal["paper", "repository"]
Mixer = Literal["full", "kronecker", "permute", "segments", "none"]
FFN = Literal["glu", "gelu", "relu"]
EPS = 1e-12  # of the repository's RMSNorms


class RankElastorBlock(nn.Module):
    """`[B, T, D] -> [B, T, D]`; K is the mixer:

        paper        M = LN(K(X) + X)                              X' = PerTokenGLU(M)
        repository   M = RMSNorm_D(K(RMSNorm_TD(vec X)) + X)       X' = Linear(units(M)) + M

    with `units(a)` for every width h of `units`: `a <- PerTokenGLU(RMSNorm(a))` with biases and the inner skip, then a
    Linear to h if that is another width. The repository's permutation is `M = RMSNorm_D(LN(K(X) + X))`, and its GELU
    and ReLU networks are plain ones, `a <- f(Linear(a))` a width.

    Parameters of the paper's form, full and GLU: `(T D)² + T (3 r + 1) D² + 2 D` (the paper's formula has no T in front
    of the second term; its repository's networks are one a token).

    Reference: RankElastor, arXiv:2605.23191; repository at commit 68e5f29.
    """

    def __init__(
        self,
        tokens: int,
        width: int,
        *,
        form: Form,
        mixer: Mixer,
        ffn: FFN,
        expansion: float,
        units: tuple[int, ...] = (),
        segments: int = 1,
    ) -> None:
        super().__init__()
        self.form, self.mixer = form, mixer
        self.mixing = _mixer(mixer, tokens, width, segments, bias=form == "repository")
        paper = form == "paper"
        self.norm_of_all: nn.Module | None = None
        self.norm_of_sum: nn.Module | None = None
        if not paper and mixer == "permute":
            self.norm_of_sum = nn.LayerNorm(width)
        elif not paper and mixer != "none":
            self.norm_of_all = RMSNorm(tokens * width, EPS)
        self.norm = nn.LayerNorm(width) if paper else RMSNorm(width, EPS)
        made = _paper_ffn(tokens, width, ffn, expansion) if paper else _units(tokens, width, ffn, expansion, units)
        self.ffn = nn.Sequential(*made)

    def mix(self, x_BTD: Tensor) -> Tensor:
        """X -> M."""
        if self.mixer == "none":
            return self.norm(x_BTD)
        read_BTD = x_BTD
        if self.norm_of_all is not None:
            read_BTD = self.norm_of_all(x_BTD.flatten(1)).view(x_BTD.shape)
        mixed_BTD = (mix(read_BTD) if self.mixing is None else self.mixing(read_BTD)) + x_BTD
        return self.norm(mixed_BTD if self.norm_of_sum is None else self.norm_of_sum(mixed_BTD))

    def feed(self, m_BTD: Tensor) -> Tensor:
        """M -> X'."""
        return self.ffn(m_BTD) if self.form == "paper" else self.ffn(m_BTD) + m_BTD

    def forward(self, x_BTD: Tensor) -> Tensor:
        return self.feed(self.mix(x_BTD))


def _mixer(mixer: Mixer, tokens: int, width: int, segments: int, bias: bool) -> nn.Module | None:
    """None for the two without parameters."""
    if mixer == "full":
        return FullMixing(tokens, width, bias)
    if mixer == "kronecker":
        return KroneckerMixing(tokens, width)
    if mixer == "segments":
        return SegmentMixing(tokens, width, segments)
    if mixer == "permute":
        check_mixable(tokens, width)
    return None


def _paper_ffn(tokens: int, width: int, ffn: FFN, expansion: float) -> list[nn.Module]:
    activation = "relu" if ffn == "relu" else "gelu"
    return [PerTokenGLU(tokens, width, int(expansion * width), activation=activation, gated=ffn == "glu")]


def _units(tokens: int, width: int, ffn: FFN, expansion: float, units: tuple[int, ...]) -> list[nn.Module]:
    made: list[nn.Module] = []
    before = width
    for unit in units:
        if ffn == "glu":
            glu = PerTokenGLU(tokens, before, int(expansion * before), bias=True, inner_skip=True)
            made += [RMSNorm(before, EPS, tokens), glu]
            made += [PerTokenLinear(tokens, before, unit)] if unit != before else []
        else:
            made += [PerTokenLinear(tokens, before, unit), nn.GELU() if ffn == "gelu" else nn.ReLU()]
        before = unit
    return [*made, PerTokenLinear(tokens, before, width)]
