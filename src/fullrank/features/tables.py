"""Embedding tables in arenas: one gather for all the columns of an arena, gradients for touched rows alone.

Shape suffixes: n owners · F columns · N values of all bags · R rows of an arena · U unique rows · D width.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from fullrank.data.batch import Bag
from fullrank.features.arena_weight import ArenaWeight
from fullrank.features.deferred_decay import DeferredDecay
from fullrank.features.disk_rows import DiskRows
from fullrank.features.table_init import initial_rows, write_initial_rows
from fullrank.features.table_plan import Arena, DiskTables, TableOptimizer, TablePlan, TableSpec
from fullrank.kernels.gather import IdOutOfRange
from fullrank.kernels.pages import zeros

__all__ = ["Columns", "DiskTables", "EmbeddingTables", "TableOptimizer", "TablePlan", "TableSpec"]


@dataclass(frozen=True)
class Columns:
    """Some columns of ids, all in one arena: column f holds ids of `tables[f]`. Made by `EmbeddingTables.columns`;
    it names tables, not rows, so it stays good when tables grow or move to another device."""

    arena: int
    tables: tuple[str, ...]


class EmbeddingTables(nn.Module):
    """All tables of a model: x = table[id], looked up as `arena[base + id]`.

    One parameter per arena, `[rows, width]`, whose gradient is sparse (`ArenaWeight`): update it with a
    `TableUpdater`, not with a `torch.optim` optimizer. Row 0 of every table is padding: zeros that never change. A
    model registers its tables once; whoever reads them (`FieldEmbedding`) only refers to them.

    Tables that live on disk (`TableSpec.disk`) are read from files: of a checkpoint, or of `begin_on_disk` where they
    are new. They are on the CPU, and are not among the `logical_tables`.

    Every lookup compares the ids with their tables' sizes, so that an id never reads a neighbour's row; on a GPU that
    is one wait for the device.
    """

    def __init__(self, plan: TablePlan, seed: int) -> None:
        super().__init__()
        self.plan = plan
        self.seed = seed
        self.arenas = nn.ParameterList(_empty(arena, seed) for arena in plan.arenas)
        for arena, base, spec in plan.places.values():
            if spec.disk is None:
                write_initial_rows(self.arenas[arena].detach()[base : base + spec.num_rows], spec, seed)
        self.decays: list[DeferredDecay | None] = [None] * len(plan.arenas)  # set by the updater of a lazy arena
        self._layouts: dict[tuple[Columns, torch.device], tuple[Tensor, Tensor]] = {}

    def columns(self, tables: tuple[str, ...]) -> Columns:
        """Columns of ids of these tables (one may occur many times); they must share an arena."""
        places = [self.plan.place(table) for table in tables]
        if len({arena for arena, _, _ in places}) != 1:
            found = {table: arena for table, (arena, _, _) in zip(tables, places, strict=True)}
            raise ValueError(
                f"Expected columns of one arena (one width and optimizer), got tables in arenas {found}. "
                "Gather the columns of each arena on their own."
            )
        return Columns(places[0][0], tables)

    def weight(self, arena: int) -> ArenaWeight:
        """The rows of one arena, with what backward left for them."""
        weight_RD = self.arenas[arena]
        assert isinstance(weight_RD, ArenaWeight)
        return weight_RD

    def on_disk(self) -> list[DiskRows]:
        """The arenas that live on disk."""
        found = (self.weight(arena).disk for arena in range(len(self.arenas)))
        return [disk for disk in found if disk is not None]

    def begin_on_disk(self, folder: Path) -> None:
        """Write the files of new tables that live on disk, if any do, below `folder` (made, and emptied before)."""
        if disks := self.on_disk():
            shutil.rmtree(folder, ignore_errors=True)
            for disk in disks:
                disk.begin(folder)

    def read_files(self, folder: Path, entries: Mapping[str, tuple[int, str]], *, grows: bool = False) -> None:
        """From now on, read what lives on disk from a checkpoint's folder; see `DiskRows.load`."""
        for disk in self.on_disk():
            disk.load(folder, entries, grows=grows)

    def gather(self, columns: Columns, ids_nF: Tensor) -> Tensor:
        """x_nFD: the row of every id (int64 local ids, `[..., F]`). An id outside its table is an IndexError."""
        if ids_nF.shape[-1] != len(columns.tables):
            raise ValueError(f"Expected ids of {len(columns.tables)} columns, got shape {tuple(ids_nF.shape)}.")
        base_F, num_rows_F = self._layout(columns, ids_nF.device)
        weight_RD = self.weight(columns.arena)
        try:
            return weight_RD.gather(ids_nF, base_F, num_rows_F, self.decays[columns.arena])
        except IdOutOfRange as found:
            raise self._out_of_range(columns.tables[found.column], found.column, found.id) from None

    def gather_table(self, table: str, ids_N: Tensor) -> Tensor:
        """x_ND: rows of one table, for ids of any shape."""
        return self.gather(self.columns((table,)), ids_N.unsqueeze(-1)).squeeze(-2)

    def pool(self, table: str, bag: Bag, mode: Literal["mean", "sum"] = "mean") -> Tensor:
        """x_nD: sum(w v) of each owner's values ("sum"), or sum(w v) / sum(w) ("mean"); w = 1 without weights.

        An empty bag, and a mean whose weights sum to 0, is zeros. Weights get no gradient.
        """
        arena, base, spec = self.plan.place(table)
        if bag.ids_N.numel():
            low, high = (int(value) for value in torch.aminmax(bag.ids_N))
            if low < 0 or high >= spec.num_rows:
                raise self._out_of_range(table, 0, low if low < 0 else high)
        rows_N = bag.ids_N + base
        weight_RD = self.weight(arena)
        weights_N = bag.weights_N if bag.weights_N is None else bag.weights_N.to(weight_RD.dtype)
        x_nD = weight_RD.bag_sum(rows_N, bag.offsets, weights_N, self.decays[arena])
        if mode == "sum":
            return x_nD
        lengths_n = bag.offsets.diff()
        if weights_N is None:
            return x_nD / lengths_n.clamp(min=1).to(x_nD.dtype).unsqueeze(-1)
        owner_N = torch.repeat_interleave(lengths_n, output_size=len(weights_N))
        total_n = weights_N.new_zeros(len(lengths_n)).index_add_(0, owner_N, weights_N)
        return x_nD / torch.where(total_n == 0, torch.inf, total_n).unsqueeze(-1)

    def logical_tables(self) -> dict[str, Tensor]:
        """Every table in memory by name, `[num_rows, width]`: views of the arenas, for checkpoints and warm starts.

        Deferred weight decay is written first, so what is stored means the same everywhere.
        """
        for weight_RD, decay in zip(self.arenas, self.decays, strict=True):
            if decay is not None:
                decay.flush(weight_RD.detach())
        return {
            name: self.arenas[arena].detach()[base : base + spec.num_rows]
            for name, (arena, base, spec) in self.plan.places.items()
            if spec.disk is None
        }

    @torch.no_grad()
    def load_logical_tables(self, tables: Mapping[str, Tensor]) -> None:
        """Copy stored tables in; exactly the tables of the plan that are in memory, each of its own shape."""
        copy_named(self.logical_tables(), tables, what="table")

    @torch.no_grad()
    def grow(self, num_rows: Mapping[str, int]) -> None:
        """Make the tables of each named key space (every set) `num_rows` long; rows that are there keep every bit.

        With a `TableUpdater` call its `grow`, which grows the state with the rows.
        """
        old, new = self.plan, self.plan.grown(num_rows)
        disks = [self.weight(index).disk for index in range(len(new.arenas))]
        disks = [disk and disk.grown(arena) for disk, arena in zip(disks, new.arenas, strict=True)]  # or nothing grows
        stored = self.logical_tables()
        for index, (arena, disk) in enumerate(zip(new.arenas, disks, strict=True)):
            weight_RD = self.weight(index)
            weight_RD.disk = disk
            if disk is not None:
                weight_RD.grad = None
                continue
            grown_RD = zeros(arena.num_rows, arena.width, like=weight_RD)
            for spec, base in zip(arena.tables, arena.bases, strict=True):
                there = old.places[spec.name][2].num_rows
                grown_RD[base : base + there] = stored[spec.name]
                grown_RD[base + there : base + spec.num_rows] = initial_rows(spec, self.seed, there, spec.num_rows)
            weight_RD.grad = None
            weight_RD.data = grown_RD
        self.plan = new
        self.decays = [None] * len(new.arenas)
        self._layouts.clear()

    def _layout(self, columns: Columns, device: torch.device) -> tuple[Tensor, Tensor]:
        """base_F and num_rows_F of the columns, kept until tables grow."""
        if (columns, device) not in self._layouts:
            places = [self.plan.place(table) for table in columns.tables]
            base_F = torch.tensor([base for _, base, _ in places], device=device)
            num_rows_F = torch.tensor([spec.num_rows for _, _, spec in places], device=device)
            self._layouts[columns, device] = (base_F, num_rows_F)
        return self._layouts[columns, device]

    def _out_of_range(self, table: str, column: int, id: int) -> IndexError:
        num_rows = self.plan.places[table][2].num_rows
        return IndexError(
            f"Expected ids of table {table!r} (column {column}) in 0..{num_rows - 1}, got {id}. "
            "Ids of a later lineage need a larger table: grow it, or map them to unknown first."
        )


def _empty(arena: Arena, seed: int) -> ArenaWeight:
    if arena.disk is None:
        return ArenaWeight(zeros(arena.num_rows, arena.width))
    weight_RD = ArenaWeight(torch.empty(0, arena.width))
    weight_RD.disk = DiskRows(arena, seed)
    return weight_RD


def copy_named(views: Mapping[str, Tensor], stored: Mapping[str, Tensor], *, what: str) -> None:
    """Copy each stored tensor into the view of its name; both must have the same names and shapes."""
    missing, unexpected = sorted(set(views) - set(stored)), sorted(set(stored) - set(views))
    if missing or unexpected:
        raise ValueError(f"Expected every {what} and no other: missing {missing}, unexpected {unexpected}.")
    for name, view in views.items():
        if view.shape != stored[name].shape:
            got, expected = tuple(stored[name].shape), tuple(view.shape)
            raise ValueError(f"Expected {what} {name!r} of shape {expected}, got {got}.")
    for name, view in views.items():
        view.copy_(stored[name])
