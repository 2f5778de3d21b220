"""Rotary positions. Legend: S tokens · P different positions · h heads · d width of a head (even) · D = h d."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

BASE = 10_000.0


@dataclass(frozen=True, eq=False)
class Rotation:
    """Coordinates i and i + d / 2 of every head turned by the angle `position · base^(-2 i / d)`, for queries and keys
    of many tokens and layers. The product of a turned query and a turned key depends on the difference of their
    positions alone, so tokens at one position (all static ones at 0) are not told apart. Positions may be any numbers.

    A turned vector is `x ⊙ cos + s(x) ⊙ sin`, s(x) = [-high ; low] of each head, and s(x W) = x s(W): so s is taken of
    the weights (`swapped`), no vector is cut in two, and all that is left are products of whole rows; the angles of
    each position are made once. `place_S`: which of the P positions each token has.

    Reference: Su et al., "RoFormer", 2021, arXiv:2104.09864, section 3.2 (here in halves, not in neighbours).
    """

    cos_PD: Tensor
    sin_PD: Tensor
    place_S: Tensor

    @staticmethod
    def of(positions_S: Tensor, width: int, heads: int, dtype: torch.dtype, base: float = BASE) -> Rotation:
        """`width`: D, of heads of even width."""
        positions_P, place_S = positions_S.unique(return_inverse=True)
        half = width // heads // 2
        exponents_d = torch.arange(half, device=positions_S.device, dtype=torch.float64) / half
        angles_Pd = positions_P.double().unsqueeze(-1) * base**-exponents_d
        cos_PD, sin_PD = (part.to(dtype).repeat(1, 2 * heads) for part in (angles_Pd.cos(), angles_Pd.sin()))
        return Rotation(cos_PD, sin_PD, place_S)

    def __call__(self, x_SD: Tensor, swapped_SD: Tensor) -> Tensor:
        cos_SD, sin_SD = (part.to(x_SD.dtype) for part in self._of_tokens)
        return x_SD * cos_SD + swapped_SD * sin_SD

    @cached_property
    def _of_tokens(self) -> tuple[Tensor, Tensor]:
        """Cosine and sine of every token: once for all layers."""
        return self.cos_PD[self.place_S], self.sin_PD[self.place_S]


def swapped(weight_DE: Tensor, heads: int) -> Tensor:
    """s(W): what gives, of every head, its second half with a minus, then its first."""
    low, high = weight_DE.unflatten(0, (heads, 2, -1)).unbind(1)
    return torch.stack([-high, low], dim=1).flatten(0, 2)
