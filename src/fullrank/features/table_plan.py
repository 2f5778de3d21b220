"""Which embedding tables a model wants, and how they are packed into arenas. No tensors are made here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, get_args

from fullrank.schema import did_you_mean

Semantics = Literal["dense", "lazy", "rowwise_adagrad", "ftrl"]
DenseRule = Literal["adam", "adagrad"]


@dataclass(frozen=True, kw_only=True)
class TableOptimizer:
    """How the rows of a table learn. g is the summed gradient of a row, t the number of steps taken by the run.

    * `dense`: torch's Adam or Adagrad (`rule`) over the whole table; `weight_decay` is its L2: g + weight_decay * w for
      every row, touched or not. Costs a pass over the whole table every step: for small tables and published recipes.
    * `lazy`: Adam moments of touched rows alone, bias-corrected by t. *Not* Adam, which moves untouched rows too.
      `weight_decay` is decoupled: every row is multiplied by 1 - lr * weight_decay every step (see `DeferredDecay`).
    * `rowwise_adagrad`: acc += mean(g²) over the row; w -= lr * g / (sqrt(acc) + eps). One number of state a row. It
      has no weight decay: use `lazy` or `dense` where tables must shrink.
    * `ftrl`: FTRL-proximal of touched rows, with `beta`, `l1`, and `weight_decay` as its l2 (see `FTRL`): for linear
      weights of which many shall be exactly 0.

    `betas` belong to the two Adams, `beta` and `l1` to `ftrl`. The default learning rate is our choice; set the
    recipe's.
    """

    semantics: Semantics = "rowwise_adagrad"
    rule: DenseRule = "adam"
    lr: float = 0.02
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0
    beta: float = 1.0
    l1: float = 0.0

    def __post_init__(self) -> None:
        for name, value, choices in (
            ("semantics", self.semantics, get_args(Semantics)),
            ("rule", self.rule, get_args(DenseRule)),
        ):
            if value not in choices:
                near = did_you_mean(value, choices)
                raise ValueError(f"Expected table optimizer {name} to be one of {choices}, got {value!r}.{near}")
        if self.lr <= 0 or self.eps <= 0 or self.weight_decay < 0:
            got = f"lr {self.lr}, eps {self.eps}, weight_decay {self.weight_decay}"
            raise ValueError(f"Expected a table optimizer with lr > 0, eps > 0 and weight_decay >= 0, got {got}.")
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"Expected table optimizer betas to be two numbers in [0, 1), got {self.betas}.")
        if self.rule == "adagrad" and self.semantics != "dense":
            raise ValueError(
                f"Table semantics {self.semantics!r} has a rule of its own: rule 'adagrad' belongs to 'dense'. "
                "Drop `rule`, or use semantics='rowwise_adagrad' for an Adagrad of touched rows."
            )
        if self.betas != (0.9, 0.999) and (self.semantics in ("rowwise_adagrad", "ftrl") or self.rule == "adagrad"):
            name = "FTRL" if self.semantics == "ftrl" else "Adagrad"
            raise ValueError(f"{name} has no betas, got {self.betas}. Drop `betas`, or use an Adam.")
        if self.beta < 0 or self.l1 < 0:
            raise ValueError(f"Expected beta >= 0 and l1 >= 0, got beta {self.beta}, l1 {self.l1}.")
        if (self.beta, self.l1) != (1.0, 0.0) and self.semantics != "ftrl":
            raise ValueError(
                f"Only table semantics 'ftrl' has beta and l1, got beta {self.beta}, l1 {self.l1} for "
                f"{self.semantics!r}. Drop them, or use semantics='ftrl'."
            )
        if self.weight_decay and self.semantics == "rowwise_adagrad":
            raise ValueError(
                f"Table semantics 'rowwise_adagrad' has no weight decay, got {self.weight_decay}. "
                "Use 'lazy' (decoupled, every row) or 'dense' (L2, every row)."
            )
        if self.semantics == "lazy" and self.lr * self.weight_decay >= 1:
            raise ValueError(f"Expected lr * weight_decay < 1, got {self.lr} * {self.weight_decay}.")


@dataclass(frozen=True, kw_only=True)
class DiskTables:
    """Which tables live on disk instead of in memory, and how (see `features.disk_rows`).

    Args:
        key_spaces: the tables of these do.
        held_rows: rows changed since the last checkpoint are held in memory, in every arena; from so many on a
            checkpoint is made after the step, which writes them.
        chunk_rows: rows of a file, a power of two. A checkpoint writes the files that changed anew and links the
            others: small files suit tables of which small parts change.

    Not for `dense` tables, and not with a decoupled `weight_decay`: these change every row in every step.
    """

    key_spaces: tuple[str, ...] = ()
    held_rows: int = 1 << 22
    chunk_rows: int = 1 << 18

    def __post_init__(self) -> None:
        if self.held_rows < 1:
            raise ValueError(f"Expected held_rows >= 1, got {self.held_rows}.")
        if self.chunk_rows < 1 or self.chunk_rows & (self.chunk_rows - 1):
            raise ValueError(f"Expected chunk_rows to be a power of two, got {self.chunk_rows}.")

    def of(self, key_space: str) -> DiskTables | None:
        """What a table of this key space has as `TableSpec.disk`."""
        return self if key_space in self.key_spaces else None


@dataclass(frozen=True, kw_only=True)
class TableSpec:
    """One logical table: `num_rows` rows of `width` for the ids of `key_space`; row 0 is padding and stays zero.

    `set` names one of several tables of a key space (multi-embedding, a table per task): a name, so that a checkpoint
    of a model with one set more still says which is which. Initial rows are N(0, init_std²). `disk`: where it is not
    None, the table lives on disk.
    """

    key_space: str
    num_rows: int
    width: int
    set: str = "main"
    init_std: float = 0.01
    optimizer: TableOptimizer = TableOptimizer()
    disk: DiskTables | None = None

    def __post_init__(self) -> None:
        if self.num_rows < 1 or self.width < 1:
            got = f"{self.num_rows} rows of width {self.width}"
            raise ValueError(f"Expected table {self.name!r} to have at least one row and one column, got {got}.")
        optimizer = self.optimizer
        if self.disk and (optimizer.semantics == "dense" or (optimizer.semantics == "lazy" and optimizer.weight_decay)):
            got = f"{optimizer.semantics!r} and weight_decay {optimizer.weight_decay}"
            raise ValueError(
                f"Table {self.name!r} is to live on disk, where only touched rows may change; got semantics {got}, "
                "which change them all. Use 'rowwise_adagrad', 'ftrl', or 'lazy' without weight_decay."
            )

    @property
    def name(self) -> str:
        return f"{self.key_space}.{self.set}"


@dataclass(frozen=True)
class Arena:
    """Tables of one width and optimizer in one block of rows: table k owns `[bases[k], bases[k] + num_rows)`. On disk a
    table begins with a chunk of its own."""

    tables: tuple[TableSpec, ...]
    bases: tuple[int, ...]
    num_rows: int

    @property
    def width(self) -> int:
        return self.tables[0].width

    @property
    def optimizer(self) -> TableOptimizer:
        return self.tables[0].optimizer

    @property
    def disk(self) -> DiskTables | None:
        return self.tables[0].disk


@dataclass(frozen=True)
class TablePlan:
    """Every table of a model. Arenas stand in order of first use, and so do the tables within an arena."""

    specs: tuple[TableSpec, ...]

    def __post_init__(self) -> None:
        names = [spec.name for spec in self.specs]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"Expected every table once, got {twice[0]!r} {names.count(twice[0])} times.")

    @cached_property
    def arenas(self) -> tuple[Arena, ...]:
        groups: dict[tuple[int, TableOptimizer, DiskTables | None], list[TableSpec]] = {}
        for spec in self.specs:
            groups.setdefault((spec.width, spec.optimizer, spec.disk), []).append(spec)
        arenas = []
        for (_, _, disk), tables in groups.items():
            bases, end = [], 0
            for spec in tables:
                bases.append(end)
                rows = spec.num_rows
                end += rows if disk is None else -(-rows // disk.chunk_rows) * disk.chunk_rows
            arenas.append(Arena(tuple(tables), tuple(bases), end))
        return tuple(arenas)

    @cached_property
    def places(self) -> dict[str, tuple[int, int, TableSpec]]:
        """Table name -> (arena, base row, spec)."""
        return {
            spec.name: (index, base, spec)
            for index, arena in enumerate(self.arenas)
            for spec, base in zip(arena.tables, arena.bases, strict=True)
        }

    def place(self, table: str) -> tuple[int, int, TableSpec]:
        """(arena, base row, spec) of a table; an error names the nearest one."""
        if table not in self.places:
            names = list(self.places)
            raise ValueError(f"No table {table!r}; the tables are {names}.{did_you_mean(table, names)}")
        return self.places[table]

    def grown(self, num_rows: Mapping[str, int]) -> TablePlan:
        """The same plan with the tables of each key space (in every set) as large as `num_rows` says."""
        spaces = list(dict.fromkeys(spec.key_space for spec in self.specs))
        for space in num_rows:
            if space not in spaces:
                near = did_you_mean(space, spaces)
                raise ValueError(f"No table of key space {space!r}; the key spaces are {spaces}.{near}")
        for spec in self.specs:
            if num_rows.get(spec.key_space, spec.num_rows) < spec.num_rows:
                got = num_rows[spec.key_space]
                raise ValueError(f"Table {spec.name!r} has {spec.num_rows} rows and can only grow, got {got}.")
        return TablePlan(
            tuple(replace(spec, num_rows=num_rows.get(spec.key_space, spec.num_rows)) for spec in self.specs)
        )
