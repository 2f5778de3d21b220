"""What Triton bodies are made of: its decorator, and blocks of rows."""

from __future__ import annotations

from typing import Any

import triton

compiled: Any = triton.jit  # Any: a call `body[grid](…)` takes tensors where the body's parameters are pointers
ELEMENTS = 2048  # of a block of rows: 16 a thread of four warps. Our choice, unmeasured


def block_of_rows(width: int, elements: int = ELEMENTS) -> tuple[int, int]:
    """The power of two that a row is padded to (Triton's blocks have such sizes), and how many rows a block has."""
    padded = triton.next_power_of_2(width)
    return padded, max(1, elements // padded)


def blocks(num: int, block: int) -> tuple[int]:
    """A program a block."""
    return (-(-num // block),)
