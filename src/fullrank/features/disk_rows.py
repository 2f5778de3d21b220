"""An arena on disk: read-only files below, and in memory the rows that changed since they were written.

    read     a row that is held from memory, any other from its file's pages, which the system keeps as it has room
    learn    a touched row that is not held yet is copied to memory first, with its optimizer's numbers
    save     files with held rows are written anew, whole, under other names; the others are linked
    load     read those files from now on; nothing is held any more

So what a checkpoint has is never changed by what comes after it, and memory is spent on changed rows alone: S slots
(4 bytes a row of the arena that was ever held), and `held_rows` rows with their state.

S rows of the arena · C rows held · U touched rows · D width · W numbers stored a row.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from fullrank.features.disk_files import (
    Chunk,
    ChunkFile,
    chunks_of,
    first_rows,
    found_in,
    opened,
    size_of,
    write_rows,
)
from fullrank.features.table_plan import Arena
from fullrank.kernels.disk_rows import Chunks, Held, read_rows
from fullrank.kernels.pages import zeros

if TYPE_CHECKING:  # it imports who imports this
    from fullrank.features.table_updates.rule import UpdateRule

WriteFile = Callable[[Path], ChunkFile]


class DiskRows:
    """The rows of one arena (`Arena.disk`). They can be read after `begin` or `load`, and learn after `hold`."""

    def __init__(self, arena: Arena, seed: int) -> None:
        assert arena.disk is not None
        self.arena, self.disk, self.seed = arena, arena.disk, seed
        self.width = arena.width + state_numbers(arena)
        self.num_held = 0
        self._chunks = chunks_of(arena)
        self._files: dict[str, ChunkFile | None] = {}  # of grown tables some are shorter than their chunk, or None
        self._mapped: Chunks | None = None
        self._scratch: Path | None = None
        self._slot_S: Tensor | None = None
        self._row_C = torch.empty(0, dtype=torch.int64)
        self.held_CD = torch.empty(0, arena.width)
        self._state: dict[str, Tensor] = {}

    def begin(self, scratch: Path) -> None:
        """Write the files of tables that never learned below `scratch`; they go with the first `load`."""
        self._scratch = None
        self._read_from(
            {
                chunk.name: write_rows(scratch / chunk.name, first_rows(chunk, self.width, self.seed, chunk.low))
                for chunk in self._chunks
            }
        )
        self._scratch = scratch

    def load(self, folder: Path, entries: Mapping[str, tuple[int, str]], *, grows: bool = False) -> None:
        """Read the files below a checkpoint's folder; `entries`: name → size and SHA-256. What was held is forgotten
        (it is in the files, where `writers` made them). `grows`: tables may be longer than they were there; new rows
        are in memory until they are written."""
        width = self.width
        self._read_from({chunk.name: found_in(folder, entries, chunk, width, grows=grows) for chunk in self._chunks})

    def grown(self, arena: Arena) -> DiskRows:
        """The same rows and more, as `arena` says; nothing may be held that is in no checkpoint."""
        self._expect_nothing_held("grow")
        longer = DiskRows(arena, self.seed)
        if self._mapped is not None:
            longer._read_from({chunk.name: self._files.get(chunk.name) for chunk in longer._chunks})
        return longer

    def read(self, rows_N: Tensor) -> Tensor:
        """x_ND: rows of the arena, int64."""
        if not rows_N.is_cpu:
            raise ValueError(f"Tables on disk are read on the CPU, got ids on {rows_N.device}. Keep the ranker there.")
        held = Held(self._slot_S, self.held_CD) if self._slot_S is not None and self.num_held else None
        return read_rows(self._there(), rows_N, self.arena.width, held)

    def hold(self, make_rule: Callable[[Tensor], UpdateRule]) -> UpdateRule:
        """Make room for rows that learn, and the rule that updates them where they are held."""
        self._expect_nothing_held("train them by another updater")
        capacity = self.disk.held_rows + 1  # row 0 is nobody's
        self.held_CD = zeros(capacity, self.arena.width)
        self._row_C = torch.zeros(capacity, dtype=torch.int64)
        self._slot_S = torch.zeros(self.arena.num_rows, dtype=torch.int32)
        self.num_held = 0
        rule = make_rule(self.held_CD)
        self._state = rule.state
        return rule

    def slots(self, rows_U: Tensor) -> Tensor:
        """Where in `held_CD` each of these rows (each once) is; those that were not held are from now on."""
        assert self._slot_S is not None
        slot_U = self._slot_S.index_select(0, rows_U).long()
        new_U = (slot_U == 0).nonzero().squeeze(1)
        if not len(new_U):
            return slot_U
        rows_N = rows_U.index_select(0, new_U)
        low, high = self.num_held + 1, self.num_held + 1 + len(rows_N)
        self._fit(high)
        slots_N = torch.arange(low, high)
        stored_NW = read_rows(self._there(), rows_N, self.width)
        for held, numbers in self._parts(stored_NW):
            held[low:high] = numbers
        self._row_C[low:high] = rows_N
        self._slot_S.index_copy_(0, rows_N, slots_N.int())
        self.num_held = high - 1
        return slot_U.index_copy_(0, new_U, slots_N)

    @property
    def full(self) -> bool:
        """Whether so many rows are held that they should be written."""
        return self.num_held >= self.disk.held_rows

    def writers(self) -> dict[str, WriteFile]:
        """For every file, by its name in a checkpoint: what puts it at a path, as it is with the rows that are held."""
        rows_C = self._row_C[1 : self.num_held + 1].numpy()
        order = np.argsort(rows_C, kind="stable")
        cuts = np.searchsorted(rows_C[order], [*(chunk.base for chunk in self._chunks), self.arena.num_rows])
        return {
            chunk.name: file.put if low == high and file else partial(self._write, index, order[low:high] + 1)
            for index, (chunk, low, high) in enumerate(zip(self._chunks, cuts[:-1], cuts[1:], strict=True))
            for file in [self._whole_file(chunk)]
        }

    def _write(self, index: int, slots: np.ndarray, path: Path) -> ChunkFile:
        chunk, file = self._chunks[index], self._whole_file(self._chunks[index])
        # Not of the mapped file: it is read page by page, an eighth as fast.
        whole = self._there().arrays[index].copy() if file is None else np.fromfile(file.path, dtype=np.float32)
        stored = whole.reshape(-1, self.width)
        slots_N = torch.from_numpy(slots)
        places = self._row_C.index_select(0, slots_N).numpy() - chunk.base
        for held, numbers in self._parts(torch.from_numpy(stored)):
            numbers[torch.from_numpy(places)] = held.index_select(0, slots_N)
        return write_rows(path, stored)

    def _parts(self, stored_NW: Tensor) -> list[tuple[Tensor, Tensor]]:
        """What is held (weights, then the tensors of state), and where it stands in stored rows, as views."""
        parts, at = [], 0
        for held in (self.held_CD, *self._state.values()):
            numbers = held.shape[1:].numel()
            view = stored_NW[:, at : at + numbers]
            parts.append((held, view if held.ndim > 1 else view[:, 0]))
            at += numbers
        return parts

    def _read_from(self, files: Mapping[str, ChunkFile | None]) -> None:
        arrays = [opened(chunk, self.width, self.seed, files[chunk.name]) for chunk in self._chunks]
        self._mapped = Chunks.of(arrays, self.disk.chunk_rows)
        self._files = dict(files)
        if self._slot_S is not None:
            self._slot_S.index_fill_(0, self._row_C[1 : self.num_held + 1], 0)
        self.num_held = 0
        if self._scratch is not None:
            shutil.rmtree(self._scratch, ignore_errors=True)
            self._scratch = None

    def _whole_file(self, chunk: Chunk) -> ChunkFile | None:
        """The file of a chunk, if all of its rows are there."""
        file = self._files[chunk.name]
        return file if file and file.size == size_of(chunk, self.width) else None

    def _fit(self, capacity: int) -> None:
        """A step may touch more rows than there is room for: what is held grows."""
        if capacity <= len(self.held_CD):
            return
        more = max(capacity, 2 * len(self.held_CD))
        self._row_C = torch.cat([self._row_C, self._row_C.new_zeros(more - len(self._row_C))])
        self.held_CD = _longer(self.held_CD, more)
        for name, values in self._state.items():
            self._state[name] = _longer(values, more)

    def _expect_nothing_held(self, what: str) -> None:
        if self.num_held:
            raise RuntimeError(f"{self.num_held} changed rows are held in memory: save a checkpoint, then {what}.")

    def _there(self) -> Chunks:
        if self._mapped is None:
            names = [spec.name for spec in self.arena.tables]
            raise RuntimeError(
                f"Tables {names} live on disk and have no files yet: call `EmbeddingTables.begin_on_disk(folder)` with "
                "a folder of a disk that has room for them (training does so in the run's folder), or load a "
                "checkpoint."
            )
        return self._mapped


def state_numbers(arena: Arena) -> int:
    """Numbers of state that the optimizer of an arena on disk keeps of a row."""
    return 1 if arena.optimizer.semantics == "rowwise_adagrad" else 2 * arena.width


def _longer(values: Tensor, capacity: int) -> Tensor:
    longer = zeros(capacity, *values.shape[1:])
    longer[: len(values)] = values
    return longer
