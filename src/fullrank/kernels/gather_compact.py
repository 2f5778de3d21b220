"""Rows of an arena in half or a third of their bytes, read as float32. n owners · F columns · R rows · D width.

bfloat16 keeps 8 bits of each number: rounding to nearest even changes it by at most 2^-9 of itself. int8 keeps a scale
a row, s = max|w| / 127, and q = round(w / s), read as s q: off by at most s / 2, whatever the number. The scale lies in
front of its row, so that a look-up waits for one place in memory and not for two.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from fullrank.kernels.bodies import MAX_WIDTH, worth_compiling
from fullrank.kernels.gather import LEAST, checked_rows

SCALE = 4  # bytes of a packed row before its numbers
LARGEST = torch.finfo(torch.float32).max / 127.0001  # 127 times a larger scale may not be finite


def pack_bfloat16(rows_nD: Tensor) -> Tensor:
    """Float32 rows rounded to bfloat16, to nearest even; finite numbers too large for it become its largest."""
    largest = torch.finfo(torch.bfloat16).max
    return rows_nD.clamp(-largest, largest).bfloat16()


def pack_int8(rows_nD: Tensor) -> Tensor:
    """Finite float32 rows as bytes `[n, 4 + D]`: the scale (float32), then D numbers (int8, -127 to 127).

    A row of zeros has scale 0; so has, and reads as zeros, one with no number above 1.5e-36, whose scale would have
    fewer bits than a float32 has.
    """
    n, width = rows_nD.shape
    scale_n1 = (torch.linalg.vector_norm(rows_nD, torch.inf, dim=1, keepdim=True) / 127).clamp_(max=LARGEST)
    scale_n1.masked_fill_(scale_n1 < torch.finfo(torch.float32).tiny, 0.0)
    values_nD = (rows_nD / scale_n1.masked_fill(scale_n1 == 0, torch.inf)).round_().to(torch.int8)
    packed_nB = torch.empty(n, SCALE + width, dtype=torch.uint8, device=rows_nD.device)
    packed_nB[:, :SCALE] = scale_n1.view(torch.uint8)
    packed_nB[:, SCALE:] = values_nD.view(torch.uint8)
    return packed_nB


def gather_bfloat16(rows_RD: Tensor, ids_nF: Tensor, base_F: Tensor, num_rows_F: Tensor) -> Tensor:
    """`gather` of an arena packed by `pack_bfloat16`: `x_nFD` in float32; an id outside its table is an
    `IdOutOfRange`."""
    if _runs_compiled(rows_RD, ids_nF):
        from fullrank.kernels.cpu.gather_compact import gather_bfloat16_on_cpu

        found = gather_bfloat16_on_cpu(rows_RD, ids_nF, base_F, num_rows_F)
        if found is not None:
            return found
    return F.embedding(checked_rows(ids_nF, base_F, num_rows_F), rows_RD).float()


def gather_int8(packed_RB: Tensor, ids_nF: Tensor, base_F: Tensor, num_rows_F: Tensor) -> Tensor:
    """`gather` of an arena packed by `pack_int8`: `x_nFD` in float32; an id outside its table is an `IdOutOfRange`."""
    if _runs_compiled(packed_RB, ids_nF):
        from fullrank.kernels.cpu.gather_compact import gather_int8_on_cpu

        found = gather_int8_on_cpu(packed_RB, ids_nF, base_F, num_rows_F)
        if found is not None:
            return found
    rows_nF = checked_rows(ids_nF, base_F, num_rows_F)
    packed_NB = packed_RB.index_select(0, rows_nF.reshape(-1))
    scale_N1 = packed_NB[:, :SCALE].reshape(-1).view(torch.float32).unsqueeze(-1)
    x_ND = packed_NB[:, SCALE:].view(torch.int8) * scale_N1
    return x_ND.view(*rows_nF.shape, x_ND.shape[1])


def _runs_compiled(rows: Tensor, ids_nF: Tensor) -> bool:
    if not worth_compiling(ids_nF.numel(), LEAST):
        return False
    return rows.is_cpu and rows.shape[1] <= MAX_WIDTH and rows.is_contiguous() and ids_nF.is_contiguous()
