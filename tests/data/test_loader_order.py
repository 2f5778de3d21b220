"""The loader's order, on blocks made in memory: every row once, whole requests together, any batch can be taken up."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fullrank.data.columns import EncodedBlock
from fullrank.data.inputs import Field, Inputs, TaskInput
from fullrank.data.loader import Loader

INPUTS = Inputs(
    request=(Field(name="user", kind="categorical", key_space="user"),),
    candidate=(Field(name="item", kind="categorical", key_space="item"),),
    histories=(),
    tasks=(TaskInput(name="click"),),
)


@dataclass(frozen=True)
class _Block:
    partition: int
    number: int
    num_rows: int
    num_requests: int


@dataclass
class _Data:
    """Blocks whose row ids count 0, 1, 2 … over the whole split, in requests of the given sizes."""

    requests_of_block: list[list[int]]
    as_of: int = 0
    items: None = None
    views: dict = field(default_factory=dict)
    windows: dict = field(default_factory=dict)

    def blocks(self, split, partitions):
        return [_Block(0, i, sum(sizes), len(sizes)) for i, sizes in enumerate(self.requests_of_block)]

    def sources(self, name):
        return ()

    def read(self, block, inputs):
        sizes = self.requests_of_block[block.number]
        first_row = sum(sum(s) for s in self.requests_of_block[: block.number])
        first_request = sum(len(s) for s in self.requests_of_block[: block.number])
        rows = np.arange(first_row, first_row + sum(sizes), dtype=np.int32)
        users = np.arange(first_request, first_request + len(sizes), dtype=np.int32)
        request = np.repeat(np.arange(len(sizes), dtype=np.int32), sizes)
        labels = {"@label.click": (rows % 2).astype(np.float32), "@known_at.click": np.zeros(len(rows), np.int64)}
        columns = {"item": rows, "@request": request, **labels}
        return EncodedBlock({"user": users}, columns, len(sizes), len(rows))


def _stream(loader, epoch=0, start_row=0):
    """(row, its request) pairs in the order of the batches, and the batch sizes."""
    rows, sizes = [], []
    for batch in loader.epoch(epoch, start_row):
        row = batch.candidates.features.ids_nF[:, 0]
        user = batch.requests.features.ids_nF[:, 0][batch.candidates.request_of_row_B]
        assert batch.labels.values_BK[:, 0].tolist() == [r % 2 for r in row.tolist()]
        rows += list(zip(row.tolist(), user.tolist(), strict=True))
        sizes.append(len(row))
    return rows, sizes


BLOCKS = st.lists(st.lists(st.integers(1, 4), min_size=1, max_size=6), min_size=1, max_size=7)


@settings(max_examples=60, deadline=None)
@given(blocks=BLOCKS, batch=st.integers(1, 9), window=st.integers(1, 3), shuffle=st.booleans(), at=st.integers(0, 50))
def test_epoch_is_exact_and_can_be_taken_up_anywhere(blocks, batch, window, shuffle, at):
    data = _Data(blocks)
    loader = Loader(data, INPUTS, "train", batch_size=batch, seed=3, shuffle=shuffle, window_blocks=window)
    stream, sizes = _stream(loader, epoch=1)
    total = sum(sum(sizes) for sizes in blocks)
    request_of = np.repeat(np.arange(sum(map(len, blocks))), [size for sizes in blocks for size in sizes])
    assert sorted(row for row, _ in stream) == list(range(total)) and loader.num_rows == total
    assert all(request_of[row] == request for row, request in stream)
    assert len(loader) == len(sizes) and all(size == batch for size in sizes[:-1])
    start = min(at, len(sizes) - 1) * batch
    assert _stream(loader, epoch=1, start_row=start)[0] == stream[start:]
    if not shuffle:
        assert [row for row, _ in stream] == list(range(total))


@settings(max_examples=80, deadline=None)
@given(blocks=BLOCKS, batch=st.integers(1, 9), window=st.integers(1, 3), shuffle=st.booleans(), at=st.integers(0, 50))
def test_whole_requests_are_never_cut_and_every_batch_can_be_taken_up(blocks, batch, window, shuffle, at):
    data = _Data(blocks)
    make = lambda **more: Loader(data, INPUTS, "train", seed=3, shuffle=shuffle, window_blocks=window, **more)  # noqa: E731
    loader = make(batch_size=batch, whole_requests=True)
    stream, sizes = _stream(loader, epoch=1)
    assert stream == _stream(make(batch_size=1), epoch=1)[0]  # the order is that of single rows
    row_counts = [size for block in blocks for size in block]
    ends = np.cumsum([0, *sizes])
    requests = [[request for _, request in stream[a:b]] for a, b in itertools.pairwise(ends)]
    for before, own in itertools.pairwise(requests):
        assert not set(before) & set(own)
        first = row_counts[own[0]]
        crosses = _window_of(loader, own[0]) != _window_of(loader, before[0])
        assert len(before) + first > batch or crosses  # no batch ends before it has to
    assert all(size <= batch or len(set(own)) == 1 for size, own in zip(sizes, requests, strict=True))
    start = min(at, len(sizes) - 1)
    assert _stream(loader, epoch=1, start_row=ends[start]) == (stream[ends[start] :], sizes[start:])


def _window_of(loader, request):
    """The window of epoch 1 that holds a request."""
    last = np.cumsum([block.num_requests for block in loader._blocks])
    number = int(np.searchsorted(last, request, side="right"))
    return next(n for n, window in enumerate(loader._windows(1)) if number in [block.number for block in window])


def test_positions_inside_a_batch_of_whole_requests_are_refused():
    loader = Loader(_Data([[2, 3], [4]]), INPUTS, "train", batch_size=5, whole_requests=True)
    assert [size for size in _stream(loader)[1]] == [5, 4]
    for row, near in ((3, r"\[0, 5\], got 3"), (6, r"\[5, 9\], got 6")):
        with pytest.raises(ValueError, match=f"start_row must be where a batch ends, near it {near}"):
            list(loader.epoch(0, row))
    with pytest.raises(TypeError, match="not known before they are made"):
        len(loader)


def test_order_depends_on_seed_and_epoch_alone():
    data = _Data([[1] * 50 for _ in range(6)])
    make = lambda seed: Loader(data, INPUTS, "train", batch_size=7, seed=seed, shuffle=True, window_blocks=2)  # noqa: E731
    first = _stream(make(0), epoch=0)[0]
    assert first == _stream(make(0), epoch=0)[0]
    assert first != _stream(make(0), epoch=1)[0] and first != _stream(make(1), epoch=0)[0]


def test_rows_of_other_blocks_meet_in_a_batch():
    data = _Data([[1] * 64 for _ in range(8)])
    loader = Loader(data, INPUTS, "train", batch_size=64, shuffle=True, window_blocks=8)
    rows = [row for row, _ in _stream(loader)[0][:64]]
    assert len({row // 64 for row in rows}) >= 6


def test_a_request_is_read_once():
    loader = Loader(_Data([[3, 2]]), INPUTS, "train", batch_size=5)
    (batch,) = loader.epoch(0)
    assert batch.requests.num_requests == 2 and batch.num_rows == 5


def test_positions_between_batches_are_refused():
    with pytest.raises(ValueError, match="multiple of batch_size 5, got 3"):
        list(Loader(_Data([[3, 2]]), INPUTS, "train", batch_size=5).epoch(0, 3))
