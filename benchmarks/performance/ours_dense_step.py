"""RankMixer's blocks in bf16 and float32: a step, its matrix products alone, and the product that is the peak.

A step is L blocks and the mean over tokens, from `[B, T, D]` to the gradients of it and of all parameters (float32).
Products alone: the six of a layer (two forward, two to activations, two to weights) by torch, each in several ways: one
batched product, a product a token, and batched products of blocks of rows. While there is no `ways.json` in the folder
each way is a mode of its own; after that, all products of a step in the ways it names are one, beside the steps.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from worker import Mode, serve

import fullrank
from fullrank.kernels.bodies import bodies
from fullrank.rankers.rankmixer_block import RankMixerBlock

TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
Call = Callable[[], object]


class Stack(nn.Module):
    """Blocks and the mean over tokens, `[B, T, D] -> [B, D]`."""

    def __init__(self, sizes: dict[str, Any]) -> None:
        super().__init__()
        shape = (sizes["tokens"], sizes["width"], sizes["expansion"])
        self.blocks = nn.Sequential(*(RankMixerBlock(*shape) for _ in range(sizes["layers"])))

    def forward(self, x_BTD: Tensor) -> Tensor:
        return self.blocks(x_BTD.transpose(0, 1)).mean(0)


def products(sizes: dict[str, Any], dtype: torch.dtype) -> dict[str, dict[str, Call]]:
    """Each product of a layer in every way in which it is tried."""
    T, B, D, H = sizes["tokens"], sizes["rows"], sizes["width"], sizes["width"] * sizes["expansion"]

    def random(*shape: int) -> Tensor:
        return torch.randn(shape).to(dtype)

    x_TBD, h_TBH, w1_TDH, w2_THD = random(T, B, D), random(T, B, H), random(T, D, H), random(T, H, D)
    operands = {
        "x W1": (x_TBD, w1_TDH),
        "h W2": (h_TBH, w2_THD),
        "dy W2'": (x_TBD, w2_THD.mT),
        "dh W1'": (h_TBH, w1_TDH.mT),
        "x' dh": (x_TBD.mT, h_TBH),
        "h' dy": (h_TBH.mT, x_TBD),
    }

    def tried(left: Tensor, right: Tensor) -> dict[str, Call]:
        out = torch.bmm(left, right)

        def by_token() -> None:
            for t in range(T):
                torch.mm(left[t], right[t], out=out[t])

        def in_blocks(rows: int) -> Call:
            def run() -> None:
                for start in range(0, B, rows):
                    out[:, start : start + rows] = torch.bmm(left[:, start : start + rows], right)

            return run

        ways: dict[str, Call] = {"batched": lambda: torch.bmm(left, right, out=out), "a product a token": by_token}
        if left.shape[1] == B:  # gradients of weights are summed over rows: no blocks
            ways |= {f"blocks of {rows} rows": in_blocks(rows) for rows in sizes["blocks"] if rows < B}
        return ways

    return {name: tried(*pair) for name, pair in operands.items()}


def steps(sizes: dict[str, Any]) -> dict[str, Mode]:
    """Ours, eager (torch's bodies), and torch.compile of that where there is a compiler; each of either dtype."""
    torch.manual_seed(0)
    stack = Stack(sizes)
    gradient_BD = torch.randn(sizes["rows"], sizes["width"])

    def step(module: Callable[[Tensor], Tensor], reference: bool, dtype: torch.dtype) -> Mode:
        bf16 = dtype == torch.bfloat16
        x_BTD = torch.randn(sizes["rows"], sizes["tokens"], sizes["width"]).to(dtype).requires_grad_()

        def run() -> None:
            x_BTD.grad = None
            stack.zero_grad(set_to_none=True)
            with bodies("reference" if reference else "auto"):
                with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                    y_BD = module(x_BTD)
                y_BD.backward(gradient_BD.to(y_BD.dtype))

        return Mode(run)

    made: dict[str, tuple[Callable[[Tensor], Tensor], bool]] = {"ours": (stack, False), "eager": (stack, True)}
    if sizes["compile"] and (shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")):
        made["torch.compile"] = (torch.compile(stack), True)
    return {f"{name} {of}": step(*made[name], dtype) for of, dtype in TYPES.items() for name in made}


def alone(sizes: dict[str, Any], dtype: torch.dtype, ways: dict[str, str]) -> Mode:
    """All products of a step one after another, each in its way."""
    every = products(sizes, dtype)
    chosen = [every[product][way] for product, way in ways.items()]

    def run() -> None:
        for _ in range(sizes["layers"]):
            for product in chosen:
                product()

    return Mode(run)


def peak(size: int) -> Mode:
    left, right = torch.randn(size, size).bfloat16(), torch.randn(size, size).bfloat16()
    return Mode(lambda: left @ right)


def main() -> None:
    folder = Path(sys.argv[1])
    sizes = json.loads((folder / "sizes.json").read_text())
    chosen = folder / "ways.json"
    if chosen.exists():
        ways = json.loads(chosen.read_text())
        modes = {"peak": peak(sizes["peak"]), **steps(sizes)}
        modes |= {f"products {of}": alone(sizes, dtype, ways[of]) for of, dtype in TYPES.items()}
    else:
        modes = {
            f"{of}, {product}, {way}": Mode(call)
            for of, dtype in TYPES.items()
            for product, tried in products(sizes, dtype).items()
            for way, call in tried.items()
        }
    serve(modes, fullrank=fullrank.__version__)


if __name__ == "__main__":
    main()
