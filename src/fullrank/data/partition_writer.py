"""Encoded requests → blocks of about `BLOCK_ROWS` rows in the Arrow files of a split."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from fullrank.data.columns import Columns, EncodedBlock, array, span_positions, to_arrow
from fullrank.data.manifest import SplitSize
from fullrank.data.normalised import concat_column

BLOCK_ROWS = 1 << 16


class BlockWriter:
    """`requests.arrow` and `rows.arrow` of one split: record batch i of both is block i, whole requests in the order
    they came, as many as fit in `BLOCK_ROWS` rows (a longer request is a block of its own)."""

    def __init__(self, folder: Path, block_rows: int = BLOCK_ROWS):
        self.folder = folder
        self.block_rows = block_rows
        self._pending: list[EncodedBlock] = []
        self._rows = self._requests = self._blocks = 0
        self._files: list[tuple[pa.OSFile, pa.ipc.RecordBatchFileWriter]] = []
        self._empty: EncodedBlock | None = None

    def add(self, block: EncodedBlock) -> None:
        """More whole requests (also none: the files then still have their columns)."""
        if self._empty is None:
            self._empty = take_requests(block, np.empty(0, dtype=np.int64))
        if block.num_rows:
            self._pending.append(block)
        while sum(part.num_rows for part in self._pending) >= self.block_rows:
            self._write_one(last=False)

    def _write_one(self, last: bool) -> None:
        block = join(self._pending)
        ends = np.cumsum(rows_of_requests(block))
        count = int(np.searchsorted(ends, self.block_rows, side="right"))
        count = block.num_requests if last and ends[-1] <= self.block_rows else max(count, 1)
        self.write(take_requests(block, np.arange(count)))
        self._pending = [take_requests(block, np.arange(count, block.num_requests))]
        if not self._pending[0].num_rows:
            self._pending = []

    def write(self, block: EncodedBlock) -> None:
        """One block as it is (none if it has no rows)."""
        batches = to_arrow(block.requests), to_arrow(block.rows)
        if not self._files:
            self.folder.mkdir(parents=True, exist_ok=True)
            for name, batch in zip(("requests", "rows"), batches, strict=True):
                sink = pa.OSFile(str(self.folder / f"{name}.arrow"), "wb")
                self._files.append((sink, pa.ipc.new_file(sink, batch.schema)))
        if not block.num_rows:
            return
        for (_, writer), batch in zip(self._files, batches, strict=True):
            writer.write_batch(batch)
        self._rows += block.num_rows
        self._requests += block.num_requests
        self._blocks += 1

    def close(self) -> SplitSize:
        while self._pending:
            self._write_one(last=True)
        if not self._files and self._empty is not None:
            self.write(self._empty)
        for sink, writer in self._files:
            writer.close()
            sink.close()
        return SplitSize(rows=self._rows, requests=self._requests, blocks=self._blocks)


def rows_of_requests(block: EncodedBlock) -> np.ndarray:
    return np.bincount(array(block.rows, "@request"), minlength=block.num_requests)


def take_requests(block: EncodedBlock, index: np.ndarray) -> EncodedBlock:
    """The requests `index` and their rows, in that order."""
    counts = rows_of_requests(block)
    ends = np.cumsum(counts)
    rows_index, offsets = span_positions((ends - counts)[index], ends[index])
    requests = take_rows(block.requests, index)
    rows = take_rows(block.rows, rows_index)
    rows["@request"] = np.repeat(np.arange(len(index), dtype=np.int32), np.diff(offsets))
    return EncodedBlock(requests, rows, len(index), len(rows_index))


def take_rows(columns: Columns, index: np.ndarray) -> Columns:
    return {
        name: column[index] if isinstance(column, np.ndarray) else column.take(index)
        for name, column in columns.items()
    }


def join(blocks: list[EncodedBlock]) -> EncodedBlock:
    """Several blocks as one."""
    if len(blocks) == 1:
        return blocks[0]
    requests = {name: concat_column([b.requests[name] for b in blocks]) for name in blocks[0].requests}
    rows = {name: concat_column([b.rows[name] for b in blocks]) for name in blocks[0].rows}
    shift = np.cumsum([0] + [block.num_requests for block in blocks[:-1]])
    numbers = [array(b.rows, "@request") + s for b, s in zip(blocks, shift, strict=True)]
    rows["@request"] = np.concatenate(numbers).astype(np.int32)
    return EncodedBlock(requests, rows, sum(b.num_requests for b in blocks), sum(b.num_rows for b in blocks))
