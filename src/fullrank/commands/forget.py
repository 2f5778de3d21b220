"""`fullrank forget USER --data DIR`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import tyro

from fullrank.commands.arguments import OptionalPath, call, write_json
from fullrank.data.forget import forget as forget_user
from fullrank.data.keys import read_hash_key


def main(args: Sequence[str], prog: str) -> int:
    return call(forget, args, prog)


def forget(
    user: tyro.conf.Positional[str],
    data: Path,
    runs: tuple[Path, ...] = (),
    hash_ids: OptionalPath = None,
    json: OptionalPath = None,
) -> None:
    """Remove a user's rows, history and key from prepared data, for good.

    Every partition that holds the user is written anew, the only operation that does so. Runs trained before keep
    working and no longer know the user; what their weights learned stays until they are trained again.

    Args:
        user: the user's key, as the log holds it.
        data: a folder of prepared data.
        runs: folders of runs, to remove the key from their id maps too.
        hash_ids: the key file that the data was prepared with, if it was.
        json: where to write the report for programs: `folder`, `found`, `rows`, `events`, `partitions`, `runs`.
    """
    report = forget_user(data, user, hash_key=read_hash_key(hash_ids) if hash_ids else None, runs=runs)
    print(report)
    write_json(json, asdict(report))
