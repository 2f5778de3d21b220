"""Normalised rows in a file, cut into chunks that fit in memory, read back as often as needed.

A chunk has at most `CHUNK_ROWS` rows and about `CHUNK_BYTES`: small batches of a source are joined, large ones cut. It
is memory-mapped when read, so the pages belong to the file.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from fullrank.data.normalise_cells import Origin, row_error
from fullrank.data.normalised import Normalised
from fullrank.data.source import CHUNK_ROWS, LogChunk

CHUNK_BYTES = 64 << 20


class Spill:
    """Chunks of rows in one Arrow IPC file. Write with `add`, then `close`, then read."""

    def __init__(self, path: Path):
        self.path = path
        self.starts = [0]  # row numbers where chunks start, and the number of rows
        self._pending: list[Normalised] = []
        self._sink: pa.OSFile | None = None
        self._writer: pa.ipc.RecordBatchFileWriter | None = None
        self._reader: pa.ipc.RecordBatchFileReader | None = None

    @property
    def num_rows(self) -> int:
        return self.starts[-1]

    @property
    def num_chunks(self) -> int:
        return len(self.starts) - 1

    def add(self, rows: Normalised) -> None:
        if rows.num_rows == 0:
            return
        parts = max(-(-rows.num_bytes // CHUNK_BYTES), -(-rows.num_rows // CHUNK_ROWS))
        if parts > 1 and rows.num_rows > 1:
            for index in np.array_split(np.arange(rows.num_rows), min(parts, rows.num_rows)):
                self.add(rows.take(index))
            return
        held = sum(part.num_rows for part in self._pending)
        if held + rows.num_rows > CHUNK_ROWS or sum(p.num_bytes for p in self._pending) > CHUNK_BYTES // 2:
            self._flush()
        self._pending.append(rows)

    def _flush(self) -> None:
        if not self._pending:
            return
        rows = Normalised.concat(self._pending) if len(self._pending) > 1 else self._pending[0]
        self._pending = []
        batch = rows.to_arrow()
        writer = self._writer
        if writer is None:
            self._sink = pa.OSFile(str(self.path), "wb")
            writer = self._writer = pa.ipc.new_file(self._sink, batch.schema)
        writer.write_batch(batch)
        self.starts.append(self.starts[-1] + rows.num_rows)

    def close(self) -> None:
        self._flush()
        if self._writer is not None and self._sink is not None:
            self._writer.close()
            self._sink.close()
            self._reader = pa.ipc.open_file(pa.memory_map(str(self.path)))

    def abandon(self) -> None:
        """Let go of the file without ending it."""
        if self._sink is not None and not self._sink.closed:
            self._sink.close()

    def chunk(self, number: int) -> Normalised:
        assert self._reader is not None
        return Normalised.from_arrow(self._reader.get_batch(number))

    def chunks(self) -> Iterator[tuple[slice, Normalised]]:
        """Every chunk with the numbers of its rows."""
        for number in range(self.num_chunks):
            yield slice(self.starts[number], self.starts[number + 1]), self.chunk(number)


class Gathered:
    """A spill as chunks of whole requests: rows of a request whose first row is in another chunk are moved there.

    A log that keeps the rows of a request together (or has no requests) has few such rows; a log shuffled row by row is
    moved almost whole, through one file a chunk in `folder`.
    """

    def __init__(self, spill: Spill, first: np.ndarray, folder: Path):
        self.spill = spill
        self.first = first
        self.folder = folder
        starts = np.array(spill.starts)
        for number in range(spill.num_chunks):
            own = slice(starts[number], starts[number + 1])
            home = np.searchsorted(starts, first[own], side="right") - 1
            if (home == number).all():
                continue
            rows = spill.chunk(number)
            for target in np.unique(home[home != number]):
                moved = np.flatnonzero(home == target)
                self._move(int(target), rows.take(moved), moved + own.start)

    def _move(self, target: int, rows: Normalised, numbers: np.ndarray) -> None:
        self.folder.mkdir(exist_ok=True)
        batch = rows.to_arrow()
        with (
            open(self.folder / f"{target}.rows", "ab") as file,
            pa.ipc.new_stream(file, batch.schema) as writer,
        ):
            writer.write_batch(batch)
        with open(self.folder / f"{target}.numbers", "ab") as file:
            file.write(numbers.astype("<i8").data)

    def chunks(self) -> Iterator[tuple[np.ndarray, Normalised]]:
        """Row numbers and rows, ordered by (first row of the request, row): whole requests, one after another."""
        starts = self.spill.starts
        for number in range(self.spill.num_chunks):
            rows = self.spill.chunk(number)
            numbers = np.arange(starts[number], starts[number + 1])
            first = np.asarray(self.first[numbers])
            stays = (first >= starts[number]) & (first < starts[number + 1])
            if not stays.all():
                rows, numbers = rows.take(stays), numbers[stays]
            if (self.folder / f"{number}.rows").exists():
                rows = Normalised.concat([rows, *self._moved(number)])
                numbers = np.concatenate(
                    [numbers, np.fromfile(self.folder / f"{number}.numbers", dtype="<i8")]
                )
            order = np.lexsort((numbers, self.first[numbers]))
            if (np.diff(order) != 1).any():
                rows, numbers = rows.take(order), numbers[order]
            if len(numbers):
                yield numbers, rows

    def _moved(self, number: int) -> Iterator[Normalised]:
        with pa.memory_map(str(self.folder / f"{number}.rows")) as file:
            while file.tell() < file.size():
                with pa.ipc.open_stream(file) as stream:
                    for batch in stream:
                        yield Normalised.from_arrow(batch)


class TimeOrder:
    """The promise of rows in time order, kept across batches."""

    def __init__(self, column: str) -> None:
        self.column = column
        self._last: int | None = None
        self._last_value: object = None

    def check(self, rows: Normalised, chunk: LogChunk) -> None:
        """`rows` (at least one, in order among themselves) are those of `chunk`, after all that were checked before."""
        values = chunk.records.column(self.column)
        if self._last is not None and rows.first_time < self._last:
            before = f"a time not before the row before ({self._last_value!r}), as time_sorted promises"
            origin, value = Origin(chunk.file, chunk.first_row), values[0].as_py()
            todo = "Sort the log by time, or set time_sorted = false."
            raise row_error(origin, self.column, 0, value, before, todo)
        self._last, self._last_value = rows.last_time, values[-1].as_py()
