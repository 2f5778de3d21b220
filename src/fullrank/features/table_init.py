"""Initial rows of a table: a function of (seed, table name, row) alone."""

from __future__ import annotations

from hashlib import blake2b

import numpy as np
import torch
from torch import Tensor

from fullrank.features.table_plan import TableSpec
from fullrank.kernels.parts import even_cuts, in_parts

ROWS_PER_CHUNK = 1024
CHUNKS_PER_THREAD = 16


def initial_rows(spec: TableSpec, seed: int, start: int, end: int) -> Tensor:
    """Rows `[start, end)` of a table as it begins: float32 `[end - start, width]`, see `write_initial_rows`."""
    rows_ND = torch.empty(end - start, spec.width)
    write_initial_rows(rows_ND, spec, seed, start)
    return rows_ND


def write_initial_rows(rows_ND: Tensor, spec: TableSpec, seed: int, start: int = 0) -> None:
    """Make `rows_ND` (float32 on the CPU) the rows from `start` on of a table as it begins: N(0, init_std²); row 0 is
    zeros.

    Rows are drawn in chunks of 1024, each from a counter-based generator (Philox, Salmon et al. 2011) whose key is
    (seed, table name) and whose counter is the chunk. So a table that has grown holds what one made larger at once
    would hold, and threads draw chunks of their own. Price: a chunk is always drawn whole, up to 1023 rows too many.
    """
    key = int.from_bytes(blake2b(f"{seed}/{spec.name}".encode(), digest_size=16).digest(), "little")
    rows, end = rows_ND.numpy(), start + len(rows_ND)
    chunk_before = start // ROWS_PER_CHUNK

    def write(low_chunk: int, high_chunk: int) -> None:
        for chunk in range(chunk_before + low_chunk, chunk_before + high_chunk):
            generator = np.random.Generator(np.random.Philox(key=key, counter=[0, 0, 0, chunk]))
            drawn = generator.standard_normal((ROWS_PER_CHUNK, spec.width), dtype=np.float32)
            first = chunk * ROWS_PER_CHUNK
            low, high = max(start, first), min(end, first + ROWS_PER_CHUNK)
            drawn *= np.float32(spec.init_std)
            rows[low - start : high - start] = drawn[low - first : high - first]

    in_parts(write, even_cuts(-(-end // ROWS_PER_CHUNK) - chunk_before, CHUNKS_PER_THREAD))
    if start == 0:
        rows[:1] = 0
