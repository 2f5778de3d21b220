"""Exact AUC, of all rows and per user, of more rows than memory holds: through files, each written and read once.

Rows come as an iterator of chunks and are gathered into *segments* of 4 million. For the AUC a segment's scores are
sorted, positives apart from negatives, and written; then equal parts of the score axis are read from all of them, one
part at a time. For the AUC per user a segment is written in the order of 256 buckets of users; then one bucket is read
from all of them, at a time. No assumption on how scores or users are distributed, and no bound on the rows but disk.

What lies in memory fits `auc` and `auc_per_user` better: the same values without a file.
"""

from __future__ import annotations

import errno
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from fullrank.evaluation.auc import GroupAucs, PerUserAuc, Weighting, check_weighting, group_aucs, twice_won
from fullrank.evaluation.checks import checked, checked_codes

SEGMENT_ROWS = 1 << 22
_BUCKETS = 256
Chunk = tuple[np.ndarray, ...]


def in_chunks(*columns: np.ndarray, rows: int = 1 << 20) -> Iterator[Chunk]:
    """Rows 0 .. rows - 1 of every column, then the next ones: how memory-mapped npy files become an iterator.

    ``in_chunks(np.load("labels.npy", mmap_mode="r"), np.load("scores.npy", mmap_mode="r"))``
    """
    if len({len(column) for column in columns}) > 1:
        raise ValueError(f"Expected columns of one length, got {[len(column) for column in columns]}.")
    for start in range(0, len(columns[0]), rows):
        yield tuple(column[start : start + rows] for column in columns)


def auc_of_chunks(
    chunks: Iterable[Chunk], scratch_folder: Path, *, segment_rows: int = SEGMENT_ROWS
) -> float:
    """`auc` of the rows of all chunks: the same pairs, counted in integers, so the very same number.

    Args:
        chunks: (labels, scores), any number of rows each, read once; the scores of one dtype.
        scratch_folder: an existing folder for files that are gone when this returns or fails: 4 bytes a row (float32).
        segment_rows: rows held at a time, 26 bytes of memory for each of them, beside the chunk: 110 MB. A part of the
            score axis has that many rows, and at most 1/128 more for each segment: also at 10^9 rows it takes less.

    Returns nan when one of the classes is absent.
    """
    with _scratch(scratch_folder) as scratch:
        sorted_PS: tuple[list[_Column], list[_Column]] = ([], [])  # negatives and positives of each segment
        sample = []
        stride = max(segment_rows // 256, 1)
        for first_row, (labels, scores) in _segments(chunks, segment_rows):
            positive, scores = _checked(first_row, labels, scores)
            for side, own in enumerate((~positive, positive)):
                one = np.sort(scores[own])
                sorted_PS[side].append(scratch.write(one))
                sample.append(one[stride - 1 :: stride].copy())  # a view would keep the segment
        # Cuts: of all rows, fewer than 2 * stride * segments lie strictly between two samples next to each other. So
        # every k-th of them leaves parts of about a segment. Rows equal to a cut are counted, never read.
        sizes = [sum(len(column) for column in side) for side in sorted_PS]
        pairs = sizes[0] * sizes[1]
        if not pairs:
            return float("nan")
        every = np.sort(np.concatenate(sample))
        cuts = np.unique(every[:: max(segment_rows // stride, 1)])
        edges_PSC = [[_edges(column, cuts) for column in side] for side in sorted_PS]
        won = negatives_below = 0
        for part in range(2 * len(cuts) + 1):  # below the first cut, equal to it, between it and the next, …
            spans_P = [
                [(column, int(edges[part]), int(edges[part + 1])) for column, edges in zip(*side, strict=True)]
                for side in zip(sorted_PS, edges_PSC, strict=True)
            ]
            neg, pos = (sum(end - start for _, start, end in side) for side in spans_P)
            won += 2 * pos * negatives_below
            if part % 2:
                won += pos * neg
            elif pos and neg:
                negative, positive = (_read(side) for side in spans_P)
                won += twice_won(positive, negative)
            negatives_below += neg
        return won / (2 * pairs)


def auc_per_user_of_chunks(
    chunks: Iterable[Chunk],
    scratch_folder: Path,
    weighting: Weighting = "impressions",
    *,
    segment_rows: int = SEGMENT_ROWS,
) -> PerUserAuc:
    """`auc_per_user` of the rows of all chunks; only the last digits differ, by the order in which users are summed.

    Args:
        chunks: (labels, scores, users), any number of rows each, read once; scores and users of one dtype each.
        scratch_folder: as for `auc_of_chunks`; 13 bytes a row (float32 scores, 64-bit users).
        segment_rows: rows held at a time, 42 bytes of memory for each of them, beside the chunk: 180 MB.

    Then a bucket of users is held, about 1/256 of all rows, at 100 bytes a row: 40 MB of 10^8 rows. All rows of one
    user lie in one bucket, so leave rows out whose code means "no user". Beside, 32 bytes a user are kept.
    """
    check_weighting(weighting)
    parts: list[GroupAucs] = []
    with _scratch(scratch_folder) as scratch:
        columns: list[tuple[_Column, _Column, _Column]] = []
        offsets: list[np.ndarray] = []
        for first_row, (labels, scores, users) in _segments(chunks, segment_rows):
            positive, scores = _checked(first_row, labels, scores)
            bucket = _bucket(checked_codes(users, len(scores), "user"))
            order = np.argsort(bucket, kind="stable")  # 8-bit keys: numpy counts them
            offsets.append(np.concatenate(([0], np.cumsum(np.bincount(bucket, minlength=_BUCKETS)))))
            columns.append((scratch.write(positive[order]), scratch.write(scores[order]), scratch.write(users[order])))
        for bucket in range(_BUCKETS):
            read = [
                [column.read(offset[bucket], offset[bucket + 1]) for column in three]
                for three, offset in zip(columns, offsets, strict=True)
            ]
            if read:
                parts.append(group_aucs(*(np.concatenate(same) for same in zip(*read, strict=True))))
    return _joined(parts, weighting)


def _joined(parts: list[GroupAucs], weighting: Weighting) -> PerUserAuc:
    names = ("group_U", "positives_U", "negatives_U", "twice_won_U")
    empty = np.zeros(0, np.int64)
    joined = GroupAucs(**{n: np.concatenate([getattr(p, n) for p in parts]) if parts else empty for n in names})
    mean = joined.mean(weighting)
    return PerUserAuc(value=mean.value, users=mean.groups, skipped=mean.skipped)


def _bucket(users: np.ndarray) -> np.ndarray:
    """0 .. 255, by a multiplicative hash: codes that count up from 0 spread as well as hashes do."""
    return ((users.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(56)).astype(np.uint8)


def _read(spans: list[tuple[_Column, int, int]]) -> np.ndarray:
    """The rows of all spans, sorted."""
    rows = np.concatenate([column.read(start, end) for column, start, end in spans])
    rows.sort()
    return rows


def _edges(column: _Column, cuts: np.ndarray) -> np.ndarray:
    """Where the parts of the score axis begin in a sorted column: 0, then before and behind the rows equal to each cut,
    then the end."""
    scores = column.read(0, len(column))
    edges = np.stack([np.searchsorted(scores, cuts, "left"), np.searchsorted(scores, cuts, "right")], axis=1)
    return np.concatenate(([0], edges.ravel(), [len(scores)]))


def _checked(first_row: int, labels: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    try:
        return checked(labels, scores)
    except ValueError as error:
        raise ValueError(f"Rows counted from row {first_row} of all chunks: {error}") from error


def _segments(chunks: Iterable[Chunk], rows: int) -> Iterator[tuple[int, Chunk]]:
    """The same rows, `rows` at a time (the last has what is left), behind the number of the first."""
    held: list[Chunk] = []
    first, count, dtypes = 0, 0, None
    for chunk in chunks:
        chunk = tuple(np.asarray(column) for column in chunk)
        if len({column.shape for column in chunk}) > 1 or chunk[0].ndim != 1:
            shapes = [column.shape for column in chunk]
            raise ValueError(f"Expected flat columns of one length in a chunk, got shapes {shapes}.")
        own = [column.dtype for column in chunk[1:]]
        dtypes = dtypes or own
        if own != dtypes:
            told = f"{[str(dtype) for dtype in dtypes]}, then {[str(dtype) for dtype in own]}"
            raise ValueError(f"Expected scores (and users) of one dtype in all chunks, got {told}.")
        start = 0
        while start < len(chunk[0]):
            taken = tuple(column[start : start + rows - count] for column in chunk)
            held.append(taken)
            start += len(taken[0])
            count += len(taken[0])
            if count == rows:
                whole = tuple(np.concatenate(same) for same in zip(*held, strict=True))
                held.clear()
                yield first, whole
                first, count = first + rows, 0
    if held:
        yield first, tuple(np.concatenate(same) for same in zip(*held, strict=True))


class _Column:
    """An array in a file of its own."""

    def __init__(self, path: Path, dtype: np.dtype, rows: int):
        self.path, self.dtype, self.rows = path, dtype, rows

    def __len__(self) -> int:
        return self.rows

    def read(self, start: int, end: int) -> np.ndarray:
        size = self.dtype.itemsize
        return np.fromfile(self.path, self.dtype, count=int(end - start), offset=int(start) * size)


class _Scratch:
    """Writes columns into a folder, and says what is wrong when it is full."""

    def __init__(self, folder: Path):
        self.folder, self.written, self.files = folder, 0, 0

    def write(self, array: np.ndarray) -> _Column:
        path = self.folder / f"{self.files}.bin"
        self.files += 1
        try:
            with open(path, "wb") as file:
                file.write(np.ascontiguousarray(array).data)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            told = f"it was full after {self.written / 1e6:,.0f} MB, and they are removed again"
            need = "4 bytes a row for the AUC, 13 for the AUC per user (twice as much of float64 scores)"
            message = f"Expected room for sorted rows in {self.folder.parent}, {told}. Name a folder with {need}."
            raise OSError(error.errno, message) from error
        self.written += array.nbytes
        return _Column(path, array.dtype, len(array))


@contextmanager
def _scratch(folder: Path) -> Iterator[_Scratch]:
    """A new folder inside `folder`, removed at the end whatever happens."""
    if not Path(folder).is_dir():
        raise FileNotFoundError(f"Expected an existing scratch folder, got {str(folder)!r}: make it first.")
    with tempfile.TemporaryDirectory(prefix="fullrank-auc-", dir=folder) as name:
        yield _Scratch(Path(name))
