"""What every table semantics provides."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from fullrank.features.table_updates.row_grads import RowGrads


class UpdateRule(Protocol):
    """The update of one arena. `state` holds tensors with one entry per row of the arena, zero for a row that has
    never learned: so state is stored, loaded and grown row by row, whatever the rule."""

    state: dict[str, Tensor]

    def apply(self, weight_RD: Tensor, grads: RowGrads, *, lr: float, step: int, scale: float) -> None:
        """Step number `step` (from 1) with learning rate `lr` and the gradient `scale * grads`, in place. Padding rows
        are never among the rows."""
        ...
