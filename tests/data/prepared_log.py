"""The small log, prepared; what a test wants to see of a folder."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

from small_log import Memory

from fullrank.data.columns import EncodedBlock
from fullrank.data.partitions import PreparedData
from fullrank.data.prepare import Budget, prepare
from fullrank.data.splits import ByTime, Split

SMALL = Budget(keys=8, block_rows=40)
BY_TIME = ByTime(valid=0.1, test=0.2)
SECOND = 1_000_000


def prepared(
    tmp_path: Path, log: Memory, *, name: str = "data", split: Split | None = BY_TIME, append: bool = False
) -> PreparedData:
    prepare(log, tmp_path / name, split=split, append=append, budget=SMALL)
    return PreparedData.open(tmp_path / name)


def blocks(data: PreparedData, partition: int = 0) -> Iterator[tuple[str, EncodedBlock]]:
    for split in ("train", "valid", "test"):
        for block in data.blocks(split, (partition,)):
            yield split, data.read_all(block)


def folder_hash(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
