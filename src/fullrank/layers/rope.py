"""Rotary positions. Legend: S tokens · P different positions · h heads · d half the width of a head."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fullrank.kernels.rotate import turned_heads

BASE = 10_000.0


@dataclass(frozen=True, eq=False)
class Rotation:
    """Coordinates i and i + d of every head turned by the angle `position · base^(-i / d)`, for queries and keys of
    many tokens and layers. The product of a turned query and a turned key depends on the difference of their positions
    alone, so tokens at one position (all static ones at 0) are not told apart. Positions may be any numbers.

    The angles of each position are made once. `place_S`: which of the P positions each token has.

    Reference: Su et al., "RoFormer", 2021, arXiv:2104.09864, section 3.2 (here in halves, not in neighbours).
    """

    cos_Pd: Tensor
    sin_Pd: Tensor
    place_S: Tensor
    heads: int

    @staticmethod
    def of(positions_S: Tensor, width: int, heads: int, dtype: torch.dtype, base: float = BASE) -> Rotation:
        """`width`: of all heads, each of even width."""
        positions_P, place_S = positions_S.unique(return_inverse=True)
        half = width // heads // 2
        exponents_d = torch.arange(half, device=positions_S.device, dtype=torch.float64) / half
        angles_Pd = positions_P.double().unsqueeze(-1) * base**-exponents_d
        exact = torch.promote_types(dtype, torch.float32)
        return Rotation(angles_Pd.cos().to(exact), angles_Pd.sin().to(exact), place_S, heads)

    def __call__(self, made: Tensor) -> Tensor:
        """Of rows [queries ; keys ; …] of tokens, as one product makes them, queries and keys turned. `made` is used
        up."""
        return turned_heads(made, self.cos_Pd, self.sin_Pd, self.place_S, 2 * self.heads)
