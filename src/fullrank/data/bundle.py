"""The files of a public data set wherever they lie: a folder, a zip archive, or a wheel (which is a zip archive).

Members are found by the end of their path, so a zip with a folder inside it and the unpacked folder read alike.
Nothing is unpacked to disk, and nothing in a wheel is installed or imported.
"""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path

from fullrank.data.columns import DataError


class Bundle:
    """Read access by file name to a folder or archive at `path`; an archive is opened for each read."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self._members: dict[str, str] = {}
        if self.path.is_dir():
            self._members = {file.name: str(file) for file in self.path.iterdir() if file.is_file()}
            return
        try:
            with zipfile.ZipFile(self.path) as archive:
                for member in archive.namelist():
                    self._members.setdefault(member.rsplit("/", 1)[-1], member)
        except (OSError, zipfile.BadZipFile) as error:
            raise DataError(
                f"{self.path}: expected a folder or a whole zip archive, got {error}. Get or write it again."
            ) from error

    def has(self, names: Sequence[str]) -> bool:
        """Whether every one of the files is here."""
        return all(name in self._members for name in names)

    def label(self, name: str) -> str:
        """How an error calls the file."""
        return str(self.path / name) if self.path.is_dir() else f"{self.path}:{self._members.get(name, name)}"

    def read(self, name: str) -> bytes:
        """The whole content of a file (the sets read this way are small)."""
        if name not in self._members:
            raise DataError(f"{self.path}: expected a file {name!r}, found {sorted(self._members)[:20]}.")
        if self.path.is_dir():
            return Path(self._members[name]).read_bytes()
        try:
            with zipfile.ZipFile(self.path) as archive:
                return archive.read(self._members[name])
        except (OSError, EOFError, zipfile.BadZipFile) as error:
            raise DataError(f"{self.label(name)}: cannot be read ({error}). Get the archive again.") from error
