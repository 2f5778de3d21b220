"""Every performance benchmark, one after another; then a table, and docs/performance.md.

python benchmarks/performance/suite.py [NAMES] [--peers FOLDER] [--out FOLDER] [--quick]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

import render  # noqa: E402  # beside the folder of this file

NAMES = (
    "table_step", "dcnv2_training", "time_to_auc", "table_growth", "beyond_memory", "din", "loader", "prepare",
    "dense_step", "scoring", "top_k", "streams", "backbones", "same_quality", "curves",
)  # fmt: skip
WITH_PEERS = {  # and without
    "table_step": ["--without-peers"],
    "dcnv2_training": ["--against", "by-hand"],
    "time_to_auc": ["--against", "by-hand"],
    "din": ["--without-peers"],
    "loader": ["--without-peers"],
    "prepare": ["--without-peers"],
}


def words_of(name: str, peers: Path, out: Path, quick: bool) -> list[str]:
    """The command line of one benchmark."""
    beside = (WITH_PEERS[name] if quick else ["--peers", str(peers)]) if name in WITH_PEERS else []
    return [str(HERE / f"{name}.py"), "--out", str(out), *beside, *(["--quick"] if quick else [])]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAMES", help=", ".join(NAMES))
    parser.add_argument("--peers", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    for name in options.names:
        if name not in NAMES:
            parser.error(f"expected names of {', '.join(NAMES)}; got {name!r}")
    codes = {}
    with tempfile.TemporaryDirectory() as scratch:
        kept = Path(scratch) / "results" if options.quick else render.PERFORMANCE
        out = options.out or kept
        for name in options.names or NAMES:
            words = words_of(name, options.peers or Path(scratch) / "peers", out, options.quick)
            codes[name] = subprocess.run([sys.executable, *words], stdout=subprocess.DEVNULL).returncode
        for name in codes:
            if (out / f"{name}.json").exists():
                stored = json.loads((out / f"{name}.json").read_text(encoding="utf-8"))
                shown = [render.figures_table(stored["figures"])] if stored["figures"] else []
                shown += [render.checks_table(stored["checks"])] if "checks" in stored else []
                print("\n\n".join([name, *shown, ""]) if shown else f"{name}: done")
    if not options.quick and options.out is None:
        if "curves" in codes:
            subprocess.run([sys.executable, HERE / "plot_curves.py"], check=True)
        render.PERFORMANCE_PAGE.write_text(render.performance(), encoding="utf-8")
    sys.exit(max(codes.values()))


if __name__ == "__main__":
    main()
