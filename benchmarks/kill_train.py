"""Kill training (SIGKILL) at random moments, resume, and compare every bit with a run that nothing happened to.

    python benchmarks/kill_train.py [--kills 20] [--seed N]

Prints one JSON object a kill: the seed, the kind of moment and when, how many steps had been logged, and the step of
the checkpoint the resume began at. Ends with exit code 1 if any resumed run differs. The tiny world of the tests is
what is trained: two tasks, three table semantics, dropout, batch statistics, accumulation and clipping.
"""

from __future__ import annotations

import argparse
import json
import random
import secrets
import signal
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "training"))

from kill_world import MICRO_BATCHES, Moment, child, logged_steps, saved_step
from tiny_world import all_tensors, assert_same_bits, lines_of

from fullrank.training.run import Run

SYNCS = 40  # about as many fsync calls as a whole run makes; a kill later than the last one does not happen


def drawn(draw: random.Random, seconds: float) -> Moment:
    kind = draw.choice(["micro-batch", "micro-batch", "fsync", "validation", "wall"])
    if kind == "wall":
        return Moment("wall", round(draw.uniform(0, seconds), 4))
    last = {"micro-batch": MICRO_BATCHES, "fsync": SYNCS, "validation": 5}[kind]
    return Moment(kind, draw.randint(1, last))


def differs(undisturbed: Run, resumed: Run) -> str:
    """In what a resumed run differs from an undisturbed one; empty if in nothing."""
    try:
        assert_same_bits(all_tensors(undisturbed), all_tensors(resumed))
    except AssertionError as error:
        return f"tensors {error}"
    return "" if lines_of(undisturbed) == lines_of(resumed) else "metrics.jsonl"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=secrets.randbits(32))
    args = parser.parse_args()
    draw, failed, kills, number = random.Random(args.seed), 0, 0, 0
    with tempfile.TemporaryDirectory() as folder:
        code, seconds = child(Path(folder) / "undisturbed")
        assert code == 0
        undisturbed = Run.open(Path(folder) / "undisturbed")
        while kills < args.kills:
            number += 1
            path, moment = Path(folder) / str(number), drawn(draw, seconds)
            code, _ = child(path, moment)
            line = {"seed": args.seed, "moment": moment.kind, "at": moment.at, "killed": code == -signal.SIGKILL}
            line |= {"steps_logged": logged_steps(path), "resumed_from_step": saved_step(path)}
            kills += line["killed"]
            line["resume_exit"], _ = child(path)
            line["differs"] = differs(undisturbed, Run.open(path)) if line["resume_exit"] == 0 else "did not resume"
            failed += bool(line["differs"])
            print(json.dumps(line), flush=True)
    print(json.dumps({"seed": args.seed, "kills": kills, "failed": failed}))
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
