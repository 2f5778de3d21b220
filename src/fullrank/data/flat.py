"""Long arrays that live in files: written front to back, or anywhere through a memory map.

Preparing never holds a column of the log in memory. What is one number a row lies in a `.npy` file in the work folder
and is read and written in pieces; the pages of a map belong to the file, not to the process.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

STEP = 1 << 16  # rows of one piece
_HEADER = 128  # numpy pads its header to 64; one size for every length lets it be written last
Dtype = Any


def create(path: Path, dtype: Dtype, length: int) -> np.ndarray:
    """A new array of zeros in a file, writable in place. Its disk space is taken at once: a disk too full is an error
    here, not a crash at the first page that cannot be written."""
    with open(path, "wb") as file:
        file.write(_header(np.dtype(dtype), length))
        _allocate(file.fileno(), _HEADER, length * np.dtype(dtype).itemsize)
    return open_flat(path, writable=True)


def open_flat(path: Path, *, writable: bool = False) -> np.ndarray:
    """The array in `path`, memory-mapped."""
    return np.load(path, mmap_mode="r+" if writable else "r", allow_pickle=False)


class FlatWriter:
    """A `.npy` file written front to back, without a buffer; its length is known when it is closed."""

    def __init__(self, path: Path, dtype: Dtype):
        self.dtype = np.dtype(dtype)
        self.length = 0
        self._descriptor = os.open(
            path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_CLOEXEC", 0), 0o666
        )
        self._finalize = weakref.finalize(
            self, os.close, self._descriptor
        )  # also where an error drops the writer
        self._write(memoryview(_header(self.dtype, 0)))

    def append(self, values: np.ndarray) -> None:
        self._write(np.ascontiguousarray(values, dtype=self.dtype).view(np.uint8).data)
        self.length += len(values)

    def close(self) -> None:
        os.lseek(self._descriptor, 0, os.SEEK_SET)
        self._write(memoryview(_header(self.dtype, self.length)))
        self._finalize()

    def _write(self, data: memoryview) -> None:
        while len(data):
            data = data[os.write(self._descriptor, data) :]


def pieces(length: int, step: int = STEP) -> Iterator[slice]:
    """`range(length)` cut into slices of at most `step`."""
    for start in range(0, length, step):
        yield slice(start, min(start + step, length))


def _header(dtype: np.dtype, length: int) -> bytes:
    """A version 1.0 npy header of exactly 128 bytes (a plain dtype and 19 digits of length always fit)."""
    description = np.lib.format.dtype_to_descr(dtype)
    text = f"{{'descr': {description!r}, 'fortran_order': False, 'shape': ({length},), }}"
    body = text.ljust(_HEADER - 11).encode("latin1") + b"\n"
    return b"\x93NUMPY\x01\x00" + len(body).to_bytes(2, "little") + body


def _allocate(descriptor: int, start: int, size: int) -> None:
    if size == 0:
        return
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, start, size)
        return
    os.lseek(descriptor, start, os.SEEK_SET)
    zeros = bytes(1 << 20)
    while size > 0:
        size -= os.write(descriptor, zeros[: min(size, len(zeros))])
