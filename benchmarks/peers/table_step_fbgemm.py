"""The table step of fbgemm: backward, into which its exact row-wise Adagrad is fused; and its forward."""

from __future__ import annotations

from itertools import cycle

import torch
from fbgemm_tables import VERSION, by_feature, tables
from worker import Mode, serve, work


def main() -> None:
    given = work()
    found = tables(given.sizes)
    modes = {}
    for kind, ids_SBF in given.ids_SBF.items():
        batches = [by_feature(ids_BF) for ids_BF in ids_SBF]
        modes[f"step, {kind}"] = stepper(found, cycle(batches))
        modes[f"forward, {kind}"] = Mode(forward(found, cycle(batches)))
    serve(modes, fbgemm=VERSION)


def stepper(found, following) -> Mode:
    waiting = []

    def before() -> None:
        x = found(*next(following))
        waiting[:] = [x, torch.randn_like(x)]

    def step() -> None:
        x, grad = waiting
        x.backward(grad)

    return Mode(step, before)


def forward(found, following):
    def step() -> torch.Tensor:
        with torch.no_grad():
            return found(*next(following))

    return step


if __name__ == "__main__":
    main()
