"""Memory for tables that are read a row here, a row there."""

from __future__ import annotations

import math
import mmap

import torch
from torch import Tensor

LEAST = 1 << 24  # bytes


def zeros(*shape: int, like: Tensor | None = None) -> Tensor:
    """Zeros of the type and on the device of `like` (None: float32 on the CPU); float32 on a CPU in pages of 2 MB where
    the system has them to give (Linux, `madvise`).

    A random read of a table of gigabytes in pages of 4 KB misses the cache of page addresses nearly every time: with
    large pages a gather of such rows takes half the time. Small tables are ordinary tensors.
    """
    if like is not None and not (like.is_cpu and like.dtype == torch.float32):
        return like.new_zeros(shape)
    size = 4 * math.prod(shape)
    if size < LEAST or not hasattr(mmap, "MADV_HUGEPAGE"):
        return torch.zeros(shape)
    memory = mmap.mmap(-1, size)
    memory.madvise(mmap.MADV_HUGEPAGE)
    return torch.frombuffer(memory, dtype=torch.float32).view(shape)
