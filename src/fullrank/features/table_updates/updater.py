"""The one object that updates all tables of a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from fullrank.features.deferred_decay import DeferredDecay
from fullrank.features.table_plan import Arena
from fullrank.features.table_updates.dense import DenseAdagrad, DenseAdam
from fullrank.features.table_updates.ftrl import FTRL
from fullrank.features.table_updates.lazy import LazyAdam
from fullrank.features.table_updates.row_grads import RowGrads, sum_lookups
from fullrank.features.table_updates.rowwise_adagrad import RowwiseAdagrad
from fullrank.features.table_updates.rule import UpdateRule
from fullrank.features.tables import EmbeddingTables, copy_named


class TableUpdater:
    """Drives the arenas of `tables` through the three calls of a table step:

        grads = updater.merge()          after backward: what each arena's rows got; norms are of this
        updater.accumulate(grads)        once per micro-batch
        updater.apply(scale)             one step with scale * (the sum of what was accumulated)

    `step(scale)` is the three in one. `scale` carries clipping (max_norm / norm) and 1 / micro-batches. Every `apply`
    is a step of every arena, also of one that got no gradient: the bias corrections and decays of a run go by one
    clock. Make it after the model is on its device; its state follows the tables, not the other way round.
    """

    def __init__(self, tables: EmbeddingTables) -> None:
        self.tables = tables
        self.step_count = 0
        self.lr_scale = 1.0
        self._rules = [self._make_rule(index, arena) for index, arena in enumerate(tables.plan.arenas)]
        self._pending: list[RowGrads] | None = None
        self._plan = tables.plan
        self._touched: list[Tensor | None] = [None] * len(self._rules)

    def set_lr_scale(self, scale: float) -> None:
        """Multiply every table's lr by `scale` (>= 0) from now on: the hook of a schedule."""
        if not scale >= 0:
            raise ValueError(f"Expected an lr scale >= 0, got {scale}.")
        for spec in self.tables.plan.specs:
            optimizer = spec.optimizer
            if optimizer.semantics == "lazy" and optimizer.lr * scale * optimizer.weight_decay >= 1:
                got = f"{optimizer.lr} * {scale} * {optimizer.weight_decay}"
                raise ValueError(f"Expected lr * scale * weight_decay < 1 for table {spec.name!r}, got {got}.")
        self.lr_scale = scale

    @torch.no_grad()
    def merge(self) -> tuple[RowGrads, ...]:
        """The gradients that backward left, duplicates summed and padding rows dropped, one per arena; clears them."""
        self._expect_same_tables()
        merged = []
        for index, arena in enumerate(self.tables.plan.arenas):
            weight_RD = self.tables.weight(index)
            lookups = weight_RD.take()
            if lookups:
                padding = torch.tensor(arena.bases, device=weight_RD.device)
                merged.append(sum_lookups(lookups, dropped=padding))
            else:
                rows_N = torch.empty(0, dtype=torch.int64, device=weight_RD.device)
                merged.append(RowGrads(rows_N, weight_RD.new_empty(0, arena.width)))
        return tuple(merged)

    @torch.no_grad()
    def accumulate(self, grads: Sequence[RowGrads]) -> None:
        """Add one `merge` to what waits for `apply`."""
        if self._pending is None:
            self._pending = list(grads)
        else:
            self._pending = [waiting + new for waiting, new in zip(self._pending, grads, strict=True)]

    @torch.no_grad()
    def apply(self, scale: float = 1.0) -> None:
        """One step with `scale` times what was accumulated, and forget it."""
        if self._pending is None:
            raise RuntimeError("Nothing to apply: call accumulate(merge()) after backward first.")
        self.step_count += 1
        for index, (rule, arena, grads) in enumerate(
            zip(self._rules, self.tables.plan.arenas, self._pending, strict=True)
        ):
            weight_RD = self.tables.weight(index)
            lr = arena.optimizer.lr * self.lr_scale
            rows_RD = weight_RD.detach()
            if weight_RD.disk is not None:
                grads = RowGrads(weight_RD.disk.slots(grads.rows_U), grads.values_UD)  # where they are held
                rows_RD = weight_RD.disk.held_CD
            rule.apply(rows_RD, grads, lr=lr, step=self.step_count, scale=scale)
        for touched_R, grads in zip(self._touched, self._pending, strict=True):
            if touched_R is not None:
                touched_R.index_fill_(0, grads.rows_U, True)
        self._pending = None

    def step(self, scale: float = 1.0) -> None:
        """merge → accumulate → apply."""
        self.accumulate(self.merge())
        self.apply(scale)

    def watch(self) -> None:
        """Note from now on which rows are touched, where the others stand still: in arenas that are neither `dense` nor
        shrink by weight decay. Price: a byte a row, and a write a touched row and step."""
        still = [
            arena.disk is None
            and arena.optimizer.semantics != "dense"
            and not arena.optimizer.weight_decay
            for arena in self.tables.plan.arenas
        ]
        self._touched = [
            torch.zeros(len(weight_RD), dtype=torch.bool, device=weight_RD.device) if stands else None
            for stands, weight_RD in zip(still, self.tables.arenas, strict=True)
        ]

    def touched(self) -> dict[str, Tensor]:
        """Table → its rows (int64, ascending) that were touched since `watch`; the other rows of these tables, weights
        and state, are as they were then. Tables whose rows all move are not in it."""
        self._expect_same_tables()
        found = {}
        for name, (arena, base, spec) in self.tables.plan.places.items():
            touched_R = self._touched[arena]
            if touched_R is not None:
                found[name] = touched_R[base : base + spec.num_rows].nonzero().squeeze(1)
        return found

    def flush(self) -> None:
        """Write the decay that rows of lazy tables still lack. Reads see it anyway, so only who looks at
        `tables.arenas` directly needs this; `logical_tables` does it by itself."""
        for weight_RD, decay in zip(self.tables.arenas, self.tables.decays, strict=True):
            if decay is not None:
                decay.flush(weight_RD.detach())

    def state_tensors(self) -> dict[str, Tensor]:
        """`step` and, per table in memory, its state (`user.main/exp_avg`), as views: for checkpoints, with
        `tables.logical_tables()`. Gradients that wait for `apply` are not in it: store between steps."""
        self._expect_nothing_pending("store or load table state")
        views = self._state_views()
        return {"step": torch.tensor(self.step_count, dtype=torch.int64), **views}

    @torch.no_grad()
    def load_state_tensors(self, state: Mapping[str, Tensor]) -> None:
        """Copy a stored state in; exactly the names and shapes of `state_tensors`."""
        self._expect_nothing_pending("store or load table state")
        step = torch.zeros((), dtype=torch.int64)
        copy_named({"step": step, **self._state_views()}, state, what="table state")
        self.step_count = int(step)

    @torch.no_grad()
    def grow(self, num_rows: Mapping[str, int]) -> None:
        """`tables.grow`, with state: rows that are there keep every bit of it, new rows start at zero."""
        self._expect_nothing_pending("grow tables")
        old = self._state_views()
        self.tables.grow(num_rows)
        self._plan = self.tables.plan
        self._rules = [self._make_rule(index, arena) for index, arena in enumerate(self.tables.plan.arenas)]
        self._touched = [None] * len(self._rules)
        for name, view in self._state_views().items():
            view[: len(old[name])] = old[name]

    def _make_rule(self, index: int, arena: Arena) -> UpdateRule:
        disk = self.tables.weight(index).disk
        if disk is not None:
            return disk.hold(lambda held_CD: self._rule_of(index, arena, held_CD))
        return self._rule_of(index, arena, self.tables.arenas[index].detach())

    def _rule_of(self, index: int, arena: Arena, weight_RD: Tensor) -> UpdateRule:
        optimizer = arena.optimizer
        if optimizer.semantics == "dense":
            return (DenseAdam if optimizer.rule == "adam" else DenseAdagrad)(optimizer, weight_RD)
        if optimizer.semantics == "rowwise_adagrad":
            return RowwiseAdagrad(optimizer, weight_RD)
        if optimizer.semantics == "ftrl":
            return FTRL(optimizer, weight_RD)
        decay = DeferredDecay(weight_RD) if optimizer.weight_decay else None
        self.tables.decays[index] = decay
        return LazyAdam(optimizer, weight_RD, decay)

    def _state_views(self) -> dict[str, Tensor]:
        return {
            f"{name}/{key}": whole_R[base : base + spec.num_rows]
            for name, (arena, base, spec) in self.tables.plan.places.items()
            if spec.disk is None
            for key, whole_R in self._rules[arena].state.items()
        }

    def _expect_same_tables(self) -> None:
        if self._plan is not self.tables.plan:
            raise RuntimeError("The tables grew without their optimizer state: call TableUpdater.grow instead.")

    def _expect_nothing_pending(self, what: str) -> None:
        self._expect_same_tables()
        if self._pending is not None:
            raise RuntimeError(f"Accumulated gradients wait for apply(): call it before you {what}.")
