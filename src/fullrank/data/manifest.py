"""`manifest.json`: what a folder of prepared data consists of, and the only thing that makes it so.

Everything is first written beside what exists, under names no manifest knows. One rename then puts a new manifest in
place of the old one: before it the folder is what it was, after it everything named is complete. Whatever of our own
naming is not named is garbage of an undertaking that did not end, and the next one removes it.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from fullrank.data.columns import DataError

FORMAT = 1
MANIFEST = "manifest.json"
LOCK = ".fullrank.lock"  # also says that the folder is ours, before there is a manifest
WORK = ".work-"
OURS = ("ids", "items", "transform", "partitions")  # and ids-1, … of later lineages
TOP_FILES = ("schema.toml",)
SUFFIXES = (".arrow", ".npy", ".json")  # of the files in those folders; another's are never touched


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
    came of it; `lineage_version` is the version of the ids its columns were written with."""

    name: str
    kind: Literal["rows", "corrections"]
    source: str
    fingerprint: str
    lineage_version: int
    splits: dict[str, SplitSize]
    events: dict[str, int]
    corrections: tuple[CorrectionEntry, ...] = ()
    time_min: int | None = None
    time_max: int | None = None


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """`as_of`: what was known when the log was read (µs or position). `key_check` tells whether ids are hashed ("" if
    not) and with which key, without being the key. `ids`, `items`, `transform` and `schema` are the places of the
    fitted state: a new lineage (after `forget`) has a new place. `files`: every file and its size in bytes."""

    schema_hash: str
    split: dict[str, Any]
    as_of: int
    key_check: str
    lineage: dict[str, Any]
    fitted_at: str
    partitions: tuple[PartitionEntry, ...]
    files: dict[str, int]
    ids: str = "ids"
    items: str = "items"
    transform: str = "transform"
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
            raise DataError(f"{path} is not a manifest of fullrank: {error}. Prepare into an empty folder.") from None

    @staticmethod
    def load(folder: Path) -> Manifest:
        """The manifest of a folder, after a look at the size of every file it names."""
        path = folder / MANIFEST
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
                raise DataError(f"Expected {file} to have {size} bytes, {state}. Prepare again, or restore the file.")
        return manifest


def _partition(entry: dict[str, Any]) -> PartitionEntry:
    splits = {name: SplitSize(**size) for name, size in entry.pop("splits").items()}
    corrections = tuple(CorrectionEntry(**c) for c in entry.pop("corrections"))
    return PartitionEntry(**entry, splits=splits, corrections=corrections)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder alone: create it if need be, refuse one that is not ours, error if someone else is writing."""
    import fcntl

    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / LOCK).exists() and not (folder / MANIFEST).exists() and any(folder.iterdir()):
        some = sorted(path.name for path in folder.iterdir())[:3]
        raise DataError(f"{folder} holds {', '.join(some)}… and no prepared data: choose an empty or new folder.")
    with open(folder / LOCK, "ab") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DataError(f"Someone else is writing to {folder}: wait until that is done, then try again.") from None
        yield


def ours(folder: Path) -> Iterator[Path]:
    """Every file of our naming, whether a manifest names it or not (the manifest itself and the lock excepted)."""
    for top in sorted(folder.iterdir()):
        if top.is_dir() and not top.is_symlink() and _is_ours(top.name):
            work = top.name.startswith(WORK)
            files = (path for path in top.rglob("*") if not path.is_dir())
            yield from sorted(path for path in files if work or path.suffix in SUFFIXES)
        elif top.name in TOP_FILES or top.name == MANIFEST + ".new":
            yield top


def _is_ours(name: str) -> bool:
    base, _, number = name.partition("-")
    return name.startswith(WORK) or (base in OURS and (not number or number.isdigit()))


def remove_garbage(folder: Path) -> None:
    """Remove what is ours by name and not in the manifest (everything of ours where there is none)."""
    path = folder / MANIFEST
    named = set(Manifest.from_json(path.read_text(encoding="utf-8"), path).files) if path.is_file() else set()
    for file in list(ours(folder)):
        if file.relative_to(folder).as_posix() not in named:
            file.unlink()
    for top in list(folder.iterdir()):
        if top.is_dir() and not top.is_symlink() and _is_ours(top.name):
            _prune(top)


def _prune(folder: Path) -> None:
    """Remove folders that hold nothing."""
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_dir() and not any(path.iterdir()):
            path.rmdir()
    if not any(folder.iterdir()):
        folder.rmdir()


def remove_work(work: Path) -> None:
    shutil.rmtree(work, ignore_errors=True)


def sizes(folder: Path, names: list[str]) -> dict[str, int]:
    """Bytes of the files `names`, sorted by name, after the disk has them."""
    result = {}
    for name in sorted(names):
        with open(folder / name, "rb+") as file:
            os.fsync(file.fileno())
            result[name] = os.fstat(file.fileno()).st_size
    for parent in sorted({(folder / name).parent for name in names}):
        _sync_folder(parent)
    return result


def commit(folder: Path, manifest: Manifest) -> None:
    """Put `manifest` in place: written, synced, renamed, and the folder synced."""
    new = folder / (MANIFEST + ".new")
    with open(new, "w", encoding="utf-8") as file:
        file.write(manifest.to_json())
        file.flush()
        os.fsync(file.fileno())
    os.replace(new, folder / MANIFEST)
    _sync_folder(folder)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
