"""Labels that became known between a state of prepared data and now: what a daily training has not learned yet.

    newly known = counts now, and did not count then        (`assemble.known_labels`, at both states)

Over a chain of states s0, s1, … every label that counts at the last one is newly known at exactly one of them: on day
d those of the new partition that have no window, and of older partitions those whose window closed or that came late.
A label that is corrected after it counted stays learned as it was (our choice: a log does not unlearn).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from fullrank.data.partitions import BlockRef, DataState, PreparedData


class NewlyKnown:
    """What of `data` became known since the state `since`, block by block.

    Reads times and labels of a block, nothing else: 8 bytes a row, and 12 more a row and task. A scan of a year of
    logs is still a scan: where labels are surely settled, name the `partitions` of the `Loader`.
    """

    def __init__(self, data: PreparedData, since: DataState, tasks: tuple[str, ...]):
        self._data, self._tasks = data, tasks
        self._past = data.at(since)
        self._index = {entry.name: index for index, entry in enumerate(self._past.manifest.partitions)}

    def before(self, block: BlockRef) -> np.ndarray | None:
        """Which labels of a block counted then (bool `[rows, tasks]`); None where its partition was not there."""
        name = self._data.partitions[block.partition].entry.name
        if name not in self._index:
            return None
        return self._past.known(replace(block, partition=self._index[name]), self._tasks)

    def count(self, block: BlockRef) -> int:
        """Rows of a block of which at least one label is newly known."""
        known_BK, before_BK = self._data.known(block, self._tasks), self.before(block)
        if before_BK is not None:
            known_BK &= ~before_BK
        return int(known_BK.any(axis=1).sum())
