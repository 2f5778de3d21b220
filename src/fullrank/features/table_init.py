"""Initial rows of a table: a function of (seed, table name, row) alone."""

from __future__ import annotations

from hashlib import blake2b

import numpy as np
import torch
from torch import Tensor

from fullrank.features.table_plan import TableSpec

ROWS_PER_CHUNK = 1024


def initial_rows(spec: TableSpec, seed: int, start: int, end: int) -> Tensor:
    """Rows `[start, end)` of a table as it begins: float32 `[end - start, width]`, N(0, init_std²); row 0 is zeros.

    Rows are drawn in chunks of 1024, each from a counter-based generator (Philox, Salmon et al. 2011) whose key is
    (seed, table name) and whose counter is the chunk. So a table that has grown holds what one made larger at once
    would hold. Price: a chunk is always drawn whole, up to 1023 rows too many.
    """
    key = int.from_bytes(blake2b(f"{seed}/{spec.name}".encode(), digest_size=16).digest(), "little")
    rows = np.empty((end - start, spec.width), dtype=np.float32)
    for chunk in range(start // ROWS_PER_CHUNK, -(-end // ROWS_PER_CHUNK)):
        generator = np.random.Generator(np.random.Philox(key=key, counter=[0, 0, 0, chunk]))
        drawn = generator.standard_normal((ROWS_PER_CHUNK, spec.width), dtype=np.float32)
        first = chunk * ROWS_PER_CHUNK
        low, high = max(start, first), min(end, first + ROWS_PER_CHUNK)
        rows[low - start : high - start] = drawn[low - first : high - first]
    rows *= np.float32(spec.init_std)
    if start == 0:
        rows[:1] = 0
    return torch.from_numpy(rows)
