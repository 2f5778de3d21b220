"""The train file of Frappe from a raw log: its positives exactly, its negatives by the rule."""

import gzip
from collections import Counter

import numpy as np
import pytest
from public_files import real, rows_of, write_files

from fullrank.data.columns import DataError
from fullrank.data.readers import Frappe
from fullrank.data.readers.frappe import FIELDS
from fullrank.data.readers.frappe_build import REBUILT, rebuild


def raw_log(seed: int = 1, users: int = 6, items: int = 60, lines: int = 80) -> list[dict[str, str]]:
    """Uses of apps; some lines come twice, the first lines name every user and app."""
    rng = np.random.default_rng(seed)
    rows = []
    for n in range(lines):
        user = n if n < users else int(rng.integers(users))
        item = n if n < items else int(rng.integers(items))
        context = [str(rng.integers(2)) for _ in FIELDS[2:]]
        rows.append(dict(zip(FIELDS, (str(user), str(item), *context), strict=True)))
    return [*rows, *rows[:5]]


def published(log: list[dict[str, str]], seed: int = 2) -> tuple[dict[str, str], Counter, Counter]:
    """The three files of the set, made by the rule in plain Python: all positives and all negatives are known here."""
    rng = np.random.default_rng(seed)
    number = {field: {} for field in FIELDS}
    for row in log:
        for field in FIELDS:
            number[field].setdefault(row[field], len(number[field]))
    start = dict(zip(FIELDS, np.cumsum([0, *(len(number[f]) for f in FIELDS[:-1])]).tolist(), strict=True))
    as_ids = [tuple(start[f] + number[f][row[f]] for f in FIELDS) for row in log]
    used = {(ids[0], ids[1]) for ids in as_ids}
    apps = [start["item"] + i for i in range(len(number["item"]))]
    negatives = []
    for ids in as_ids:
        for _ in range(2):
            free = [item for item in apps if (ids[0], item) not in used]
            item = free[int(rng.integers(len(free)))]
            used.add((ids[0], item))
            negatives.append((ids[0], item, *ids[2:]))
    rows = [(1, ids) for ids in as_ids] + [(-1, ids) for ids in negatives]
    order = rng.permutation(len(rows))
    parts = {"train": order[: len(rows) * 7 // 10], "validation": order[len(rows) * 7 // 10 : -20], "test": order[-20:]}
    text = {
        f"frappe.{part}.libfm": "".join(
            f"{rows[n][0]} " + " ".join(f"{i}:1" for i in rows[n][1]) + "\n" for n in places
        )
        for part, places in parts.items()
    }
    train = Counter(rows[n] for n in parts["train"])
    positives = Counter({row: n for row, n in train.items() if row[0] == 1})
    return text, positives, train - positives


def raw_text(log: list[dict[str, str]]) -> str:
    header = ("user", "item", "cnt", *FIELDS[2:])
    return "\t".join(header) + "\n" + "".join("\t".join((row | {"cnt": "3"})[c] for c in header) + "\n" for row in log)


def read_back(text: str) -> Counter:
    return Counter(
        (int(label), tuple(int(token.removesuffix(":1")) for token in ids))
        for label, *ids in (line.split() for line in text.splitlines())
    )


def contexts(rows: Counter) -> Counter:
    found: Counter = Counter()
    for (_, ids), n in rows.items():
        found[ids[0], *ids[2:]] += n
    return found


def test_what_is_rebuilt_has_the_lost_positives_and_as_many_negatives_of_every_context(tmp_path):
    log = raw_log()
    files, positives, negatives = published(log)
    del files["frappe.train.libfm"]
    source = write_files(tmp_path / "raw", files | {"frappe.csv": raw_text(log)})
    done = rebuild(source, tmp_path / "out")
    rows = read_back(gzip.decompress(done.path.read_bytes()).decode())
    assert Counter({row: n for row, n in rows.items() if row[0] == 1}) == positives
    drawn = Counter({row: n for row, n in rows.items() if row[0] == -1})
    assert contexts(drawn) == contexts(negatives)
    assert (done.positives, done.negatives) == (positives.total(), negatives.total())

    given = Counter()
    for name in ("frappe.validation.libfm", "frappe.test.libfm"):
        given += read_back(files[name])
    every = Counter((ids[0], ids[1]) for (label, ids), n in (drawn + given).items() if label == -1 for _ in range(n))
    assert max(every.values()) == 1, "no app is twice a negative of a user"
    used = {(ids[0], ids[1]) for (label, ids) in (rows + given) if label == 1}
    assert not used & set(every), "no negative was ever used"

    again = rebuild(source, tmp_path / "again")
    assert again.path.read_bytes() == done.path.read_bytes()
    assert rebuild(source, tmp_path / "other", seed=1).path.read_bytes() != done.path.read_bytes()


def test_what_is_rebuilt_is_read_with_the_words_of_the_raw_log(tmp_path):
    log = raw_log()
    files, positives, _ = published(log)
    del files["frappe.train.libfm"]
    folder = write_files(tmp_path, files | {"frappe.csv.gz": raw_text(log)})
    assert rebuild(folder, folder).path.name == REBUILT
    rows = [row for row in rows_of(Frappe(folder)) if row["used"] == 1]
    words = Counter(tuple(row[field] for field in FIELDS) for row in rows)
    assert words == Counter(tuple(row[field] for field in FIELDS) for row in log)
    assert sum(row["@split"] == "train" for row in rows) == positives.total()


def test_files_of_another_set_are_refused(tmp_path):
    log = raw_log()
    files, _, _ = published(log)
    raw = {"frappe.csv": raw_text(log)}
    twice = next(line for line in files["frappe.test.libfm"].splitlines() if line.startswith("1 "))
    cases = {
        r"a positive of .* is not in frappe\.csv": files | {"frappe.test.libfm": (twice + "\n") * 3},
        "expected the ids of field 'city' to be those of the raw": files
        | {"frappe.test.libfm": twice.rpartition(" ")[0] + " 9999:1\n"},
    }
    for place, (said, given) in enumerate(cases.items()):
        with pytest.raises(DataError, match=said):
            rebuild(write_files(tmp_path / str(place), given | raw), tmp_path / "out")
    negative = next(line for line in files["frappe.test.libfm"].splitlines() if line.startswith("-1 "))
    too_many = write_files(tmp_path / "n", files | raw | {"frappe.test.libfm": (negative + "\n") * 99})
    with pytest.raises(DataError, match=r"more negatives .* than two for each use"):
        rebuild(too_many, tmp_path / "out")


def test_real_frappe_rebuilds(tmp_path):
    folder = real("frappe")
    done = rebuild(folder, tmp_path)
    assert (done.positives, done.negatives) == (67_604, 134_423)
    assert (tmp_path / "feature_map.tsv").read_bytes() == gzip.decompress((folder / "feature_map.tsv.gz").read_bytes())
