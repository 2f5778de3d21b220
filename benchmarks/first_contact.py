"""How long the first things take: importing, `fullrank --help`, and `fullrank demo --quick`, each in a fresh process.

    python benchmarks/first_contact.py [--times 3]

Prints one line of JSON a thing and time. Importing is given beyond torch's own import. The demo prepares, trains and
evaluates from nothing but the data set, which is obtained beforehand (its download is not counted).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def seconds(*command: str) -> float:
    begun = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - begun


def python(code: str) -> float:
    return seconds(sys.executable, "-c", code)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=3)
    parser.add_argument("--without-demo", action="store_true")
    options = parser.parse_args()
    fullrank = str(Path(sys.executable).with_name("fullrank"))
    python("import torch, fullrank.recipes.train")  # bytecode and disk cache are warm from here on
    failed = False

    def report(what: str, value: float, limit: float) -> None:
        nonlocal failed
        failed |= value > limit
        print(json.dumps({"what": what, "seconds": round(value, 3), "limit": limit}), flush=True)

    for _ in range(options.times):
        torch = python("import torch")
        report("import fullrank and its training, beyond torch", python("import fullrank.recipes.train") - torch, 1.5)
        report("import fullrank", python("import fullrank") - python("pass"), 1.5)
        report("fullrank --help", seconds(fullrank, "--help"), 0.5)
    if not options.without_demo:
        seconds(fullrank, "data", "get", "movielens-100k")
        for _ in range(options.times):
            with tempfile.TemporaryDirectory() as folder:
                report("fullrank demo --quick", seconds(fullrank, "demo", "--quick", "--out", folder), 60.0)
    sys.exit(failed)


if __name__ == "__main__":
    main()
