"""Parameter-free token mixing: heads of one token become parts of every token.

Legend: B rows · T tokens · D token width · H heads.
"""

from __future__ import annotations

from torch import Tensor


def mix(x_BTD: Tensor, heads: int | None = None) -> Tensor:
    """Every token is cut into H heads of width D / H; new token h is the concatenation of all tokens' head h.

    `[B, T, D] -> [B, H, T * D / H]`. With H = T (the default) the shape is kept, which is what makes a residual
    around it legal; the map is then a symmetric permutation of the T·D coordinates and its own inverse. D = T makes
    it a plain transpose (heads of width 1): legal, and rarely what is wanted. D must be a multiple of H.

    Reference: RankMixer, arXiv:2507.15551, section "Multi-head Token Mixing".
    """
    B, T, D = x_BTD.shape
    H = T if heads is None else heads
    return x_BTD.reshape(B, T, H, D // H).transpose(1, 2).reshape(B, H, T * D // H)


def unmix(y_BHW: Tensor, tokens: int) -> Tensor:
    """The inverse of `mix`: `[B, H, T * D / H] -> [B, T, D]` for T = `tokens`.

    Reference: the "reverting" step of TokenMixer-Large, arXiv:2602.06563.
    """
    B, H, W = y_BHW.shape
    return y_BHW.reshape(B, H, tokens, W // tokens).transpose(1, 2).reshape(B, tokens, -1)


def mix_token_major(x_TBD: Tensor) -> Tensor:
    """`mix` with H = T for a token-major tensor, `[T, B, D] -> [T, B, D]`: the layout of per-token layers."""
    T, B, D = x_TBD.shape
    return x_TBD.reshape(T, B, T, D // T).transpose(0, 2).reshape(T, B, D)


def check_mixable(tokens: int, width: int) -> None:
    """An error unless `width` is a positive multiple of `tokens`: only then does mixing keep the shape [T, D]."""
    if width < 1 or width % tokens:
        below, above = width // tokens * tokens, (width // tokens + 1) * tokens
        near = below if 0 < width - below < above - width and below else above
        raise ValueError(
            f"Token mixing cuts every token into as many heads as there are tokens: expected a token width that is "
            f"a multiple of {tokens}, got {width}. The nearest is {near}."
        )
