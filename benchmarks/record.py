"""Run a benchmark, keep what it printed.

    python benchmarks/record.py prepare_memory --threshold "ratio_to_first <= 1.2" -- \
        python benchmarks/prepare_memory.py --rows 1000000 10000000

Every line of the command's standard output that is a JSON object is a run. They are written to
`benchmarks/results/LABEL.json` with the command, the threshold, and what it ran on; `python benchmarks/render.py` then
makes docs/results.md of all of them. The benchmark itself decides and says whether it failed; its exit code is stored.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

from fullrank.config_json import encode
from fullrank.training.environment import environment

RESULTS = Path(__file__).resolve().parent / "results"
ROOT = RESULTS.parents[1]


def commit() -> str:
    """The commit of the checkout, with `+` behind it if tracked files differ from it."""
    told = subprocess.run(
        ["git", "describe", "--always", "--dirty=+", "--abbrev=12"], cwd=ROOT, capture_output=True, text=True
    )
    return told.stdout.strip() or "unknown"


def shown(word: str) -> str:
    """A word of the command; of a path that is this machine's own, the last part alone."""
    return f"…/{Path(word).name}" if Path(word).is_absolute() else word


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("label")
    parser.add_argument("--threshold", required=True)
    if "--" not in sys.argv:
        parser.error("expected the command behind a `--`")
    options, command = parser.parse_args(sys.argv[1 : sys.argv.index("--")]), sys.argv[sys.argv.index("--") + 1 :]
    runs = []
    with subprocess.Popen(
        [sys.executable, *command[1:]] if command[0] == "python" else command, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            if line.startswith("{"):
                runs.append(json.loads(line))
    stored = {
        "label": options.label,
        "threshold": options.threshold,
        "exit_code": process.returncode,
        "command": " ".join(shown(word) for word in command),
        "date": datetime.now(UTC).date().isoformat(),
        "commit": commit(),
        "environment": encode(environment()),
        "runs": runs,
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{options.label}.json").write_text(json.dumps(stored, indent=1) + "\n", encoding="utf-8")
    sys.exit(process.returncode)


if __name__ == "__main__":
    main()
