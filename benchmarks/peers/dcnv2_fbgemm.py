"""DCNv2 in plain torch on top of fbgemm's tables: `SplitTableBatchedEmbeddingBagsCodegen`, one table a feature, bags of
one id, exact row-wise Adagrad fused into backward. Dense weights: torch's fused Adam.
"""

from __future__ import annotations

from itertools import cycle

import torch
from dcnv2_dense import Dense, loss_of
from fbgemm_tables import VERSION, by_feature, tables
from worker import Mode, serve, work


def main() -> None:
    given = work()
    sizes = given.sizes
    found, dense = tables(sizes), Dense(sizes)
    adam = torch.optim.Adam(dense.parameters(), lr=sizes["lr"], fused=True)
    batches = [
        (*by_feature(ids_BF), label) for ids_BF, label in zip(given.ids_SBF["zipf"], given.labels_SB, strict=True)
    ]

    def stepper(bf16: bool):
        following = cycle(batches)

        def step() -> None:
            ids, offsets, label = next(following)
            loss = loss_of(dense, found(ids, offsets), label, bf16)
            loss.backward()
            adam.step()
            adam.zero_grad()
            loss.item()

        return step

    serve({"fp32": Mode(stepper(False)), "bf16": Mode(stepper(True))}, fbgemm=VERSION)


if __name__ == "__main__":
    main()
