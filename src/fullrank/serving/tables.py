"""Embedding tables to be served from: half or a third of their bytes, the same look-ups, no training.

Shape suffixes: n rows · D width.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal, NoReturn, get_args

import torch
from torch import Tensor, nn

from fullrank.features.disk_rows import DiskRows
from fullrank.features.table_plan import TablePlan, TableSpec
from fullrank.features.tables import EmbeddingTables, copy_named
from fullrank.rankers import Ranker
from fullrank.rankers.load import load_ranker, ranker_config
from fullrank.schema import did_you_mean
from fullrank.serving.compact_rows import Bfloat16Rows, CompactRows, Int8Rows
from fullrank.serving.finite import check_finite
from fullrank.training.run import Run

Storage = Literal["float32", "bfloat16", "int8"]
PIECE = 1 << 18  # numbers packed at once: all that is made of them on the way stays in a core's cache


class ServingTables(EmbeddingTables):
    """`EmbeddingTables` kept as `bfloat16` or `int8` and read as float32: one gather an arena, the same ids checked.

    `bfloat16`: half the bytes; every number is off by at most 2^-8 of itself. `int8`: D + 4 bytes a row of D numbers,
    each off by at most 1/254 of the row's largest; rows of up to 4 numbers, of which that would save nothing, are kept
    as bfloat16. Padding rows are exactly zero in both. That the scale is a row's own and symmetric (no offset), and
    stored in float32, is our choice.

    Tables that live on disk are packed into memory. They can't be trained, saved or grown; what would is an error. Not
    for models so small that their tables fit a processor's cache: those gain nothing.
    """

    def __init__(self, plan: TablePlan, storage: Storage, like: Tensor | None = None) -> None:
        """Tables of zeros, to be filled by `load_logical_tables`, on the device of `like` (None: the CPU)."""
        check_storage(storage)
        if storage == "float32":
            raise ValueError("Expected tables to serve as bfloat16 or int8: those in float32 are EmbeddingTables.")
        nn.Module.__init__(self)  # past EmbeddingTables, which would make its rows
        self.plan = plan
        self.storage: Storage = storage
        self.decays = [None] * len(plan.arenas)
        self._layouts = {}
        like = torch.empty(0) if like is None else like
        self._rows: list[CompactRows] = [
            (Int8Rows if storage == "int8" and arena.width > 4 else Bfloat16Rows)(arena.num_rows, arena.width, like)
            for arena in plan.arenas
        ]

    @property
    def nbytes(self) -> int:
        return sum(rows.nbytes for rows in self._rows)

    def weight(self, arena: int) -> CompactRows:  # pyright: ignore[reportIncompatibleMethodOverride]  # gather and pool only read it
        """The rows of one arena."""
        return self._rows[arena]

    @torch.no_grad()
    def load_logical_tables(self, tables: Mapping[str, Tensor]) -> None:
        """Pack stored tables; exactly the tables of the plan that are in memory, each of its own shape, all numbers
        finite.

        Beside what is stored and what is packed it takes a few megabytes.
        """
        places = {name: place for name, place in self.plan.places.items() if place[2].disk is None}
        shapes = {name: (spec.num_rows, spec.width) for name, (_, _, spec) in places.items()}
        # Tensors without numbers: names and shapes are compared, and nothing is copied.
        copy_named({name: torch.empty(shape, device="meta") for name, shape in shapes.items()}, tables, what="table")
        for name, (arena, base, spec) in places.items():
            self._pack(arena, base, spec, lambda first, last, name=name: tables[name][first:last])

    @torch.no_grad()
    def pack_on_disk(self, arena: int, disk: DiskRows) -> None:
        """Pack the tables of an arena that lives on disk."""
        tables = self.plan.arenas[arena]
        for spec, base in zip(tables.tables, tables.bases, strict=True):
            self._pack(arena, base, spec, lambda first, last, at=base: disk.read(torch.arange(at + first, at + last)))

    def read_files(self, folder: Path, entries: Mapping[str, tuple[int, str]], *, grows: bool = False) -> None:
        for index, arena in enumerate(self.plan.arenas):
            if arena.disk is not None:
                disk = DiskRows(arena, seed=0)
                disk.load(folder, entries, grows=grows)
                self.pack_on_disk(index, disk)

    def _pack(self, arena: int, base: int, spec: TableSpec, rows: Callable[[int, int], Tensor]) -> None:
        step = max(1, PIECE // spec.width)
        for first in range(0, spec.num_rows, step):
            piece_nD = rows(first, min(first + step, spec.num_rows))
            check_finite(f"table {spec.name!r}", piece_nD, first_row=first)
            self._rows[arena].write(base + first, piece_nD)

    def on_disk(self) -> list[DiskRows]:
        """None: packed rows are in memory."""
        return []

    @property
    def arenas(self) -> NoReturn:  # pyright: ignore[reportIncompatibleVariableOverride]  # who asks wants to write them
        self._refuse()

    def logical_tables(self) -> NoReturn:
        self._refuse()

    def grow(self, num_rows: Mapping[str, int]) -> NoReturn:
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise ValueError(
            f"Expected tables that can be trained and saved, got tables kept as {self.storage} to be served, which can "
            "only be read. Load the run with its own tables (load_ranker)."
        )


def check_storage(storage: str) -> None:
    """An error unless `storage` is one of the three; it names the nearest."""
    if storage not in get_args(Storage):
        near = did_you_mean(storage, get_args(Storage))
        raise ValueError(f"Expected tables to be kept as one of {get_args(Storage)}, got {storage!r}.{near}")


def table_bytes(ranker: Ranker) -> int:
    """What the rows of a ranker's tables take in memory."""
    if isinstance(ranker.tables, ServingTables):
        return ranker.tables.nbytes
    return sum(weight_RD.numel() * weight_RD.element_size() for weight_RD in ranker.tables.parameters())


def with_tables(ranker: Ranker, storage: Storage) -> Ranker:
    """A copy of `ranker` that reads its tables as `storage` keeps them; float32, or what they are kept as already, are
    the ranker's own, not copied. In eval mode.

    Takes the packed tables' bytes beside those of the ranker; `load_for_serving` never has the latter.
    """
    check_storage(storage)
    tables = ranker.tables
    if storage != (tables.storage if isinstance(tables, ServingTables) else "float32"):
        rows = tables.logical_tables()
        tables = ServingTables(ranker.tables.plan, storage, like=next(ranker.tables.parameters(), None))
        tables.load_logical_tables(rows)
        for index in range(len(tables.plan.arenas)):
            disk = ranker.tables.weight(index).disk
            if disk is not None:
                tables.pack_on_disk(index, disk)
    return copy.deepcopy(ranker, {id(ranker.tables): tables}).eval()


def load_for_serving(run: Run, tables: Storage = "float32") -> Ranker:
    """As `load_ranker`: the ranker of a run with its weights (see `Run.load_weights`), its tables kept as `tables`.

    bfloat16 and int8 are packed out of the checkpoint's file, which is mapped and not read as a whole: the most memory
    taken is that of the packed tables and a few megabytes, and of what the system keeps of the file while it has room.
    Of a checkpoint that stores changed rows alone the memory pages of those rows come on top.
    """
    check_storage(tables)
    if tables == "float32":
        return load_ranker(run)
    record = run.record
    # Its own tables would take float32 rows, drawn and thrown away: it is made with one row a table.
    small = ranker_config(run).build(record.inputs, dict.fromkeys(record.num_rows, 1), record.seed)
    spaces = {spec.key_space: record.num_rows[spec.key_space] for spec in small.tables.plan.specs}
    ranker = copy.deepcopy(small, {id(small.tables): ServingTables(small.tables.plan.grown(spaces), tables)})
    run.load_weights(ranker)
    return ranker.eval()
