"""How compiled bodies take token-major activations, `[T, B, D]`, and where their results go."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from fullrank.kernels.bodies import worth_compiling

LEAST = 1 << 20  # numbers in x: less is left to torch, so that a small model never waits for a compiler


def runs_between_products(x_TBD: Tensor, weight_TDH: Tensor) -> bool:
    """Whether bodies compute what stands between a block's products: float32 on a CPU, outside autocast, D and H
    multiples of 16."""
    single = x_TBD.dtype == weight_TDH.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
    whole = not (x_TBD.shape[2] % 16 or weight_TDH.shape[2] % 16)
    return single and whole and x_TBD.is_cpu and worth_compiling(x_TBD.numel(), LEAST)


def results(x_TBD: Tensor, keep: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Memory for what comes out, of the type of x, and for the normalised rows and their scales if they are kept."""
    kept = x_TBD.shape if keep else (*x_TBD.shape[:1], 0, 0)
    out_TBD, hat_TBD = (torch.empty(shape, dtype=x_TBD.dtype) for shape in (x_TBD.shape, kept))
    return out_TBD, hat_TBD, torch.empty(kept[:2])


def flat(x: Tensor) -> np.ndarray:
    """A contiguous tensor as a flat array; bf16 as int16."""
    return _array(x.detach().contiguous().reshape(-1))


def rows_of(x_TBD: Tensor) -> tuple[np.ndarray, int, int]:
    """The memory of x as a flat array, and the strides of its tokens and rows: any layout with whole rows is read as
    it lies, such as `[B, T, D]` or one row for all tokens."""
    x_TBD = x_TBD.detach()
    if x_TBD.stride(2) != 1:
        x_TBD = x_TBD.contiguous()
    T, B, D = x_TBD.shape
    token, row, _ = x_TBD.stride()
    span = (T - 1) * token + (B - 1) * row + D
    return _array(x_TBD.as_strided((span,), (1,))), token, row


def _array(x: Tensor) -> np.ndarray:
    return (x.view(torch.int16) if x.dtype == torch.bfloat16 else x).numpy()
