"""The type in which a layer of our own multiplies."""

from __future__ import annotations

import torch
from torch import Tensor


def product_dtype(x: Tensor) -> torch.dtype:
    """Autocast's type where it is on for the device of `x` and `x` is not of double precision, else that of `x`: what
    torch's own products do."""
    kind = x.device.type
    if torch.is_autocast_enabled(kind) and x.dtype != torch.float64:
        return torch.get_autocast_dtype(kind)
    return x.dtype
