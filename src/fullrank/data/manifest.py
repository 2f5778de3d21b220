"""`manifest.json`: what a folder of prepared data consists of, and all that makes it so (see `commit.py`)."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from fullrank.data.columns import DataError

FORMAT = 1
MANIFEST = "manifest.json"


class NotPrepared(DataError):
    """There is no prepared data here."""


@dataclass(frozen=True, kw_only=True)
class SplitSize:
    rows: int
    requests: int
    blocks: int


@dataclass(frozen=True, kw_only=True)
class CorrectionEntry:
    """Late labels of one task for one split of one earlier partition: `corrections/FOLDER/{row,label,known_at}.npy`."""

    target: str
    split: str
    task: str
    folder: str
    rows: int


@dataclass(frozen=True, kw_only=True)
class PartitionEntry:
    """One immutable folder of `partitions/`. `source` is the fingerprint of what was prepared, `fingerprint` of what
    came of it; `lineage_version` is the version of the ids its columns were written with. `late` (corrections): task →
    `corrections/FOLDER/{impression,label,known_at}.npy`, the same labels by impression code. `as_of`: what was known
    when it was the newest (None: written by a release that did not keep it; see `states.py`)."""

    name: str
    kind: Literal["rows", "corrections"]
    source: str
    fingerprint: str
    lineage_version: int
    splits: dict[str, SplitSize]
    events: dict[str, int]
    corrections: tuple[CorrectionEntry, ...] = ()
    late: dict[str, str] = field(default_factory=dict)
    time_min: int | None = None
    time_max: int | None = None
    as_of: int | None = None


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """`as_of`: what was known when the log was read (µs or position). `key_check` tells whether ids are hashed ("" if
    not) and with which key, without being the key. `lineage` names the id maps by their hashes; `fitted_at` is the
    partition whose training rows fitted the scalers. `files`: every file and its size in bytes."""

    schema_hash: str
    split: dict[str, Any]
    as_of: int
    key_check: str
    lineage: dict[str, Any]
    fitted_at: str
    partitions: tuple[PartitionEntry, ...]
    files: dict[str, int]
    format: int = FORMAT

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1, sort_keys=True) + "\n"

    @staticmethod
    def from_json(text: str, path: Path | str = MANIFEST) -> Manifest:
        try:
            read = json.loads(text)
            if read.get("format") != FORMAT:
                raise DataError(
                    f"{path} has format {read.get('format')!r}; this version of fullrank reads format {FORMAT}. "
                    "Prepare the log again, or use the version that wrote it."
                )
            read["partitions"] = tuple(_partition(entry) for entry in read["partitions"])
            return Manifest(**read)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            if isinstance(error, DataError):
                raise
            raise DataError(
                f"{path} is not a manifest of fullrank: {error}. Prepare into an empty folder."
            ) from None

    @staticmethod
    def load(folder: Path) -> Manifest:
        """The manifest of a folder, after a look at the size of every file it names."""
        path = folder / MANIFEST
        if folder.is_file():
            raise NotPrepared(
                f"Expected a folder of prepared data, got the file {folder}. Of a log, `fullrank prepare {folder} "
                "--schema SCHEMA --out DIR` makes one."
            )
        if not path.is_file():
            raise NotPrepared(
                f"{folder} is not prepared: there is no {MANIFEST}. Run `fullrank prepare LOG --out {folder}`."
            )
        manifest = Manifest.from_json(path.read_text(encoding="utf-8"), path)
        for name, size in manifest.files.items():
            file = folder / name
            found = file.stat().st_size if file.is_file() else None
            if found != size:
                state = "it is missing" if found is None else f"it has {found}"
                raise DataError(
                    f"Expected {file} to have {size} bytes, {state}. Prepare again, or restore the file."
                )
        return manifest


def _partition(entry: dict[str, Any]) -> PartitionEntry:
    splits = {name: SplitSize(**size) for name, size in entry.pop("splits").items()}
    corrections = tuple(CorrectionEntry(**c) for c in entry.pop("corrections"))
    return PartitionEntry(**entry, splits=splits, corrections=corrections)
