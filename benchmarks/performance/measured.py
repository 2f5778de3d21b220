"""What a figure is, what it was measured on, and how it is kept: `benchmarks/results/performance/NAME.json`."""

from __future__ import annotations

import json
import os
import platform
import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from contenders import Timed

BENCHMARKS = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(BENCHMARKS))

from record import commit, shown  # noqa: E402  # beside the folder of this file

from fullrank.training.environment import environment  # noqa: E402

RESULTS = BENCHMARKS / "results" / "performance"
Unit = Literal["ms", "s", "rows/s", "GFLOP/s"]
RATES = ("rows/s", "GFLOP/s")  # more is better


@dataclass(frozen=True, kw_only=True)
class Run:
    """Some steps of one contender: the median, the least and the most of n; its process's peak of memory; and the share
    of all cores that other processes took meanwhile."""

    median: float
    low: float
    high: float
    n: int
    peak_mib: float | None = None
    others: float | None = None


def in_ms(timed: Timed) -> Run:
    return _run([1e3 * each for each in timed.seconds], timed)


def per_second(rows: int, timed: Timed) -> Run:
    return _run([rows / each for each in timed.seconds], timed)


def run_of(values: Sequence[float], peak_mib: float | None = None, others: float | None = None) -> Run:
    """Of values in the unit of their figure; a single one may be a limit that something is held against."""
    median, low, high = (rounded(value) for value in (statistics.median(values), min(values), max(values)))
    return Run(median=median, low=low, high=high, n=len(values), peak_mib=peak_mib, others=others)


def rounded(value: float) -> float:
    """To four digits: what is kept of a measurement."""
    return float(f"{value:.4g}")


def _run(values: list[float], timed: Timed) -> Run:
    return run_of(values, round(timed.contender.peak_mib), round(timed.others, 2))


@dataclass(frozen=True, kw_only=True)
class Figure:
    """Ours beside theirs. `ratio`, of medians, says how many times better ours is (or, where `at_most`, how many times
    theirs ours costs); it meets the target or it does not: a target that is missed stays as it is."""

    label: str
    unit: Unit  # at_most: not of rates
    ours: Run
    theirs: Run
    target: float
    at_most: bool = False
    others: dict[str, Run] | None = None
    note: str = ""
    versions: dict[str, str] | None = None

    @property
    def ratio(self) -> float:
        over = self.unit in RATES or self.at_most
        above, below = (self.ours, self.theirs) if over else (self.theirs, self.ours)
        return float(f"{above.median / below.median:.3g}")

    @property
    def ratio_of_best(self) -> float:
        """The same of the fastest steps: what a noisy machine changes least."""
        if self.unit not in RATES:
            above, below = (self.ours.low, self.theirs.low) if self.at_most else (self.theirs.low, self.ours.low)
        else:
            above, below = self.ours.high, self.theirs.high
        return float(f"{above / below:.3g}")

    @property
    def threshold(self) -> str:
        return f"{'<=' if self.at_most else '>='} {self.target:g}"

    @property
    def ok(self) -> bool:
        return self.ratio <= self.target if self.at_most else self.ratio >= self.target

    def stored(self, command: str) -> dict[str, Any]:
        return {
            "label": self.label,
            "unit": self.unit,
            "ours": self.ours.median,
            "theirs": self.theirs.median,
            "ratio": self.ratio,
            "ratio_of_best": self.ratio_of_best,
            "threshold": self.threshold,
            "ok": self.ok,
            "note": self.note,
            "runs": {
                name: asdict(run)
                for name, run in {"ours": self.ours, "theirs": self.theirs, **(self.others or {})}.items()
            },
            "versions": self.versions or {},
            "command": command,
            "date": datetime.now(UTC).date().isoformat(),
            "commit": commit(),
        }


@dataclass(frozen=True, kw_only=True)
class Check:
    """A number that is good or not, and no speed: it meets its target, at most that (or, with `at_least`, at least)."""

    label: str
    value: float
    target: float
    at_least: bool = False
    note: str = ""

    @property
    def ok(self) -> bool:
        return self.value >= self.target if self.at_least else self.value <= self.target

    def stored(self, command: str) -> dict[str, Any]:
        return {
            "label": self.label,
            "value": rounded(self.value),
            "threshold": f"{'>=' if self.at_least else '<='} {self.target:g}",
            "ok": self.ok,
            "note": self.note,
            "command": command,
            "date": datetime.now(UTC).date().isoformat(),
            "commit": commit(),
        }


def machine(threads: int) -> dict[str, Any]:
    """What it ran on. `load`: of the last minute, before anything was timed; above the threads of others it is not a
    quiet machine."""
    here = environment()
    pages = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    return {
        "cpu": here.cpu,
        "cores": here.cores,
        "flags": _vector_flags(),
        "threads": threads,
        "memory_gib": round(_memory_kib("MemTotal") / 2**20),
        "huge_pages": pages.read_text().partition("[")[2].partition("]")[0] if pages.exists() else "unknown",
        "load": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "torch": here.torch,
        "numpy": here.numpy,
        "fullrank": here.fullrank,
        "system": platform.system(),
    }


def free_mib() -> float:
    """Memory that could be had now."""
    return _memory_kib("MemAvailable") / 1024


def command() -> str:
    """The command line, without paths of this machine."""
    script = f"benchmarks/performance/{Path(sys.argv[0]).name}"
    return " ".join(["python", script, *(shown(word) for word in sys.argv[1:])])


def keep(
    name: str,
    figures: Sequence[Figure],
    on: dict[str, Any],
    out: Path = RESULTS,
    *,
    checks: Sequence[Check] = (),
    tables: dict[str, list[dict[str, Any]]] | None = None,
    **beside: Any,
) -> Path:
    """Write figures, checks, tables (by their captions, rows of one table alike) and what is `beside` them; those of
    other labels and captions that are there already stay."""
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"{name}.json"
    there = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"label": name, "figures": []}
    for kind, found in (("figures", figures), ("checks", checks)):
        new = {one.label: one.stored(command()) | {"machine": on} for one in found}
        kept = [new.pop(one["label"], one) for one in there.get(kind, [])]
        if kept or new or kind == "figures":
            there[kind] = [*kept, *new.values()]
    if tables:
        there["tables"] = there.get("tables", {}) | tables
    path.write_text(json.dumps(there | beside, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    for one in (*figures, *checks):
        print(json.dumps(one.stored(command()), ensure_ascii=False), flush=True)
    return path


def _vector_flags() -> str:
    table = Path("/proc/cpuinfo")
    if not table.exists():
        return ""
    line = next((line for line in table.read_text().splitlines() if line.startswith("flags")), "")
    return " ".join(sorted(flag for flag in line.split() if flag.startswith(("avx", "amx", "fma"))))


def _memory_kib(name: str) -> int:
    table = Path("/proc/meminfo")
    if not table.exists():
        return 0
    line = next(line for line in table.read_text().splitlines() if line.startswith(name))
    return int(line.split()[1])
