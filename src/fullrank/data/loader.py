"""Prepared data → batches: every row of an epoch exactly once, in an order that (seed, epoch) alone decide.

Blocks (~64 k rows) are visited in a random order, `window_blocks` at a time; whole requests are shuffled inside such a
window. A row can therefore meet any row of its window, and windows are drawn from the whole split: memory stays at
`window_blocks` blocks however long the log. A position is the number of rows consumed, so an epoch can be taken up at
any batch without visiting what came before.

When not to use it: `shuffle=False` for anything but evaluation and progressive training in time order, because a log
is ordered by day and hour and gradients would follow them.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from fullrank.data.assemble import Packed, pack, take
from fullrank.data.columns import Ragged, span_positions
from fullrank.data.inputs import Inputs
from fullrank.data.newly_known import NewlyKnown

if TYPE_CHECKING:
    from fullrank.data.batch import Batch
    from fullrank.data.partitions import BlockRef, DataState, PreparedData


class Loader:
    """Batches of `batch_size` rows (the last of an epoch may be smaller) of one split of prepared data.

    `whole_requests`: a batch ends where a request does, so that rows of a request can be compared; it has at most
    `batch_size` rows, unless one request has more and is a batch by itself. Batches are smaller then, by half a request
    on average and at the end of every window; their number is known only when they are made.

    `partitions`: indices of the partitions to read (all if None). `since`: visit only the rows of which some label
    became known since that state, and let only those labels count (see `newly_known.py`); then `num_rows` is the number
    of these rows, and blocks without any are not read. Columns are packed as `inputs` names them; ids a
    pinned version of the data does not have become its unknown rows (see `PreparedData.open(pin=…)`).
    """

    def __init__(
        self,
        data: PreparedData,
        inputs: Inputs,
        split: str,
        *,
        batch_size: int,
        seed: int = 0,
        shuffle: bool = False,
        window_blocks: int = 8,
        whole_requests: bool = False,
        partitions: tuple[int, ...] | None = None,
        since: DataState | None = None,
    ):
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}.")
        self.data = data
        self.inputs = inputs
        self.split = split
        self.batch_size = batch_size
        self.seed = seed
        self.shuffle = shuffle
        self.window_blocks = window_blocks
        self.whole_requests = whole_requests
        self._newly = None if since is None else NewlyKnown(data, since, inputs.task_names)
        count = self._newly.count if self._newly else (lambda block: block.num_rows)
        self._rows_of = {block: count(block) for block in data.blocks(split, partitions)}
        self._blocks = [block for block, rows in self._rows_of.items() if rows]
        self._sources = tuple(data.sources(history.name) for history in inputs.histories)
        self.num_rows = sum(self._rows_of.values())

    def __len__(self) -> int:
        if self.whole_requests:
            raise TypeError("The number of batches of whole requests is not known before they are made.")
        return -(-self.num_rows // self.batch_size)

    def epoch(self, epoch: int, start_row: int = 0) -> Iterator[Batch]:
        """The batches of one epoch, from row `start_row` of its order on: a multiple of `batch_size`, or with
        `whole_requests` the rows of some number of its first batches."""
        if self.whole_requests:
            yield from self._epoch_of_requests(epoch, start_row)
            return
        if start_row % self.batch_size:
            raise ValueError(f"start_row must be a multiple of batch_size {self.batch_size}, got {start_row}.")
        before, rest = 0, None
        for number, window in enumerate(self._windows(epoch)):
            rows = sum(self._rows_of[block] for block in window)
            if before + rows <= start_row:
                before += rows
                continue
            packed = _join([self._pack(block) for block in window])
            order = self._order(packed, epoch, number)[max(start_row - before, 0) :]
            before += rows
            if rest is not None:  # rows left over from the window before come first
                packed, order = _join([rest, packed]), np.concatenate(
                    [np.arange(len(rest.request_of_row)), order + len(rest.request_of_row)]
                )
            whole = len(order) if before == self.num_rows else len(order) // self.batch_size * self.batch_size
            for start in range(0, whole, self.batch_size):
                yield self._take(packed, order[start : min(start + self.batch_size, whole)])
            rest = _rows(packed, order[whole:]) if whole < len(order) else None

    def _epoch_of_requests(self, epoch: int, start_row: int) -> Iterator[Batch]:
        """A window's batches depend on that window alone: no rest is carried over, so a position inside it is found
        again by cutting it again."""
        before = 0
        for number, window in enumerate(self._windows(epoch)):
            rows = sum(self._rows_of[block] for block in window)
            if before + rows > start_row:
                packed = _join([self._pack(block) for block in window])
                first, last = self._spans(packed, epoch, number)
                order = span_positions(first, last)[0]
                cuts = _cuts(last - first, self.batch_size)
                begin = int(np.searchsorted(cuts, max(start_row - before, 0)))
                if before + cuts[begin] != max(start_row, before):
                    near = before + cuts[begin - 1 : begin + 1]
                    raise ValueError(f"start_row must be where a batch ends, near it {near.tolist()}, got {start_row}.")
                for start, end in itertools.pairwise(cuts[begin:].tolist()):
                    yield self._take(packed, order[start:end])
            before += rows

    def _windows(self, epoch: int) -> list[list[BlockRef]]:
        blocks = self._blocks
        if self.shuffle:
            blocks = [blocks[place] for place in self._random(epoch, 0).permutation(len(blocks))]
        size = self.window_blocks if self.shuffle else 1
        return [blocks[start : start + size] for start in range(0, len(blocks), size)]

    def _random(self, epoch: int, stream: int) -> np.random.Generator:
        return np.random.Generator(np.random.Philox(key=self.seed, counter=[0, 0, epoch, stream]))

    def _order(self, packed: Packed, epoch: int, window: int) -> np.ndarray:
        """Rows of a window in the order they are visited: whole requests, shuffled."""
        if not self.shuffle:
            return np.arange(len(packed.request_of_row))
        return span_positions(*self._spans(packed, epoch, window))[0]

    def _spans(self, packed: Packed, epoch: int, window: int) -> tuple[np.ndarray, np.ndarray]:
        """First row and row after the last of a window's requests, in the order they are visited."""
        requests = np.arange(len(packed.time_R))
        if self.shuffle:
            requests = self._random(epoch, window + 1).permutation(len(packed.time_R))
        end = np.bincount(packed.request_of_row, minlength=len(packed.time_R)).cumsum()  # rows stand by request
        return np.concatenate([[0], end[:-1]])[requests], end[requests]

    def _pack(self, block: BlockRef) -> Packed:
        encoded = self.data.read(block, self.inputs)
        data = self.data
        packed = pack(
            encoded,
            self.inputs,
            views=data.views,
            as_of=data.as_of,
            windows=data.windows,
            store=block.partition,
            since_BK=self._newly.before(block) if self._newly else None,
        )
        return _rows(packed, np.flatnonzero(packed.known_BK.any(axis=1))) if self._newly else packed

    def _take(self, packed: Packed, index: np.ndarray) -> Batch:
        return take(
            packed, index, self.inputs, sources=self._sources, items=self.data.items, views=self.data.views
        )


def _cuts(sizes: np.ndarray, batch_size: int) -> np.ndarray:
    """Where batches of whole requests begin and end, in rows: each takes requests as long as they fit, but at least
    one."""
    ends = np.cumsum(sizes[sizes > 0])
    cuts = [0]
    while cuts[-1] < ends[-1]:
        fits = np.searchsorted(ends, cuts[-1] + batch_size, side="right") - 1
        larger = np.searchsorted(ends, cuts[-1], side="right")  # the next request
        cuts.append(int(ends[max(fits, larger)]))
    return np.array(cuts)


def _rows(packed: Packed, index: np.ndarray) -> Packed:
    """The rows `index` and only the requests they need; request numbers stay ascending by first row."""
    requests, request_of_row = np.unique(packed.request_of_row[index], return_inverse=True)
    order = np.argsort(request_of_row, kind="stable")  # `index` holds whole requests or one cut one: already grouped
    return Packed(
        request=packed.request.take(requests),
        candidate=packed.candidate.take(index[order]),
        request_of_row=request_of_row[order],
        user_R=packed.user_R[requests],
        time_R=packed.time_R[requests],
        spans=tuple(replace(s, end_R=s.end_R[requests], length_R=s.length_R[requests]) for s in packed.spans),
        store_R=packed.store_R[requests],
        values_BK=packed.values_BK[index[order]],
        known_BK=packed.known_BK[index[order]],
        extra=tuple(column[index[order]] for column in packed.extra),
    )


def _join(parts: list[Packed]) -> Packed:
    """Several packed blocks as one: rows and requests of each after those of the one before."""
    if len(parts) == 1:
        return parts[0]
    joined = {f.name: _concatenate([getattr(part, f.name) for part in parts]) for f in fields(Packed)}
    shift = np.cumsum([0] + [len(part.time_R) for part in parts[:-1]])
    joined["request_of_row"] = np.concatenate([p.request_of_row + s for p, s in zip(parts, shift, strict=True)])
    return Packed(**joined)


def _concatenate(values: list[Any]) -> Any:
    """Arrays end to end; tuples and dataclasses of arrays likewise, member by member."""
    first = values[0]
    if first is None:
        return None
    if isinstance(first, np.ndarray):
        return np.concatenate(values)
    if isinstance(first, tuple):
        return tuple(_concatenate(list(members)) for members in zip(*values, strict=True))
    if isinstance(first, Ragged):
        shift = np.cumsum([0] + [value.offsets[-1] for value in values[:-1]])
        offsets = [value.offsets[1:] + s for value, s in zip(values, shift, strict=True)]
        return Ragged(np.concatenate([v.values for v in values]), np.concatenate([np.zeros(1, np.int64), *offsets]))
    return type(first)(**{f.name: _concatenate([getattr(v, f.name) for v in values]) for f in fields(first)})
