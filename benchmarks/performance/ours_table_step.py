"""Our table step: from the gradients of a look-up to updated rows, as `RankerOptimizer` drives it; our gather; and
a copy of 256 MiB, which says what memory gives to this process."""

from __future__ import annotations

from itertools import cycle

import torch
from worker import Mode, serve, work

import fullrank
from fullrank.features.table_updates import TableUpdater
from fullrank.features.tables import EmbeddingTables, TableOptimizer, TablePlan, TableSpec
from fullrank.kernels.pages import keep_freed_memory

COPIED = 256 << 20  # bytes, more than caches hold


def main() -> None:
    keep_freed_memory()  # as `train` does
    given = work()
    sizes = given.sizes
    spaces = [f"c{place}" for place in range(sizes["features"])]
    tables = EmbeddingTables(
        TablePlan(
            tuple(
                TableSpec(
                    key_space=space,
                    num_rows=sizes["rows_of_a_feature"],
                    width=sizes["width"],
                    init_std=sizes["init_std"],
                    optimizer=TableOptimizer(semantics="rowwise_adagrad", lr=0.02),
                )
                for space in spaces
            )
        ),
        seed=0,
    )
    updater = TableUpdater(tables)
    columns = tables.columns(tuple(f"{space}.main" for space in spaces))
    modes = {}
    for kind, ids_SBF in given.ids_SBF.items():
        modes[f"step, {kind}"] = stepper(tables, updater, columns, cycle(ids_SBF.unbind()))
        modes[f"merge, {kind}"], modes[f"apply, {kind}"] = parts(tables, updater, columns, cycle(ids_SBF.unbind()))
        modes[f"forward, {kind}"] = Mode(forward(tables, columns, cycle(ids_SBF.unbind())))
    source, to = torch.ones(COPIED // 4), torch.empty(COPIED // 4)
    modes["copy"] = Mode(lambda: to.copy_(source))
    serve(modes, fullrank=fullrank.__version__)


def stepper(tables, updater, columns, following) -> Mode:
    waiting = []

    def before() -> None:
        x_BFD = tables.gather(columns, next(following))
        waiting[:] = [x_BFD, torch.randn_like(x_BFD)]

    def step() -> None:
        x_BFD, grad_BFD = waiting
        x_BFD.backward(grad_BFD)
        updater.step()

    return Mode(step, before)


def parts(tables, updater, columns, following) -> tuple[Mode, Mode]:
    """The two parts of a step, each alone."""

    def backward() -> None:
        x_BFD = tables.gather(columns, next(following))
        x_BFD.backward(torch.randn_like(x_BFD))

    def backward_and_merge() -> None:
        backward()
        updater.accumulate(updater.merge())

    return Mode(updater.merge, backward), Mode(updater.apply, backward_and_merge)


def forward(tables, columns, following):
    def step() -> torch.Tensor:
        with torch.no_grad():
            return tables.gather(columns, next(following))

    return step


if __name__ == "__main__":
    main()
