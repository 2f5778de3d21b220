"""`fullrank doctor [PATHS]`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import tyro

from fullrank.commands.arguments import OptionalPath, table, write_json
from fullrank.recipes.doctor import doctor as look_at

SIGNS = {"ok": "ok", "note": "note", "problem": "PROBLEM"}


def main(args: Sequence[str], prog: str) -> int:
    is_well = tyro.cli(doctor, prog=prog, args=list(args), config=(tyro.conf.FlagCreatePairsOff,))
    return 0 if is_well else 2


def doctor(paths: tyro.conf.Positional[tuple[Path, ...]] = (), json: OptionalPath = None) -> bool:
    """Versions, the machine, which extras are there, and whether prepared data and runs are whole.

    Looks only, and mends nothing. Exit code 2 where there is a problem.

    Args:
        paths: prepared data, runs, or folders of these.
        json: where to write it for programs: `ok`, and `findings`, each with `what`, `state` (`ok`, `note` or
            `problem`), `found` and `todo`.
    """
    findings = look_at(paths)
    print(table(["", "what", "found"], [[SIGNS[f.state], f.what, f.found] for f in findings], words=3))
    todo = [(finding.what, finding.todo) for finding in findings if finding.todo]
    if todo:
        print("\nNext:")
        for what, line in todo:
            print(f"  {what}: {line}")
    is_well = all(finding.state != "problem" for finding in findings)
    write_json(json, {"ok": is_well, "findings": [asdict(finding) for finding in findings]})
    return is_well
