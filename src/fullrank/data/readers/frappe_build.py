"""The train file of Frappe from its raw log, where the published one cannot be had.

The published validation and test rows are a part of 96,203 logged uses and of two negatives for each. What is left of
the log when their positives are taken out are the train positives, exactly. The train negatives are drawn anew by the
rule that the published ones follow: two for each use, in its context, of apps the user never used, no app twice for a
user. How many each (user, context) lacks follows from the published ones. So the counts are the original's and the rows
are not: figures agree with published ones to about 0.001 of AUC, not better.
"""

# pyarrow.compute makes its functions when it is imported, where pyright does not see them:
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import gzip
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fullrank.data.bundle import Bundle
from fullrank.data.columns import DataError
from fullrank.data.readers.frappe import FIELDS, MAP, TEST, VALID
from fullrank.data.readers.libfm import read_libfm
from fullrank.data.readers.movielens import read_table

RAW = "frappe.csv"
REBUILT = "frappe.train.rebuilt.libfm.gz"
_COLUMNS = ("user", "item", "cnt", *FIELDS[2:])  # of the raw log


@dataclass(frozen=True)
class Rebuilt:
    """Rows of the train file, by label, and where it is."""

    path: Path
    positives: int
    negatives: int


def rebuild(source: Path | str, out: Path | str, *, seed: int = 0) -> Rebuilt:
    """Write `REBUILT` and `feature_map.tsv` into the folder `out`, from `frappe.csv`, `frappe.validation.libfm` and
    `frappe.test.libfm` (each plain or gzipped) in the folder or archive `source`. Equal seeds give equal bytes.

    A feature's number is its place in the order of first appearance, field after field. Raises `DataError` where a
    published positive is not in the log, or a context has more published negatives than two for each use.
    """
    bundle, rng = Bundle(source), np.random.default_rng(seed)
    log_NF, keys = _numbered_log(bundle)
    given = [read_libfm(bundle, bundle.either(name), len(FIELDS)) for name in (VALID, TEST)]
    parts = [part for file in given for part in file]
    given_label = np.concatenate([label for label, _ in parts])
    given_NF = np.concatenate([ids for _, ids in parts])
    sizes = [len(key) for key in keys]
    log_NF = log_NF + np.concatenate([[0], np.cumsum(sizes)[:-1]])
    out_of_range = (given_NF.min(axis=0) < log_NF.min(axis=0)) | (given_NF.max(axis=0) > log_NF.max(axis=0))
    if out_of_range.any():
        raise DataError(
            f"{bundle.path}: expected the ids of field {FIELDS[int(np.argmax(out_of_range))]!r} to be those of the raw "
            "log. Are the three files of one set?"
        )
    positives_NF = log_NF[_left_over(log_NF, given_NF[given_label == 1], bundle)]
    negatives_NF = _negatives(log_NF, given_NF[given_label == 0], sizes, rng, bundle)
    rows_NF = np.concatenate([positives_NF, negatives_NF])
    labels = np.repeat(["1", "-1"], [len(positives_NF), len(negatives_NF)])
    order = rng.permutation(len(rows_NF))
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / REBUILT, labels[order], rows_NF[order])
    lines = ["id\tfield\tvalue"]
    names = [(field, key) for field, own in zip(FIELDS, keys, strict=True) for key in own]
    lines += [f"{number}\t{field}\t{key}" for number, (field, key) in enumerate(names)]
    (folder / MAP).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return Rebuilt(folder / REBUILT, len(positives_NF), len(negatives_NF))


def _numbered_log(bundle: Bundle) -> tuple[np.ndarray, list[list[str]]]:
    """The raw log with every value as its number of first appearance, [N, F], and the values of each field."""
    name = bundle.either(RAW)
    table = read_table(bundle, name, dict.fromkeys(_COLUMNS, pa.string()), delimiter="\t", skip=1)
    numbers, keys = [], []
    for field in FIELDS:
        encoded = table[field].combine_chunks().dictionary_encode()
        numbers.append(encoded.indices.to_numpy().astype(np.int64))
        keys.append(encoded.dictionary.to_pylist())
    return np.stack(numbers, axis=1), keys


def _groups(*parts_NF: np.ndarray) -> list[np.ndarray]:
    """A number for each different row, equal for equal rows of all the parts."""
    every_NF = np.concatenate(parts_NF)
    every_NF = every_NF - every_NF.min(axis=0)
    code_N = np.zeros(len(every_NF), dtype=np.int64)
    for column_N in every_NF.T:
        code_N = code_N * (int(column_N.max()) + 1) + column_N
        code_N = np.unique(code_N, return_inverse=True)[1].reshape(-1)
    return np.split(code_N, np.cumsum([len(part) for part in parts_NF])[:-1])


def _left_over(log_NF: np.ndarray, given_NF: np.ndarray, bundle: Bundle) -> np.ndarray:
    """The lines of the log, without one line for each given positive."""
    line, given = _groups(log_NF, given_NF)
    taken = np.bincount(given, minlength=line.max() + 1)
    order = np.argsort(line, kind="stable")
    place = np.arange(len(line)) - np.searchsorted(line[order], line[order])  # among equal lines: 0, 1, …
    if len(taken) > line.max() + 1 or (taken > np.bincount(line, minlength=len(taken))).any():
        raise DataError(f"{bundle.path}: a positive of {VALID} or {TEST} is not in {RAW}. Are they of one set?")
    keep = np.empty(len(line), dtype=bool)
    keep[order] = place >= taken[line[order]]
    return keep


def _negatives(
    log_NF: np.ndarray, given_NF: np.ndarray, sizes: list[int], rng: np.random.Generator, bundle: Bundle
) -> np.ndarray:
    """Rows with the contexts that lack negatives, and for each an app its user never used and has no other of."""
    context = [0, *range(2, len(FIELDS))]
    line, given = _groups(log_NF[:, context], given_NF[:, context])
    lacking = 2 * np.bincount(line, minlength=max(line.max(), given.max()) + 1)
    lacking[: given.max() + 1] -= np.bincount(given)
    if (lacking < 0).any():
        raise DataError(f"{bundle.path}: a context has more negatives in {VALID} and {TEST} than two for each use.")
    first = np.unique(line, return_index=True)[1]
    rows_NF = np.repeat(log_NF[first], lacking[line[first]], axis=0)
    rows_NF = rows_NF[np.argsort(rows_NF[:, 0], kind="stable")]
    free_UI = np.ones((sizes[0], sizes[1]), dtype=bool)
    for taken_NF in (log_NF, given_NF):
        free_UI[taken_NF[:, 0], taken_NF[:, 1] - sizes[0]] = False
    users, starts, counts = np.unique(rows_NF[:, 0], return_index=True, return_counts=True)
    for user, start, count in zip(users, starts, counts, strict=True):
        free = np.flatnonzero(free_UI[user])
        if len(free) < count:
            raise DataError(f"{bundle.path}: user {user} lacks {count} negatives and has {len(free)} apps never used.")
        rows_NF[start : start + count, 1] = sizes[0] + rng.permutation(free)[:count]
    return rows_NF


def _write(path: Path, labels: np.ndarray, rows_NF: np.ndarray) -> None:
    ids = [pc.binary_join_element_wise(pa.array(column).cast(pa.string()), "1", ":") for column in rows_NF.T]
    lines = pc.binary_join_element_wise(pa.array(labels, pa.string()), *ids, " ")
    text = "\n".join(lines.to_pylist()) + "\n"
    with path.open("wb") as file, gzip.GzipFile("", "wb", 6, file, mtime=0) as packed:
        packed.write(text.encode())
