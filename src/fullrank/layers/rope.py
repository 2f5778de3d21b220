"""Rotary positions. Legend: S tokens · P different positions · h heads · d width of a head (even) · D = h d."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

BASE = 10_000.0


def rotate(x_Shd: Tensor, positions_S: Tensor, base: float = BASE) -> Tensor:
    """Coordinates i and i + d / 2 of every head turned by the angle `position · base^(-2 i / d)`;
    `[..., S, heads, d]` with positions `[..., S]`.

    The product of a turned query and a turned key depends on the difference of their positions alone, so tokens at one
    position (all static ones at 0) are not told apart. Positions may be any numbers; d must be even.

    Reference: Su et al., "RoFormer", 2021, arXiv:2104.09864, section 3.2 (here in halves, not in neighbours).
    """
    low, high = x_Shd.chunk(2, dim=-1)
    angles_Sd = _angles(positions_S, x_Shd.shape[-1], base)
    cos, sin = (part.to(x_Shd.dtype).unsqueeze(-2) for part in (angles_Sd.cos(), angles_Sd.sin()))
    return torch.cat([low * cos - high * sin, low * sin + high * cos], dim=-1)


def _angles(positions_S: Tensor, width: int, base: float) -> Tensor:
    half = width // 2
    exponents_d = torch.arange(half, device=positions_S.device, dtype=torch.float64) / half
    return positions_S.double().unsqueeze(-1) * base**-exponents_d


@dataclass(frozen=True, eq=False)
class Rotation:
    """`rotate` for queries and keys of many tokens and layers: the angles of each position once, and no token's vector
    cut in two. A turned vector is `x ⊙ cos + s(x) ⊙ sin`, s(x) = [-high ; low] of each head, and s(x W) = x s(W): so s
    is taken of the weights (`swapped`), and all that is left are products of whole rows. `place_S`: which of the P
    positions each token has."""

    cos_PD: Tensor
    sin_PD: Tensor
    place_S: Tensor

    @staticmethod
    def of(positions_S: Tensor, width: int, heads: int, dtype: torch.dtype, base: float = BASE) -> Rotation:
        """`width`: D."""
        positions_P, place_S = positions_S.unique(return_inverse=True)
        angles_Pd = _angles(positions_P, width // heads, base)
        cos_PD, sin_PD = (part.to(dtype).repeat(1, 2 * heads) for part in (angles_Pd.cos(), angles_Pd.sin()))
        return Rotation(cos_PD, sin_PD, place_S)

    def __call__(self, x_SD: Tensor, swapped_SD: Tensor) -> Tensor:
        cos_SD, sin_SD = (part.to(x_SD.dtype)[self.place_S] for part in (self.cos_PD, self.sin_PD))
        return x_SD * cos_SD + swapped_SD * sin_SD


def swapped(weight_DE: Tensor, heads: int) -> Tensor:
    """s(W): what gives, of every head, its second half with a minus, then its first."""
    low, high = weight_DE.unflatten(0, (heads, 2, -1)).unbind(1)
    return torch.stack([-high, low], dim=1).flatten(0, 2)
