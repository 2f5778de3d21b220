"""First weights from another run: rows of tables by key, dense weights by name and shape.

    table row of key x       <- the row that x has there, where both tables have the same name and width
    missing, unknown rows    <- the same rows, where there are as many unknown rows
    hashed key space         <- all rows by bucket, where buckets and hashes are the same; else nothing
    dense weight             <- the weight of the same name, where the shape is the same

Everything else stays as the new run's seed made it. Ids may differ: keys are met by their codes, so the data may be a
later version of the other run's, or another set whose keys mean the same.

When not to use it: to go on with the same ranker on the next day's data. `continue_run` keeps the optimizer's state,
too. And names alone do not say that two weights mean the same: where fields or tasks differ in number or order, a layer
of the same shape may read other fields or speak of another task; the report says so (`inputs`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn

from fullrank.data.id_map import FIRST_UNKNOWN_ID, MISSING_ID, IdMap
from fullrank.data.inputs import Inputs
from fullrank.features.table_plan import TableSpec
from fullrank.schema import did_you_mean
from fullrank.training.checkpoint import Checkpoint
from fullrank.training.run import Run, RunError
from fullrank.training.weights import dense_tensors, tables_of


@dataclass(frozen=True, kw_only=True)
class TableTaken:
    """Rows of keys (of a hashed space: buckets) of one table: `matched` were taken, `new` start fresh, `dropped` were
    only in the other run. `why`: the reason where nothing could be taken."""

    matched: int
    new: int
    dropped: int
    why: str = ""


@dataclass(frozen=True, kw_only=True)
class WarmStart:
    """What was taken of `run`. Dense weights by name: `taken`, `new` (only here), `dropped` (only there), `reshaped`
    (both, of other shapes: "there → here"; not taken). `inputs`: how the inputs differ, empty if they do not."""

    run: str
    step: int
    tables: dict[str, TableTaken]
    dropped_tables: tuple[str, ...]
    taken: tuple[str, ...]
    new: tuple[str, ...]
    dropped: tuple[str, ...]
    reshaped: dict[str, str] = field(default_factory=dict)
    inputs: str = ""

    def __str__(self) -> str:
        lines = [f"Warm start from {self.run}, step {self.step}:"]
        for name, table in self.tables.items():
            why = f" ({table.why})" if table.why else ""
            counts = f"{table.matched:,} rows taken by key, {table.new:,} new, {table.dropped:,} dropped"
            lines.append(f"  table {name}: {counts}{why}")
        lines += [f"  table {name}: only there, dropped" for name in self.dropped_tables]
        lines.append(f"  dense weights: {len(self.taken)} taken")
        for what, names in (("new", self.new), ("dropped", self.dropped)):
            if names:
                lines.append(f"    {what}: {', '.join(names)}")
        lines += [f"    reshaped, so new: {name} {shapes}" for name, shapes in self.reshaped.items()]
        if self.inputs:
            lines.append(f"  The inputs differ: {self.inputs}. Weights of the same shape may mean others.")
        return "\n".join(lines)


@torch.no_grad()
def warm_start(
    ranker: nn.Module, inputs: Inputs, id_maps: Mapping[str, IdMap], run: Run, checkpoint: Checkpoint
) -> WarmStart:
    """Copy into a ranker, as its seed made it, what a checkpoint of another run has for it.

    Args:
        ranker: built for `inputs` and tables of `id_maps`' rows; changed in place.
        run, checkpoint: where from; the run's folder is only read.

    Raises `RunError` where nothing at all could be taken; it names the nearest table.
    """
    if tables_of(ranker).on_disk() or any(name.startswith("rows/") for name in checkpoint.files):
        raise RunError(
            f"Tables that live on disk can't take or give rows by key yet: of {run.path} or of the new run some do. "
            "Keep them in memory (no `disk.key_spaces`), or go on with the run itself (--continue)."
        )
    theirs = run.transform().id_maps
    stored = checkpoint.tensors("tables")
    tables, plan = tables_of(ranker).logical_tables(), tables_of(ranker).plan
    taken_tables = {}
    for name, (_, _, spec) in plan.places.items():
        why = _why_not(spec, stored, id_maps[spec.key_space], theirs.get(spec.key_space))
        own = spec.num_rows - _first(id_maps[spec.key_space])
        if why:
            taken_tables[name] = TableTaken(matched=0, new=own, dropped=0, why=why)
            continue
        here, there = id_maps[spec.key_space], theirs[spec.key_space]
        mine, other = _same_keys(here, there)
        tables[name][torch.from_numpy(mine)] = stored[name][torch.from_numpy(other)]
        matched = int((mine >= _first(here)).sum())
        met = len(np.unique(other[other >= _first(there)]))
        taken_tables[name] = TableTaken(
            matched=matched, new=own - matched, dropped=len(stored[name]) - _first(there) - met
        )
    dense, theirs_dense = dense_tensors(ranker), checkpoint.tensors("dense")
    if checkpoint.has("average"):
        theirs_dense |= checkpoint.tensors("average")
    both = [name for name in dense if name in theirs_dense]
    taken = [name for name in both if dense[name].shape == theirs_dense[name].shape]
    for name in taken:
        dense[name].copy_(theirs_dense[name])
    if not taken and not any(table.matched for table in taken_tables.values()):
        near = next((hint for name in plan.places if (hint := did_you_mean(name, list(stored)))), "")
        raise RunError(
            f"Expected {run.path} to have something for this ranker, found no table with the same keys and no weight "
            f"of the same name: its tables are {list(stored)}, here they are {list(plan.places)}.{near} "
            "Leave the warm start out, or take it from a run of the same keys."
        )
    return WarmStart(
        run=str(run.path),
        step=checkpoint.position.step,
        tables=taken_tables,
        dropped_tables=tuple(name for name in stored if name not in plan.places),
        taken=tuple(taken),
        new=tuple(name for name in dense if name not in theirs_dense),
        dropped=tuple(name for name in theirs_dense if name not in dense),
        reshaped={
            name: f"{tuple(theirs_dense[name].shape)} → {tuple(dense[name].shape)}"
            for name in both
            if name not in taken
        },
        inputs=_difference(run.record.inputs, inputs),
    )


def _why_not(spec: TableSpec, stored: Mapping[str, torch.Tensor], here: IdMap, there: IdMap | None) -> str:
    """Why nothing of a table can be taken; empty if something can."""
    if spec.name not in stored or there is None:
        return f"no such table there.{did_you_mean(spec.name, list(stored))}"
    width = stored[spec.name].shape[1]
    if width != spec.width:
        return f"reshaped: width {width} there, {spec.width} here"
    if (here.space.policy == "hashed") != (there.space.policy == "hashed"):
        return f"key space {spec.key_space!r} is {there.space.policy} there, {here.space.policy} here"
    if here.space.policy == "hashed":
        mine, other = ((m.space.buckets, m.space.hashes) for m in (here, there))
        if mine != other:
            return f"{other[0]} buckets and {other[1]} hashes there, {mine[0]} and {mine[1]} here"
    return ""


def _first(id_map: IdMap) -> int:
    """The first row that is a key's own, or the first bucket."""
    return FIRST_UNKNOWN_ID if id_map.space.policy == "hashed" else id_map.first_key_id


def _same_keys(here: IdMap, there: IdMap) -> tuple[np.ndarray, np.ndarray]:
    """Rows (int64) of two tables that stand for the same: here, and there. Padding is not among them."""
    if here.space.policy == "hashed":
        rows = np.arange(MISSING_ID, here.num_rows)
        return rows, rows
    shared = here.first_key_id if here.space.unknown_rows == there.space.unknown_rows else FIRST_UNKNOWN_ID
    keys = np.arange(here.first_key_id, here.num_rows)
    ids = there.ids(here.codes_of_ids(keys))  # a forgotten key has code 0, so it is missing there
    met = ids >= there.first_key_id
    rows = np.arange(MISSING_ID, shared)
    return np.concatenate([rows, keys[met]]), np.concatenate([rows, ids[met]]).astype(np.int64)


def _difference(theirs: Inputs, mine: Inputs) -> str:
    """How the fields and tasks of two rankers differ, in words; empty if they do not."""
    before, now = _fields(theirs), _fields(mine)
    gone, new = [name for name in before if name not in now], [name for name in now if name not in before]
    found = [f"{what} {', '.join(names)}" for what, names in (("new", new), ("gone", gone)) if names]
    return "; ".join(found) or ("another order" if before != now else "")


def _fields(inputs: Inputs) -> list[str]:
    events = [f"{history.name}.{f.name}" for history in inputs.histories for f in history.fields]
    tasks = [f"task {task.name}" for task in inputs.tasks]
    return [f.name for f in (*inputs.request, *inputs.candidate)] + events + tasks
