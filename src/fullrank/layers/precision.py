"""The types in which layers of our own multiply and weigh."""

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


def at_least_float32(x: Tensor) -> Tensor:
    """What was multiplied in fewer bits as float32; float32 and float64 as they are."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
