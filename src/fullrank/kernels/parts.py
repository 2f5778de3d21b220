"""A compiled loop over a range, on several threads."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import torch

_pool: ThreadPoolExecutor | None = None


def _forget_pool() -> None:
    """A forked child has none of its parent's threads."""
    global _pool
    _pool = None


if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
    os.register_at_fork(after_in_child=_forget_pool)


def even_cuts(num: int, grain: int) -> list[int]:
    """Where the parts of `range(num)` begin and end: one part a thread of torch, none smaller than `grain`."""
    parts = max(1, min(torch.get_num_threads(), num // grain))
    return [num * part // parts for part in range(parts + 1)]


def in_parts(function: Callable[..., Any], cuts: Sequence[int], *arguments: Any) -> list[Any]:
    """`function(cuts[i], cuts[i + 1], *arguments)` of every part, the first in this thread; what each returned.

    `function` releases the interpreter's lock (`compiled`) and writes nothing that another part reads. Threads of our
    own instead of Numba's: those need one of three threading libraries, of which the only one that is always there
    ends the process when two threads of a server meet in it.
    """
    if len(cuts) == 2:
        return [function(cuts[0], cuts[1], *arguments)]
    global _pool
    if _pool is None:
        _pool = ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="kernel")
    others = [_pool.submit(function, low, high, *arguments) for low, high in pairwise(cuts[1:])]
    return [function(cuts[0], cuts[1], *arguments), *(other.result() for other in others)]
