"""The k best of many items for a block of queries: `kernels.top_k` beside `torch.matmul` and `topk`.

    python benchmarks/top_k.py --queries 64 --items 1000000 --width 64 --k 100 --threads 1

Both run in turns in one process, and the least seconds of each count; on one thread those of the thread itself, into
which other jobs of the machine do not enter but by the caches they share. `bytes_between` is what is held between the
products and the answer. Fails where ours is not faster, or where an answer differs in a score.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor

from fullrank.kernels.bodies import bodies
from fullrank.kernels.cpu.top_k import BLOCK
from fullrank.kernels.top_k import top_k


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("queries", 64), ("items", 1_000_000), ("width", 64), ("k", 100), ("threads", 1)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--times", type=int, default=7)
    told = parser.parse_args()
    torch.set_num_threads(told.threads)
    random = torch.Generator().manual_seed(0)
    queries_QD, items_ND = (torch.randn(num, told.width, generator=random) for num in (told.queries, told.items))
    clock = time.thread_time if told.threads == 1 else time.perf_counter

    def ours() -> tuple[Tensor, Tensor]:
        with bodies("compiled"):
            return top_k(queries_QD, items_ND, told.k)

    def theirs() -> tuple[Tensor, Tensor]:
        scores_Qk, items_Qk = torch.topk(torch.matmul(queries_QD, items_ND.T), told.k)
        return scores_Qk, items_Qk

    with bodies("compiled"):
        top_k(queries_QD, items_ND[: told.k], told.k)  # compiles
    ways: dict[str, Callable[[], tuple[Tensor, Tensor]]] = {"ours": ours, "matmul_topk": theirs}
    seconds, found = dict.fromkeys(ways, float("inf")), {}
    for _ in range(told.times):
        for name, way in ways.items():
            start = clock()
            found[name] = way()
            seconds[name] = min(seconds[name], clock() - start)
    difference = float((found["ours"][0] - found["matmul_topk"][0]).abs().max())
    scores = told.queries * told.items * 4
    run = {
        **{name: getattr(told, name) for name in ("queries", "items", "width", "k", "threads")},
        "seconds": {name: round(value, 4) for name, value in seconds.items()},
        "ratio": round(seconds["matmul_topk"] / seconds["ours"], 2),
        "bytes_between": {"ours": min(scores, 4 * BLOCK), "matmul_topk": scores},
        "largest_difference": difference,
    }
    print(json.dumps(run), flush=True)
    sys.exit(difference > 1e-4 or run["ratio"] <= 1)


if __name__ == "__main__":
    main()
