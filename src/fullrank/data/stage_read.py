"""First stage of preparing: check and normalise every record, and lay aside what the next stages need of it."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fullrank.data import flat
from fullrank.data.ahead import ahead
from fullrank.data.by_user import EventKeys, RowKeys
from fullrank.data.columns import NEVER, DataError
from fullrank.data.event_writer import of_the_log
from fullrank.data.normalise import Normalised, Origin, normalise, normalise_events
from fullrank.data.normalise_time import ticks
from fullrank.data.source import LogChunk, LogSource
from fullrank.data.spill import Spill, TimeOrder
from fullrank.data.splits import SPLITS, ByHash, GivenFiles, Split
from fullrank.data.stages import Done
from fullrank.data.workers import threads, workers
from fullrank.schema import History, Schema


@dataclass(frozen=True)
class Read:
    """The whole input in files: rows and file events as normalised, and their keys as flat arrays. `known_max`: the
    latest moment the log knows of (a row, or a label that came late). `given`, `hashed`: what a split goes by."""

    rows: Spill
    events: dict[str, Spill]
    keys: RowKeys
    given: np.ndarray | None
    hashed: np.ndarray | None
    time_min: int | None
    time_max: int | None
    known_max: int | None


def read(source: LogSource, work: Path, split: Split, hash_key: bytes | None, done: Done) -> Read:
    """Stream the source once. Raises `DataError` at the first record that is not what the schema says."""
    schema = source.schema
    rows = _Rows(schema, work, split, hash_key)
    try:
        with workers() as pool, closing(ahead(pool, rows.normalised, source.chunks(), threads())) as chunks:
            for chunk, normalised in chunks:
                rows.add(chunk, normalised)
                done(chunk.records.num_rows)
        rows.close()
        if rows.spill.num_rows == 0:
            raise DataError(f"Expected rows in {source.name}, got none: there is nothing to prepare.")
        events, event_keys = {}, dict(rows.event_keys())
        for history in schema.histories:
            if history.layout == "by_user" and history.source == "file":
                events[history.name], event_keys[history.name] = _read_events(source, history, work, hash_key)
    finally:
        rows.spill.abandon()
    keys = RowKeys(rows.flat("user"), rows.flat("request"), rows.flat("time"), event_keys)
    given = rows.flat("given") if isinstance(split, GivenFiles) else None
    hashed = rows.flat("hashed") if isinstance(split, ByHash) else None
    return Read(rows.spill, events, keys, given, hashed, rows.time_min, rows.time_max, rows.known_max)


class _Rows:
    """The log's rows on their way to the files."""

    def __init__(self, schema: Schema, work: Path, split: Split, hash_key: bytes | None):
        self.schema, self.hash_key = schema, hash_key
        self.spill = Spill(work / "rows.spill")
        self.time_min: int | None = None
        self.time_max: int | None = None
        self.known_max: int | None = None
        self._work = work
        time = schema.roles.time or schema.roles.order
        self._order = TimeOrder(time) if schema.time_sorted and time else None
        self._log_histories = [history for history in schema.histories if of_the_log(history)]
        self._column = {"user": "@user", "request": "@request", "time": "@time"}
        dtypes: dict[str, type] = {"user": np.uint64, "request": np.uint64, "time": np.int64}
        if isinstance(split, GivenFiles):
            dtypes["given"] = np.uint8
        if isinstance(split, ByHash):
            dtypes["hashed"] = np.uint64
            self._column["hashed"] = split.column(schema)
        for history in self._log_histories:
            dtypes[f"available.{history.name}"] = dtypes[f"time.{history.name}"] = np.int64
        self._flats = {name: flat.FlatWriter(work / f"{name}.npy", dtype) for name, dtype in dtypes.items()}

    def normalised(self, chunk: LogChunk) -> tuple[LogChunk, Normalised]:
        """The chunk checked and typed; any number of threads may ask at once."""
        origin = Origin(chunk.file, chunk.first_row)
        return chunk, normalise(self.schema, chunk.records, origin, hash_key=self.hash_key)

    def add(self, chunk: LogChunk, rows: Normalised) -> None:
        n = rows.num_rows
        if n == 0:
            return
        if self._order:
            self._order.check(rows, chunk)
        for name, writer in self._flats.items():
            if name == "given":
                writer.append(np.full(n, _given(chunk), dtype=np.uint8))
            elif name.startswith("available."):
                prefix = f"@history.{name.removeprefix('available.')}"
                is_event = rows.array(f"{prefix}.where")
                writer.append(np.where(is_event, rows.array(f"{prefix}.available"), NEVER))
            elif name.startswith("time."):
                writer.append(rows.array(f"@history.{name.removeprefix('time.')}.time"))
            else:
                column = self._column[name]
                writer.append(
                    rows.array(column) if column in rows.columns else np.zeros(n, dtype=writer.dtype)
                )
        self._times(rows)
        self.spill.add(rows)

    def _times(self, rows: Normalised) -> None:
        if "@time" in rows.columns:
            time = rows.array("@time")
            low, high = int(time.min()), int(time.max())
            self.time_min = low if self.time_min is None else min(low, self.time_min)
            self.time_max = high if self.time_max is None else max(high, self.time_max)
            self._knows(high)
        for task in self.schema.tasks:
            known_at = rows.array(f"@known_at.{task.name}")
            happened = (rows.array(f"@label.{task.name}") > 0) & (known_at != NEVER)
            if "@time" in rows.columns:  # a positive without a date waits for its window: that is no moment of the log
                happened &= known_at != rows.array("@time") + ticks(task.window, self.schema.time_unit)
            if happened.any():  # a log that holds a conversion was read after it
                self._knows(int(known_at[happened].max()))

    def _knows(self, moment: int) -> None:
        self.known_max = moment if self.known_max is None else max(self.known_max, moment)

    def close(self) -> None:
        self.spill.close()
        for writer in self._flats.values():
            writer.close()

    def flat(self, name: str) -> np.ndarray:
        return flat.open_flat(self._work / f"{name}.npy")

    def event_keys(self) -> dict[str, EventKeys]:
        names = [history.name for history in self._log_histories]
        return {name: EventKeys(self.flat(f"available.{name}"), self.flat(f"time.{name}")) for name in names}


def _given(chunk: LogChunk) -> int:
    if chunk.split not in SPLITS:
        raise DataError(
            f"Expected {chunk.file} to be given as one of {SPLITS}, got {chunk.split!r}. Name the split of every file, "
            "or choose another way to split."
        )
    return SPLITS.index(chunk.split)


def _read_events(
    source: LogSource, history: History, work: Path, hash_key: bytes | None
) -> tuple[Spill, EventKeys]:
    if history.name not in source.events:
        raise DataError(
            f"Expected a file of events for history {history.name!r} (source = 'file'), got events for "
            f"{sorted(source.events)}. Give the file, or take the history out of the schema."
        )
    spill = Spill(work / f"events-{history.name}.spill")
    columns = {"user": "@user", "available": "available", "time": "time"}
    dtypes = {"user": np.uint64, "available": np.int64, "time": np.int64}
    paths = {name: work / f"events-{history.name}.{name}.npy" for name in columns}
    writers = {name: flat.FlatWriter(path, dtypes[name]) for name, path in paths.items()}
    try:
        for chunk in source.events[history.name].chunks():
            origin = Origin(chunk.file, chunk.first_row)
            events = normalise_events(source.schema, history, chunk.records, origin, hash_key=hash_key)
            for name, writer in writers.items():
                writer.append(events.array(columns[name]))
            spill.add(events)
        spill.close()
    finally:
        spill.abandon()
        for writer in writers.values():
            writer.close()
    arrays = {name: flat.open_flat(path) for name, path in paths.items()}
    return spill, EventKeys(arrays["available"], arrays["time"], arrays["user"])
