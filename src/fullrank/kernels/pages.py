"""What the system's memory pages cost: large ones for tables, and none anew every step."""

from __future__ import annotations

import ctypes
import math
import mmap
import os

import torch
from torch import Tensor

LEAST = 1 << 24  # bytes
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h


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


def keep_freed_memory() -> None:
    """Let this process keep up to 1 GB of memory it has freed, where it uses glibc (elsewhere nothing happens).

    glibc gives blocks of megabytes back to the system as soon as they are free, and the next step of training gets the
    same ones again, page by page, each zeroed: 31,000 pages a step of DCN-v2 with batches of 4,096, a tenth of its
    time. Blocks of 32 MB and more are still given back: glibc can't be told otherwise.
    """
    library = ctypes.CDLL(None) if os.name == "posix" else None
    if library is not None and hasattr(library, "mallopt"):
        library.mallopt(M_MMAP_THRESHOLD, 32 << 20)
        library.mallopt(M_TRIM_THRESHOLD, 1 << 30)
