"""The k best of many items for a block of queries: `kernels.top_k`, or torch's matmul and topk, as the mode says.

Writes the scores it finds beside the sizes, to be compared.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from worker import Mode, serve

import fullrank
from fullrank.kernels.bodies import bodies
from fullrank.kernels.top_k import top_k


def main() -> None:
    folder, which = Path(sys.argv[1]), sys.argv[2]
    sizes = json.loads((folder / "sizes.json").read_text())
    random = torch.Generator().manual_seed(0)
    queries_QD, items_ND = (
        torch.randn(num, sizes["width"], generator=random) for num in (sizes["queries"], sizes["items"])
    )

    def ours() -> tuple[Tensor, Tensor]:
        with bodies("compiled"):
            return top_k(queries_QD, items_ND, sizes["k"])

    def theirs() -> tuple[Tensor, Tensor]:
        scores_Qk, items_Qk = torch.topk(torch.matmul(queries_QD, items_ND.T), sizes["k"])
        return scores_Qk, items_Qk

    work = {"ours": ours, "torch": theirs}[which]
    np.save(folder / f"scores.{which}.npy", work()[0].numpy())
    serve({which: Mode(work)}, fullrank=fullrank.__version__)


if __name__ == "__main__":
    main()
