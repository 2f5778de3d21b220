"""The files of a public data set wherever they lie: a folder, a zip archive, or a wheel (which is a zip archive).

Members are found by the end of their path, so a zip with a folder inside it and the unpacked folder read alike; a name
may have folders in it (`men/men.csv`). Nothing is unpacked to disk, and nothing in a wheel is installed or imported.
"""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from fullrank.data.columns import DataError
from fullrank.data.source import fingerprint_of, fingerprint_of_files


class Bundle:
    """Read access by file name to a folder or archive at `path`; an archive is opened for each read."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self._in_zip: list[str] = []
        if self.path.is_dir():
            return
        try:
            with zipfile.ZipFile(self.path) as archive:
                self._in_zip = [member for member in archive.namelist() if not member.endswith("/")]
        except (OSError, zipfile.BadZipFile) as error:
            raise DataError(
                f"{self.path}: expected a folder or a whole zip archive, got {error}. Get or write it again."
            ) from error

    def has(self, names: Sequence[str]) -> bool:
        """Whether every one of the files is here."""
        return all(self._find(name) for name in names)

    def either(self, name: str) -> str:
        """The file, or the same one gzipped, whichever is here; `name` if neither is."""
        return next((found for found in (name, f"{name}.gz") if self._find(found)), name)

    def label(self, name: str) -> str:
        """How an error calls the file."""
        return str(self.path / name) if self.path.is_dir() else f"{self.path}:{self._find(name) or name}"

    def read(self, name: str) -> bytes:
        """The whole content of a file, as it is (the sets read this way are small)."""
        member = self._there(name)
        if self.path.is_dir():
            return Path(member).read_bytes()
        try:
            with zipfile.ZipFile(self.path) as archive:
                return archive.read(member)
        except (OSError, EOFError, zipfile.BadZipFile) as error:
            raise DataError(f"{self.label(name)}: cannot be read ({error}). Get the archive again.") from error

    def open(self, name: str) -> pa.NativeFile:
        """A stream of a file's content, unpacked on the way where its name ends in `.gz`."""
        member = self._there(name)
        if self.path.is_dir():
            return pa.input_stream(member)
        with zipfile.ZipFile(self.path) as archive:
            return pa.input_stream(archive.open(member), compression="gzip" if name.endswith(".gz") else None)

    def fingerprint(self, names: Sequence[str]) -> str:
        """`source.fingerprint_of` the files; a folder's are read a piece at a time."""
        if self.path.is_dir():
            return fingerprint_of_files(Path(self._there(name)) for name in names)
        return fingerprint_of(self.read(name) for name in names)

    def _find(self, name: str) -> str:
        """Where the file is, "" if nowhere."""
        if self.path.is_dir():
            return str(self.path / name) if (self.path / name).is_file() else ""
        return next((m for m in self._in_zip if m == name or m.endswith(f"/{name}")), "")

    def _there(self, name: str) -> str:
        if found := self._find(name):
            return found
        inside = self._in_zip or [file.name for file in self.path.iterdir() if file.is_file()]
        names = sorted(member.rsplit("/", 1)[-1] for member in inside)
        raise DataError(f"{self.path}: expected a file {name!r}, found {names[:20]}.")
