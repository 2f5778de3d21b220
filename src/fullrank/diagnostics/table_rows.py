"""Which rows of a table its rank is of: those that training has moved.

Legend: U rows that are read · D width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fullrank.features.table_init import initial_rows
from fullrank.features.tables import EmbeddingTables

ROWS = 4096  # of a table, while a model learns
CHUNK = 1 << 16  # rows whose beginnings are drawn at once


@dataclass(frozen=True)
class TableRows:
    """Some rows of a table, evenly spread from row 1 (row 0 is padding) to the last, and how they began.

    A row that still is what it began as belongs to no key, or to one that training has not seen: its random numbers
    use every direction, and would hide that the others don't.
    """

    name: str
    row_U: Tensor
    began_UD: Tensor

    @staticmethod
    def of(tables: EmbeddingTables, name: str, most: int = ROWS) -> TableRows:
        _, _, spec = tables.plan.places[name]
        last = spec.num_rows - 1
        row_U = torch.linspace(1, last, min(most, last), dtype=torch.float64).round().long()
        began = []
        for start in range(0, spec.num_rows, CHUNK):
            end = min(start + CHUNK, spec.num_rows)
            own_U = row_U[(row_U >= start) & (row_U < end)]
            began.append(initial_rows(spec, tables.seed, start, end)[own_U - start])
        return TableRows(name, row_U, torch.cat(began))

    @torch.no_grad()
    def trained(self, tables: EmbeddingTables) -> tuple[Tensor, Tensor]:
        """Which of the rows are not what they began as, and their weights, `[rows, D]`."""
        arena, base, _ = tables.plan.places[self.name]
        now_UD = tables.arenas[arena].detach()[(base + self.row_U).to(tables.arenas[arena].device)].cpu()
        moved_U = (now_UD != self.began_UD).any(1)
        return self.row_U[moved_U], now_UD[moved_U]


def tables_in_memory(tables: EmbeddingTables) -> list[str]:
    """Tables that have rows and do not live on disk."""
    return [name for name, (_, _, spec) in tables.plan.places.items() if spec.disk is None and spec.num_rows > 1]


def trained_rows(tables: EmbeddingTables, most: int = ROWS) -> dict[str, tuple[Tensor, Tensor]]:
    """Up to `most` rows of every table in memory, evenly spread, without those that training has not moved: which, and
    their weights `[rows, D]`."""
    return {name: TableRows.of(tables, name, most).trained(tables) for name in tables_in_memory(tables)}
