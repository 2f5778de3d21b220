"""`fullrank prepare`, as typed: the command's own `main`, in this process."""

from __future__ import annotations

import io
import shutil
import sys
from contextlib import redirect_stdout
from pathlib import Path

from worker import Mode, serve

import fullrank
import fullrank.commands.prepare  # which the command would import when it is called
from fullrank.cli import main as command


def main() -> None:
    folder = Path(sys.argv[1])
    out = folder / "ours"
    words = [str(folder / "log" / split) for split in ("train", "valid", "test")]
    words += ["--schema", str(folder / "schema.toml"), "--split", "files", "--out", str(out)]

    def step() -> None:
        with redirect_stdout(io.StringIO()):  # its report, which `--json` holds too
            code = command(["prepare", *words, "--json", str(folder / "ours.json")])
        assert code == 0, f"fullrank prepare ended with code {code}"

    serve({"ours": Mode(step, lambda: shutil.rmtree(out, ignore_errors=True))}, fullrank=fullrank.__version__)


if __name__ == "__main__":
    main()
