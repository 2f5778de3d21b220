"""The files of tables that live on disk: chunks of rows, float32, one row after another, and nothing else.

A row is its weights, then what its optimizer keeps of it. Files never change: a newer version of one is written under
another name (a checkpoint's folder), and a file of which nothing changed is linked there.
"""

from __future__ import annotations

import ctypes
import hashlib
import mmap
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import numpy as np
import torch

from fullrank.features.table_init import write_initial_rows
from fullrank.features.table_plan import Arena, TableSpec


@dataclass(frozen=True)
class ChunkFile:
    """A file as it was written."""

    path: Path
    size: int
    sha256: str

    def put(self, path: Path) -> ChunkFile:
        """The same file under another name; a copy where the file system has no links."""
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(self.path, path)
        except OSError:
            shutil.copyfile(self.path, path)
            with path.open("r+b") as stream:
                os.fsync(stream.fileno())
        return ChunkFile(path, self.size, self.sha256)


@dataclass(frozen=True)
class Chunk:
    """Rows `[low, high)` of a table, at `[base, base + high - low)` of its arena, in file `name`."""

    spec: TableSpec
    name: str
    low: int
    high: int
    base: int


def chunks_of(arena: Arena) -> list[Chunk]:
    """The chunks of an arena in the order of its rows; their names tell tables apart, and sort as they stand."""
    assert arena.disk is not None
    step = arena.disk.chunk_rows
    return [
        Chunk(spec, f"rows/{quote(spec.name)}/{low // step:06d}.f32", low, min(low + step, spec.num_rows), base + low)
        for spec, base in zip(arena.tables, arena.bases, strict=True)
        for low in range(0, spec.num_rows, step)
    ]


def opened(chunk: Chunk, width: int, seed: int, file: ChunkFile | None) -> np.ndarray:
    """The rows of a chunk, `[rows, width]`: read from its file when they are looked at, by pages, and none beside them.
    Rows that the file has not (None: it has none) are in memory, as their table begins."""
    if file is None:
        return first_rows(chunk, width, seed, chunk.low)
    if file.size < size_of(chunk, width):
        there = np.fromfile(file.path, dtype=np.float32).reshape(-1, width)
        return np.concatenate([there, first_rows(chunk, width, seed, chunk.low + len(there))])
    # torch's mapping, unlike Python's, keeps no file descriptor: there may be thousands of files.
    rows = torch.from_file(str(file.path), shared=False, size=file.size // 4).numpy().reshape(-1, width)
    rows.setflags(write=False)
    if hasattr(mmap, "MADV_RANDOM"):
        advise = ctypes.CDLL(None).madvise
        advise(ctypes.c_void_p(rows.ctypes.data), ctypes.c_size_t(file.size), ctypes.c_int(mmap.MADV_RANDOM))
    return rows


def first_rows(chunk: Chunk, width: int, seed: int, low: int) -> np.ndarray:
    """The rows of a chunk from `low` on as their table begins: weights drawn, the optimizer's numbers 0."""
    rows = np.zeros((chunk.high - low, width), dtype=np.float32)
    weight_ND = torch.empty(len(rows), chunk.spec.width)
    write_initial_rows(weight_ND, chunk.spec, seed, low)
    rows[:, : chunk.spec.width] = weight_ND.numpy()
    return rows


def write_rows(path: Path, rows: np.ndarray) -> ChunkFile:
    """A file of these rows, on the disk when this returns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = np.ascontiguousarray(rows).data.cast("B")
    with path.open("wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())
    return ChunkFile(path, len(data), hashlib.sha256(data).hexdigest())


def found_in(
    folder: Path, entries: Mapping[str, tuple[int, str]], chunk: Chunk, width: int, *, grows: bool
) -> ChunkFile | None:
    """The file of a chunk below a checkpoint's folder; `entries`: name → size and SHA-256. Where the table `grows`, it
    may have fewer rows than the chunk, or not be there (None)."""
    size = size_of(chunk, width)
    found = entries.get(chunk.name)
    if found is None and grows:
        return None
    if found is None or not (found[0] == size or (grows and found[0] < size and found[0] % (4 * width) == 0)):
        got = "nothing there" if found is None else f"{found[0]} bytes"
        raise ValueError(
            f"Expected {folder / chunk.name} with rows {chunk.low}..{chunk.high - 1} of table {chunk.spec.name!r} "
            f"({size} bytes), got {got}: it was written for other tables, or for tables in memory."
        )
    return ChunkFile(folder / chunk.name, *found)


def size_of(chunk: Chunk, width: int) -> int:
    """The bytes of its file."""
    return 4 * width * (chunk.high - chunk.low)
