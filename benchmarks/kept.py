"""A benchmark's finished parts, kept so that one that takes hours can go on, or be divided between processes."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any


def kept(path: Path | None, make: Callable[[], Any]) -> Any:
    """What `path` holds as JSON; where it isn't there, what `make` gives, written there (no path: only made)."""
    if path is not None and path.exists():
        return json.loads(path.read_text(encoding="utf-8"))
    found = make()
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(f"{path.name}.{os.getpid()}")
        unfinished.write_text(json.dumps(found), encoding="utf-8")
        unfinished.replace(path)
    return found
