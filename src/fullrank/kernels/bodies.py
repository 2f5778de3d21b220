"""Which body of a kernel runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import Tensor  # imported where tensors are: what is of numpy alone need not wait for torch

Bodies = Literal["auto", "reference", "compiled"]
MAX_WIDTH = 256  # a wider row is a longer vector than is worth compiling
LEAST_ELEMENTS = 1 << 17
_bodies: Bodies = "auto"


@contextmanager
def bodies(which: Bodies) -> Iterator[None]:
    """Inside, kernels run their plain-torch `reference`, or their `compiled` bodies whatever the size of the work
    (where they exist for the tensors at hand). `auto`, outside: compiled where the work is worth it. It holds for the
    whole process."""
    global _bodies
    before, _bodies = _bodies, which
    try:
        yield
    finally:
        _bodies = before


def worth_compiling(num: int, least: int) -> bool:
    """Whether `num` pieces of work are for a compiled body: from `least` on, unless `bodies` says otherwise."""
    return _bodies != "reference" and num >= (1 if _bodies == "compiled" else least)


def runs_compiled(num: int, least: int, *rows: Tensor) -> bool:
    """Whether `num` pieces of work go to the body for CPUs: from `least` on, for contiguous float32 `rows` on a CPU.

    Small work stays with torch, so that a small model never waits for a compiler.
    """
    if not worth_compiling(num, least):
        return False
    import torch

    return all(x.is_cpu and x.dtype == torch.float32 and x.is_contiguous() and x.shape[-1] <= MAX_WIDTH for x in rows)


def runs_triton(*rows: Tensor) -> bool:
    """Whether work goes to the body for GPUs: for contiguous float32 `rows` on a GPU, where Triton is installed."""
    if _bodies == "reference" or not all(x.is_cuda for x in rows):
        return False
    import torch

    return all(x.dtype == torch.float32 and x.is_contiguous() for x in rows) and _has_triton()


@cache
def _has_triton() -> bool:
    return find_spec("triton") is not None


def runs_compiled_elements(*matrices: Tensor) -> bool:
    """As `runs_compiled`, for pointwise work on all elements of contiguous `matrices`, all float32 or all bfloat16."""
    first = matrices[0]
    if not worth_compiling(first.numel(), LEAST_ELEMENTS):
        return False
    import torch

    good = first.dtype in (torch.float32, torch.bfloat16)
    return good and all(x.is_cpu and x.dtype == first.dtype and x.is_contiguous() for x in matrices)
