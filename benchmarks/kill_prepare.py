"""Kill preparing at random moments and look at what is left.

    python benchmarks/kill_prepare.py --kills 20 --seed 7

A process prepares two days of a simulated log into a folder, day 2 by appending. It is killed (SIGKILL) at a moment
drawn from the seed. The folder must then be as before the day or as after it, and the same call must bring it to bytes
equal to an undisturbed run. Prints one line of JSON a kill: seed, moment, day, step, bytes written; exits 1 at a
difference.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path


def prepare_day(folder: Path, day: int, rows: int, *, say_ready: bool = False) -> None:
    """Prepare one day in this process."""
    from fullrank.data.prepare import prepare
    from fullrank.data.simulate import SimulatedLog, SimulatorConfig
    from fullrank.data.splits import ByTime

    log = SimulatedLog(SimulatorConfig(rows=rows, days=2, users=500, ads=400, campaigns=20)).day(day)
    if say_ready:
        print("ready", flush=True)
    prepare(log, folder, split=None if day else ByTime(), append=day > 0)


def run(folder: Path, day: int, rows: int, moment: float | None = None) -> tuple[float, bool]:
    """Prepare one day in a process, killed `moment` seconds after it began; how long it ran, and whether it ended."""
    command = [sys.executable, __file__, "--here", str(folder), "--day", str(day), "--rows", str(rows)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None and child.stdout.readline() == "ready\n"
        started = time.perf_counter()
        try:
            code = child.wait(timeout=moment)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
            return time.perf_counter() - started, False
    if code != 0:
        raise RuntimeError(f"Expected day {day} to be prepared into {folder}, the process ended with {code}.")
    return time.perf_counter() - started, True


def fingerprint(folder: Path) -> dict[str, str]:
    """Every file but the lock, by the hash of its bytes."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != ".fullrank.lock")
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files
    }


def step_of(folder: Path) -> str:
    """How far it had come, from the files that are there."""
    work = folder / ".work"
    if not work.is_dir():
        return "between"
    there = {path.name for path in work.iterdir()}
    if any((folder / "partitions").rglob("rows.arrow")) and "first.npy" in there:
        return "encode or commit"
    if "split.npy" in there:
        return "fit"
    return "group" if "buckets.npy" in there else "read"


def kills(count: int, seed: int, rows: int, folder: Path) -> Iterator[dict[str, object]]:
    """Kill `count` times; each result says what was found, `sound` whether it was as it must be."""
    from fullrank.data.columns import DataError
    from fullrank.data.manifest import NotPrepared
    from fullrank.data.partitions import PreparedData

    good = folder / "good"
    states, seconds = [{}], []
    for day in (0, 1):
        seconds.append(run(good, day, rows)[0])
        states.append(fingerprint(good))
        shutil.copytree(good, folder / f"after-{day}")
    draw = random.Random(seed)
    for number in range(count):
        day, target = number % 2, folder / f"kill-{number}"
        if day:
            shutil.copytree(folder / "after-0", target)
        moment = draw.uniform(0.0, 1.1 * seconds[day])
        ran, ended = run(target, day, rows, moment)
        step, size = step_of(target), sum(p.stat().st_size for p in target.rglob("*") if p.is_file())
        try:
            found = len(PreparedData.open(target).partitions)
        except NotPrepared:
            found = 0
        except DataError as error:
            found, step = -1, f"{step}: {error}"
        whole = found in (day, day + 1) and (not ended or found == day + 1)
        prepare_day(target, day, rows)
        equal = fingerprint(target) == states[day + 1]
        shutil.rmtree(target)
        yield {
            "seed": seed,
            "kill": number,
            "day": day,
            "moment_s": round(moment, 4),
            "ran_s": round(ran, 4),
            "ended": ended,
            "step": step,
            "bytes": size,
            "partitions_found": found,
            "sound": whole and equal,
        }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=None, help="drawn and printed if not given")
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument(
        "--here", type=Path, help=argparse.SUPPRESS
    )  # prepare in this process, into this folder
    parser.add_argument("--day", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.here:
        prepare_day(options.here, options.day, options.rows, say_ready=True)
        return
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(2**31)
    sound = True
    with tempfile.TemporaryDirectory() as name:
        for result in kills(options.kills, seed, options.rows, Path(name)):
            print(json.dumps(result), flush=True)
            sound = sound and bool(result["sound"])
    sys.exit(0 if sound else 1)


if __name__ == "__main__":
    main()
