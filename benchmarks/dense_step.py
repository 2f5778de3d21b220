"""RankMixer's blocks, forward and backward in bf16, beside the matrix products they are made of.

    python benchmarks/dense_step.py [--rows 512 2048] [--seconds 8] [--threads 2] [--compile] [--profile FILE]

A step is L blocks and the mean over tokens, from `[B, T, D]` in bf16 to the gradients of it and of all parameters
(float32). Ours is a `RankMixerBlock` under autocast; eager is the same with torch's bodies, and torch.compile of that
with `--compile`, if a C++ compiler is there. Products alone: the six of a layer (two forward, two to activations, two
to weights) by torch, each in its fastest way among one batched product, a product a token, and batched products of
blocks of rows. Steps, products and the peak take turns and the fastest turn of each counts, so that another job on the
machine meets all of them alike.

FLOPs of a step: 3 · 4 k L T D² a row, k the expansion. MFU is FLOPs a second over the peak: the best of 5 products of
4096 x 4096 in bf16 by torch, in the same process and between the turns. It can be above 1: torch's product is no
bound on the tile unit. One JSON line for each figure; `--profile` writes torch.profiler's table of both steps.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from fullrank.kernels.bodies import bodies
from fullrank.kernels.tokens_bf16 import runs_on_tiles
from fullrank.rankers.rankmixer import RankMixerBlock

PEAK = 4096
BLOCKS = (128, 256, 512)  # rows
Work = Callable[[], object]


@dataclass(frozen=True, kw_only=True)
class Sizes:
    rows: int
    tokens: int = 16
    width: int = 256
    layers: int = 2
    expansion: int = 2

    @property
    def flops(self) -> int:
        """Of a step."""
        return 3 * 4 * self.expansion * self.layers * self.tokens * self.width**2 * self.rows


class Stack(nn.Module):
    """Blocks and the mean over tokens, `[B, T, D] -> [B, D]`."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        shape = (sizes.tokens, sizes.width, sizes.expansion)
        self.blocks = nn.Sequential(*(RankMixerBlock(*shape) for _ in range(sizes.layers)))

    def forward(self, x_BTD: Tensor) -> Tensor:
        return self.blocks(x_BTD.transpose(0, 1)).mean(0)


def products(sizes: Sizes) -> dict[str, dict[str, Work]]:
    """Each product of a layer in every way in which it is tried."""
    T, B, D, H = sizes.tokens, sizes.rows, sizes.width, sizes.width * sizes.expansion

    def random(*shape: int) -> Tensor:
        return torch.randn(shape).bfloat16()

    x_TBD, h_TBH, w1_TDH, w2_THD = random(T, B, D), random(T, B, H), random(T, D, H), random(T, H, D)
    operands = {
        "x W1": (x_TBD, w1_TDH),
        "h W2": (h_TBH, w2_THD),
        "dy W2'": (x_TBD, w2_THD.mT),
        "dh W1'": (h_TBH, w1_TDH.mT),
        "x' dh": (x_TBD.mT, h_TBH),
        "h' dy": (h_TBH.mT, x_TBD),
    }

    def tried(left: Tensor, right: Tensor) -> dict[str, Work]:
        out = torch.bmm(left, right)

        def by_token() -> None:
            for t in range(T):
                torch.mm(left[t], right[t], out=out[t])

        def in_blocks(rows: int) -> Work:
            def run() -> None:
                for start in range(0, B, rows):
                    out[:, start : start + rows] = torch.bmm(left[:, start : start + rows], right)

            return run

        ways: dict[str, Work] = {"batched": lambda: torch.bmm(left, right, out=out), "a product a token": by_token}
        if left.shape[1] == B:  # gradients of weights are summed over rows: no blocks
            ways |= {f"blocks of {rows} rows": in_blocks(rows) for rows in BLOCKS if rows < B}
        return ways

    return {name: tried(*pair) for name, pair in operands.items()}


def steps(sizes: Sizes, compile_: bool) -> dict[str, Work]:
    torch.manual_seed(0)
    stack = Stack(sizes)
    x_BTD = torch.randn(sizes.rows, sizes.tokens, sizes.width).bfloat16().requires_grad_()
    gradient_BD = torch.randn(sizes.rows, sizes.width).bfloat16()

    def step(module: Callable[[Tensor], Tensor], which: str) -> Work:
        def run() -> None:
            x_BTD.grad = None
            stack.zero_grad(set_to_none=True)
            with bodies("reference" if which == "reference" else "auto"):
                with torch.autocast("cpu", torch.bfloat16):
                    y_BD = module(x_BTD)
                y_BD.backward(gradient_BD)

        return run

    works = {"eager": step(stack, "reference")}
    first = stack.blocks[0]
    assert isinstance(first, RankMixerBlock)
    if runs_on_tiles(x_BTD.transpose(0, 1), first.ffn.weight1_TDH):
        works = {"ours": step(stack, "auto"), **works}
    if compile_:
        works["torch.compile"] = step(torch.compile(stack), "reference")
    return works


def fastest(works: dict[str, Work], seconds: float) -> dict[str, float]:
    """Seconds of each, the least of all turns."""
    for work in works.values():
        work()
    least = dict.fromkeys(works, float("inf"))
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        for name, work in works.items():
            begin = time.perf_counter()
            work()
            least[name] = min(least[name], time.perf_counter() - begin)
    return least


def measure(sizes: Sizes, seconds: float, compile_: bool) -> None:
    """Prints a JSON line for the products and one for every step."""
    left, right = torch.randn(PEAK, PEAK).bfloat16(), torch.randn(PEAK, PEAK).bfloat16()
    best: dict[str, tuple[float, str, Work]] = {}
    for name, ways in products(sizes).items():
        found = fastest(ways, seconds / 20)
        way = min(ways, key=found.__getitem__)
        best[name] = found[way], way, ways[way]

    def alone() -> None:
        for _ in range(sizes.layers):
            for _, _, work in best.values():
                work()

    works = {"products alone": alone, **steps(sizes, compile_)}
    least, peak_seconds = dict.fromkeys(works, float("inf")), float("inf")
    for _ in range(5):
        peak_seconds = min(peak_seconds, fastest({"peak": lambda: left @ right}, 0.0001)["peak"])
        found = fastest(works, seconds / 7)
        least = {name: min(least[name], found[name]) for name in works}
    peak = 2 * PEAK**3 / peak_seconds
    shape = {"rows": sizes.rows, "tokens": sizes.tokens, "width": sizes.width, "layers": sizes.layers}
    shape |= {"expansion": sizes.expansion, "threads": torch.get_num_threads()}
    ways = {name: f"{1e3 * value:.2f} ms, {way}" for name, (value, way, _) in best.items()}
    for name, value in least.items():
        show(shape, what=name, seconds=value, flops=sizes.flops, peak=peak, of_products=value / least["products alone"])
    print(json.dumps({"what": "products of a layer", **shape, **ways}), flush=True)


def show(shape: dict[str, int], *, what: str, seconds: float, flops: int, peak: float, **more: object) -> None:
    line = {"what": what, **shape, "ms": round(1e3 * seconds, 2), "gflops": round(flops / seconds / 1e9)}
    line |= {"peak_gflops": round(peak / 1e9), "mfu": round(flops / seconds / peak, 3)}
    line |= {name: round(value, 3) if isinstance(value, float) else value for name, value in more.items()}
    print(json.dumps(line), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[512, 2048])
    parser.add_argument("--seconds", type=float, default=8.0, help="of turns, for each number of rows")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--compile", action="store_true", help="time torch.compile too")
    parser.add_argument("--profile", type=Path, help="write a table of where the time goes")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    compiler = shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")
    if options.compile and not compiler:
        print(json.dumps({"what": "torch.compile", "skipped": "no C++ compiler on the path"}))
    for rows in options.rows:
        measure(Sizes(rows=rows), options.seconds, options.compile and bool(compiler))
    if options.profile:
        tables = []
        for name, work in steps(Sizes(rows=options.rows[-1]), False).items():
            work()
            with profile(activities=[ProfilerActivity.CPU]) as found:
                work()
            table = found.key_averages().table(sort_by="self_cpu_time_total", row_limit=15)
            tables.append(f"{name}, {options.rows[-1]} rows\n{table}")
        options.profile.write_text("\n".join(tables))


if __name__ == "__main__":
    main()
