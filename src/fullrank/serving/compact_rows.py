"""The rows of an arena as they are served: fewer bytes, read as float32.

Shape suffixes: n owners · F columns · N values of all bags · R rows of the arena · D width · B bytes of a packed row.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor
from torch.nn import functional as F

from fullrank.kernels.gather_compact import SCALE, gather_bfloat16, gather_int8, pack_bfloat16, pack_int8
from fullrank.kernels.pages import zeros


class CompactRows(ABC):
    """What `EmbeddingTables` asks of the rows of an arena in order to read them. Nothing here learns."""

    dtype = torch.float32  # of what is read
    disk = None  # packed rows are in memory
    packed: Tensor

    @abstractmethod
    def write(self, first: int, rows_nD: Tensor) -> None:
        """Pack finite float32 rows into the places from `first` on."""

    @abstractmethod
    def gather(self, ids_nF: Tensor, base_F: Tensor, num_rows_F: Tensor, decay: None = None) -> Tensor:
        """x_nFD: row `base_F[f] + ids_nF[n, f]` of every id; an id outside its table is an `IdOutOfRange`. Rows lack no
        `decay`: it was written before they were packed."""

    def bag_sum(self, rows_N: Tensor, offsets: Tensor, weights_N: Tensor | None, decay: None = None) -> Tensor:
        """sum(w * row) over each bag, `[n, D]`; bag i holds `[offsets[i], offsets[i + 1])`, w is 1 without weights."""
        x_ND = self.gather(rows_N.unsqueeze(-1), rows_N.new_zeros(1), rows_N.new_full((1,), len(self.packed)))
        every_N = torch.arange(len(rows_N), device=rows_N.device)
        return F.embedding_bag(
            every_N, x_ND.squeeze(-2), offsets, mode="sum", per_sample_weights=weights_N, include_last_offset=True
        )

    @property
    def nbytes(self) -> int:
        return self.packed.numel() * self.packed.element_size()


class Bfloat16Rows(CompactRows):
    """2 D bytes a row; see `pack_bfloat16`."""

    def __init__(self, num_rows: int, width: int, like: Tensor) -> None:
        self.packed = _zeros(num_rows, 2 * width, like).view(torch.bfloat16)

    def write(self, first: int, rows_nD: Tensor) -> None:
        self.packed[first : first + len(rows_nD)] = pack_bfloat16(rows_nD)

    def gather(self, ids_nF: Tensor, base_F: Tensor, num_rows_F: Tensor, decay: None = None) -> Tensor:
        return gather_bfloat16(self.packed, ids_nF, base_F, num_rows_F)


class Int8Rows(CompactRows):
    """D + 4 bytes a row; see `pack_int8`."""

    def __init__(self, num_rows: int, width: int, like: Tensor) -> None:
        self.packed = _zeros(num_rows, SCALE + width, like)

    def write(self, first: int, rows_nD: Tensor) -> None:
        self.packed[first : first + len(rows_nD)] = pack_int8(rows_nD)

    def gather(self, ids_nF: Tensor, base_F: Tensor, num_rows_F: Tensor, decay: None = None) -> Tensor:
        return gather_int8(self.packed, ids_nF, base_F, num_rows_F)


def _zeros(num_rows: int, num_bytes: int, like: Tensor) -> Tensor:
    """uint8 zeros on the device of `like`, in large pages where they are many."""
    size = num_rows * num_bytes
    words = zeros(-(-size // 4), like=like)  # which are of float32
    return words.view(torch.uint8)[:size].view(num_rows, num_bytes)
