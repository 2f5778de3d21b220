"""Processes that are timed in turns: each makes its things once, then waits until it is asked for some steps.

A process each, so that nobody runs with another's threads, allocator or settings, and each has a peak of memory of its
own. In turns, so that what else the machine does meets everybody alike.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
import venv
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
PEERS = HERE.parent / "peers"
ENVIRONMENTS = {
    # Without aiohttp, threads of Ray (of FuxiCTR's loaders) trip over each other's failing imports of it.
    "libraries": ("fuxictr==2.3.10", "torch-rechub==0.9.0", "torch<2.14", "aiohttp"),
    "fbgemm": ("torch==2.13.*", "fbgemm-gpu-cpu==1.8.0", "numpy"),
}


class Contender:
    """A script of `benchmarks/peers/` (see `worker.py`) or `benchmarks/performance/`, running."""

    def __init__(self, script: Path, folder: Path, threads: int, python: Path | str, modes: Sequence[str]) -> None:
        environment = {
            **os.environ,
            "PYTHONPATH": str(PEERS),
            "OMP_NUM_THREADS": str(threads),
            "MKL_NUM_THREADS": str(threads),
        }
        self.name = script.stem
        self._process = subprocess.Popen(
            [str(python), str(script), str(folder), *modes],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        first = self._answer()
        self.modes: list[str] = first["modes"]
        self.versions: dict[str, str] = {**first["versions"], **first["about"]}
        self.peak_mib = 0.0
        self.others: list[float] = []  # the share of all cores that other processes took, of each turn

    @property
    def pid(self) -> int:
        return self._process.pid

    def seconds(self, mode: str, steps: int, warm: int) -> list[float]:
        """The seconds of each of `steps` steps, after `warm` that do not count."""
        begun, busy, own = time.perf_counter(), _busy(), _busy(self._process.pid)
        answer = self._asked(mode=mode, steps=steps, warm=warm)
        took = (time.perf_counter() - begun) * (os.cpu_count() or 1)
        self.others.append(max(0.0, (_busy() - busy) - (_busy(self._process.pid) - own)) / took)
        self.peak_mib = answer["peak_mib"]
        return answer["seconds"]

    def profile(self, mode: str, steps: int) -> list[dict[str, Any]]:
        """Where a step's time goes, by torch's profiler."""
        return self._asked(mode=mode, steps=steps, profile=True)["profile"]

    def close(self) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()

    def __enter__(self) -> Contender:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _asked(self, **words: Any) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(words) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.name} ended with code {self._process.wait()}; what it said stands above.")
        return json.loads(line)


def _busy(pid: int | None = None) -> float:
    """Seconds that the processors worked so far: for everybody, or for a process (0 where Linux does not tell)."""
    table = Path("/proc/stat" if pid is None else f"/proc/{pid}/stat")
    if not table.exists():
        return 0.0
    text = table.read_text()
    if pid is None:
        user, nice, system, _, _, interrupts, soft, steal = (int(word) for word in text.split()[1:9])
        ticks = user + nice + system + interrupts + soft + steal
    else:
        ticks = sum(int(word) for word in text.rpartition(")")[2].split()[11:13])
    return ticks / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, kw_only=True)
class Turns:
    """`rounds` times, everybody in turn does `warm` steps that do not count (its caches were another's) and `steps`."""

    rounds: int = 8
    steps: int = 3
    warm: int = 1


@dataclass
class Timed:
    """A mode of a contender, and the seconds of its steps."""

    contender: Contender
    mode: str
    seconds: list[float] = field(default_factory=list)

    @property
    def others(self) -> float:
        """The share of all cores that other processes took in a turn of this contender, the median: 0 is a quiet
        machine."""
        return statistics.median(self.contender.others)


def in_turns(timed: Sequence[Timed], turns: Turns) -> None:
    """Fill in the seconds. The first round is a warm-up."""
    for number in range(turns.rounds + 1):
        one_round(timed, turns, counts=number > 0)


def one_round(timed: Sequence[Timed], turns: Turns, counts: bool) -> None:
    """Everybody's turn, once."""
    for each in timed:
        time.sleep(0.02)  # the threads of the one before may still be waiting for work
        seconds = each.contender.seconds(each.mode, turns.steps, turns.warm)
        each.seconds += seconds if counts else []


def ours(script: str, folder: Path, threads: int, modes: Sequence[str] = ()) -> Contender:
    return Contender(HERE / f"{script}.py", folder, threads, sys.executable, modes)


def peer(
    script: str, folder: Path, threads: int, *, python: Path | str = sys.executable, modes: Sequence[str] = ()
) -> Contender:
    return Contender(PEERS / f"{script}.py", folder, threads, python, modes)


def python_of(environment: str, folder: Path) -> Path:
    """The interpreter of a virtual environment of `folder`, which is made if it is not there."""
    python = folder / environment / "bin" / "python"
    if not python.exists():
        print(f"making the environment {environment!r} of peers", file=sys.stderr)
        venv.create(folder / environment, with_pip=True)
        install = [python, "-m", "pip", "install", "--quiet", *ENVIRONMENTS[environment]]
        subprocess.run(install, check=True, stdout=sys.stderr)
    return python
