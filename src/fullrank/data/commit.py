"""How a folder of prepared data changes: all at once or not at all.

Everything is first written beside what exists, under names no manifest knows. One rename then puts a new manifest in
place of the old one: before it the folder is what it was, after it everything named is complete. Whatever is ours by
name and not named in the manifest is garbage of an undertaking that did not end, and the next one removes it.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fullrank.data.columns import DataError
from fullrank.data.manifest import MANIFEST, Manifest

LOCK = ".fullrank.lock"  # also says that the folder is ours before there is a manifest
WORK = ".work"
NEW = MANIFEST + ".new"
OURS = ("ids", "items", "transform", "partitions")
SUFFIXES = (
    ".arrow",
    ".npy",
    ".json",
    ".partial",
)  # of our files in those folders; nothing else is ever touched
NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def undertaking(folder: Path) -> Iterator[Path]:
    """Hold the folder alone, with a work folder that is gone afterwards, as is all that was not committed.

    Raises `DataError` where the folder is another's, where someone else is writing to it, and where the disk is full.
    """
    with _locked(folder):
        remove_garbage(folder)
        work = folder / WORK
        try:
            work.mkdir()
            yield work
        except OSError as error:
            if error.errno in NO_SPACE:
                raise DataError(
                    f"No space left while writing to {folder} ({error}). Nothing was changed. Free some space "
                    "(preparing needs about three times the size of its result), then run the same again."
                ) from error
            raise
        finally:
            remove_garbage(folder)


def commit(folder: Path, manifest: Manifest) -> None:
    """Put `manifest` in place: written, synced, renamed, and the folder synced. Its files are on disk already."""
    with open(folder / NEW, "w", encoding="utf-8") as file:
        file.write(manifest.to_json())
        file.flush()
        os.fsync(file.fileno())
    os.replace(folder / NEW, folder / MANIFEST)
    _sync_folder(folder)


def sizes(folder: Path, names: list[str]) -> dict[str, int]:
    """Bytes of the files `names`, after the disk has them."""
    result = {}
    for name in sorted(names):
        with open(folder / name, "rb+") as file:
            os.fsync(file.fileno())
            result[name] = os.fstat(file.fileno()).st_size
    for parent in sorted(
        {parent for name in names for parent in (folder / name).parents if folder in parent.parents}
    ):
        _sync_folder(parent)
    return result


def files_under(folder: Path, top: Path) -> list[str]:
    """Names (relative to `folder`) of all files under `top`."""
    return [path.relative_to(folder).as_posix() for path in sorted(top.rglob("*")) if path.is_file()]


def remove_garbage(folder: Path) -> None:
    """Remove what is ours by name and not in the manifest (everything of ours where there is none)."""
    path = folder / MANIFEST
    named = set(Manifest.from_json(path.read_text(encoding="utf-8"), path).files) if path.is_file() else set()
    shutil.rmtree(folder / WORK, ignore_errors=True)
    (folder / NEW).unlink(missing_ok=True)
    tops = [folder / name for name in OURS if (folder / name).is_dir()]
    for top in tops:
        for file in [path for path in top.rglob("*") if path.is_file()]:
            is_ours = file.suffix in SUFFIXES or file.name.startswith(".")
            if is_ours and file.relative_to(folder).as_posix() not in named:
                file.unlink()
        _prune(top)
    if not path.is_file():
        (folder / "schema.toml").unlink(missing_ok=True)


def _prune(top: Path) -> None:
    """Remove folders that hold nothing."""
    for path in sorted(top.rglob("*"), reverse=True):
        if path.is_dir() and not any(path.iterdir()):
            path.rmdir()
    if not any(top.iterdir()):
        top.rmdir()


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the folder alone. The lock stays in the folder: removing it would let two hold it."""
    import fcntl

    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / LOCK).exists() and not (folder / MANIFEST).exists() and any(folder.iterdir()):
        some = ", ".join(sorted(path.name for path in folder.iterdir())[:3])
        raise DataError(
            f"Expected {folder} to be new, empty or prepared data, it holds {some}: choose another folder."
        )
    with open(folder / LOCK, "ab") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DataError(
                f"Someone else is writing to {folder}: wait until that is done, then try again."
            ) from None
        yield


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
