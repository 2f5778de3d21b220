"""`metrics.jsonl`: one JSON object a line, appended; a resumed run goes on where its checkpoint was."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class MetricsLog:
    """Opens the file at byte `at` and forgets what comes after: lines written after a checkpoint are written again by
    the run that resumes from it, so none is doubled. nan and infinity are written as null (JSON has neither)."""

    def __init__(self, path: Path, at: int) -> None:
        path.touch()
        size = path.stat().st_size
        if size < at:
            raise ValueError(
                f"Expected {path} to have at least the {at} bytes it had at the checkpoint, got {size}: it was "
                "shortened since. Put the file back, or delete the newest checkpoint to resume from the one before."
            )
        self._file = path.open("r+b")
        self._file.truncate(at)
        self._file.seek(at)

    def write(self, line: Mapping[str, Any]) -> None:
        """Append a line; it is in the file when this returns."""
        self._file.write(json.dumps(finite(line), allow_nan=False).encode() + b"\n")
        self._file.flush()

    def committed(self) -> int:
        """The position in bytes, after everything before it is on the disk."""
        os.fsync(self._file.fileno())
        return self._file.tell()

    def close(self) -> None:
        self._file.close()


def finite(value: Any) -> Any:
    """The same with None for every nan and infinity, at any depth of dicts."""
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
