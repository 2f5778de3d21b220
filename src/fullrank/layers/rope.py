"""Rotary positions. Legend: S tokens · d width of a head (even)."""

from __future__ import annotations

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
    half = x_Shd.shape[-1] // 2
    exponents = torch.arange(half, device=x_Shd.device, dtype=torch.float64) / half
    angles_Sd = positions_S.double().unsqueeze(-1) * base**-exponents
    cos, sin = (part.to(x_Shd.dtype).unsqueeze(-2) for part in (angles_Sd.cos(), angles_Sd.sin()))
    low, high = x_Shd[..., :half], x_Shd[..., half:]
    return torch.cat([low * cos - high * sin, low * sin + high * cos], dim=-1)
