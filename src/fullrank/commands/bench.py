"""`fullrank bench [NAMES]`."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import tyro

import fullrank
from fullrank.commands.arguments import OptionalPath

SUITE = Path("benchmarks", "performance", "suite.py")


class NoCheckout(RuntimeError):
    """The benchmarks are not here."""


def main(args: Sequence[str], prog: str) -> int:
    return tyro.cli(bench, prog=prog, args=list(args), config=(tyro.conf.FlagCreatePairsOff,))


def bench(
    names: tyro.conf.Positional[tuple[str, ...]] = (),
    quick: bool = False,
    peers: OptionalPath = None,
    out: OptionalPath = None,
) -> int:
    """Time this machine: the table step, training, loading, preparing, beside what others use. Needs a checkout.

    Peers are installed into virtual environments of their own, which takes a network. Stop what else the machine does:
    another job on the same cores makes every figure worthless. Exit code 1 where a target is missed.

    Args:
        names: table_step, dcnv2_training, time_to_auc, table_growth, beyond_memory (which wants the right to limit a
            process's memory, or a disk), din, loader, prepare, dense_step, scoring, top_k, streams, backbones,
            same_quality (which wants Frappe and MovieLens-1M, as `fullrank data get` finds them), curves; all of them
            if none.
        quick: a small form of each, without peers; its figures mean nothing and are not kept.
        peers: where the peers' environments are, or are made; a folder that is removed at the end if none.
        out: where the JSON files go; `benchmarks/results/performance` of the checkout if none, which is then also
            rendered into docs/performance.md.
    """
    words = [*names, *(["--quick"] if quick else [])]
    for option, value in (("--peers", peers), ("--out", out)):
        words += [option, str(value.absolute())] if value is not None else []
    return subprocess.run([sys.executable, str(find_suite()), *words]).returncode


def find_suite() -> Path:
    """The suite of the checkout that this package is part of, or that is the working folder."""
    for folder in (Path(fullrank.__file__).resolve().parents[2], Path.cwd()):
        if (folder / SUITE).is_file():
            return folder / SUITE
    raise NoCheckout(
        f"Expected a checkout with {SUITE}, found none: an installed package does not hold the benchmarks. "
        "Clone the repository, `pip install -e .` there, and run `fullrank bench` again."
    )
