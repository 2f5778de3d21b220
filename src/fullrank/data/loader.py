"""Prepared data → batches: every row of an epoch exactly once, in an order that (seed, epoch) alone decide.

Blocks (~64 k rows) are visited in a random order, `window_blocks` at a time; whole requests are shuffled inside such a
window. A row can therefore meet any row of its window, and windows are drawn from the whole split. A position is the
number of rows consumed, so an epoch can be taken up at any batch without visiting what came before.

A window is packed in the order of its visits (`pack.py`), the next one while it is read, and a few batches are made
before they are asked for, by threads that end with the iterator, also where it is closed or dropped early. Memory is
that of two windows, packed: for 39 categories some 200 MB, however long the log. What is made does not depend on when:
the bits are those of one thread.

How well it shuffles (`benchmarks/performance/loader.py` measures it). A row moves as far from its place in the log as
in a shuffle of all rows, a third of the log on average, because windows are drawn from everywhere. But a batch has rows
of `window_blocks` blocks alone: two of its rows are of one block, so near in the log, with chance 1 / window_blocks,
where a shuffle of all rows has 1 / blocks; and it takes a window's worth of batches until others are met.

When not to use it: `shuffle=False` for anything but evaluation and progressive training in time order, because a log
is ordered by day and hour and gradients would follow them.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fullrank.data.ahead import ahead
from fullrank.data.assemble import take
from fullrank.data.inputs import Inputs
from fullrank.data.newly_known import NewlyKnown
from fullrank.data.pack import Order, Unpacked, pack, visiting_order
from fullrank.data.packed import Packed, join

if TYPE_CHECKING:
    from fullrank.data.batch import Batch
    from fullrank.data.partitions import BlockRef, DataState, PreparedData

THREADS = 2  # that make batches, beside the one that packs windows
BATCHES_AHEAD = 4


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
        if not self.whole_requests and start_row % self.batch_size:
            raise ValueError(f"start_row must be a multiple of batch_size {self.batch_size}, got {start_row}.")
        _ = self.data.views, self.data.items  # what is read when first asked for is not asked for by two threads
        with (
            ThreadPoolExecutor(1, "loader-window") as packer,
            ThreadPoolExecutor(THREADS, "loader-batch") as taker,
            closing(ahead(packer, self._packed_window, self._windows_from(epoch, start_row), depth=1)) as windows,
        ):
            pieces = (self._whole if self.whole_requests else self._even)(windows, start_row)
            yield from ahead(taker, self._batch, pieces, depth=BATCHES_AHEAD)

    def _even(self, windows: Iterable[_Window], start_row: int) -> Iterator[list[_Piece]]:
        """What each batch is made of: the rest of one window comes together with the first rows of the next."""
        pieces: list[_Piece] = []
        missing = self.batch_size
        for window in windows:
            at, rows = max(start_row - window.before, 0), window.packed.num_rows
            while at < rows:
                end = min(at + missing, rows)
                pieces.append((window.packed, at, end))
                missing -= end - at
                at = end
                if not missing:
                    yield pieces
                    pieces, missing = [], self.batch_size
        if pieces:
            yield pieces

    def _whole(self, windows: Iterable[_Window], start_row: int) -> Iterator[list[_Piece]]:
        """The same of whole requests. A window's batches depend on that window alone: no rest is carried over, so a
        position inside it is found again by cutting it again."""
        for window in windows:
            cuts = _cuts(np.bincount(window.packed.request_of_row), self.batch_size)
            start = max(start_row - window.before, 0)
            begin = int(np.searchsorted(cuts, start))
            if cuts[begin] != start:
                near = window.before + cuts[begin - 1 : begin + 1]
                raise ValueError(f"start_row must be where a batch ends, near it {near.tolist()}, got {start_row}.")
            for first, last in itertools.pairwise(cuts[begin:].tolist()):
                yield [(window.packed, first, last)]

    def _windows(self, epoch: int) -> list[list[BlockRef]]:
        blocks = self._blocks
        if self.shuffle:
            blocks = [blocks[place] for place in self._random(epoch, 0).permutation(len(blocks))]
        size = self.window_blocks if self.shuffle else 1
        return [blocks[start : start + size] for start in range(0, len(blocks), size)]

    def _windows_from(self, epoch: int, start_row: int) -> Iterator[_WindowRef]:
        before = 0
        for number, blocks in enumerate(self._windows(epoch)):
            rows = sum(self._rows_of[block] for block in blocks)
            if before + rows > start_row:
                yield _WindowRef(epoch, number, before, blocks)
            before += rows

    def _random(self, epoch: int, stream: int) -> np.random.Generator:
        return np.random.Generator(np.random.Philox(key=self.seed, counter=[0, 0, epoch, stream]))

    def _packed_window(self, window: _WindowRef) -> _Window:
        random = self._random(window.epoch, window.number + 1) if self.shuffle else None
        return _Window(window.before, self._pack(window.blocks, random))

    def _pack(self, blocks: list[BlockRef], random: np.random.Generator | None = None) -> Packed:
        data, newly = self.data, self._newly

        def arrange(request_of_row: np.ndarray, num_requests: int, known_BK: np.ndarray) -> Order | None:
            kept = np.flatnonzero(known_BK.any(axis=1)) if newly else None
            return visiting_order(request_of_row, num_requests, kept=kept, random=random)

        unpacked = [
            Unpacked(data.read(block, self.inputs), block.partition, newly.before(block) if newly else None)
            for block in blocks
        ]
        return pack(
            unpacked, self.inputs, views=data.views, as_of=data.as_of, windows=data.windows, arrange=arrange
        )

    def _batch(self, pieces: list[_Piece]) -> Batch:
        parts = [packed.cut(first, last) for packed, first, last in pieces]
        # Rows that wait for the next window stand by their requests' numbers: they always have, and a run that is
        # resumed meets the order it began with.
        return self._take(join([*(_by_number(part) for part in parts[:-1]), parts[-1]]))

    def _take(self, packed: Packed) -> Batch:
        return take(packed, self.inputs, sources=self._sources, items=self.data.items, views=self.data.views)


@dataclass(frozen=True)
class _WindowRef:
    """Window `number` of an epoch: blocks that are packed together, and the rows that are visited before them."""

    epoch: int
    number: int
    before: int
    blocks: list[BlockRef]


@dataclass(frozen=True)
class _Window:
    before: int
    packed: Packed


_Piece = tuple[Packed, int, int]  # of a window: first row, row after the last


def _by_number(part: Packed) -> Packed:
    number_R = part.requests.column("number", 0, np.int32)
    return part.take(np.argsort(number_R[part.request_of_row], kind="stable"))


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
