"""Which checkpoints of a run are whole, and what is stored of the others."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from fullrank.training.checkpoint import Changes, Checkpoint
from fullrank.training.optimizers import RankerOptimizer


class Increments:
    """Every `every`-th checkpoint is whole; those between store of the tables, and of their optimizer state, only the
    rows touched since the last whole one. Tables that move as a whole (`dense`, or with weight decay) are always stored
    whole, and so are dense parameters.

    The first checkpoint that a process saves is whole, since it does not know what was touched before; so is any that
    is asked to be. With `every` = 1 nothing is noted and every checkpoint is whole.
    """

    def __init__(self, optimizer: RankerOptimizer, every: int) -> None:
        self._optimizer, self._every = optimizer, every
        self._base: Checkpoint | None = None
        self._since = 0

    def changes(self, parts: Mapping[str, Mapping[str, Tensor]], *, whole: bool) -> Changes | None:
        """What the next checkpoint stores of `tables` and `optimizer`; None: everything."""
        if self._base is None or whole or self._since + 1 >= self._every:
            return None
        rows = self._optimizer.touched_rows()
        state = {name: name.removeprefix("tables/").rpartition("/")[0] for name in parts["optimizer"]}
        return Changes(
            base=self._base,
            rows=rows,
            of={
                "tables": {table: table for table in rows},
                "optimizer": {name: table for name, table in state.items() if table in rows},
            },
        )

    def saved(self, checkpoint: Checkpoint, changes: Changes | None) -> None:
        """The checkpoint that was made with what `changes` gave."""
        if changes is not None:
            self._since += 1
        elif self._every > 1:
            self._base, self._since = checkpoint, 0
            self._optimizer.watch_rows()
