"""Frappe and the iPinYou rows: one feature of each field by number, and the names of the numbers."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from public_files import columns_of, counts, prepared_as_usual, real, rows_of, write_files

from fullrank.data.bundle import Bundle
from fullrank.data.columns import DataError
from fullrank.data.readers import Frappe, IPinYou, open_public
from fullrank.data.readers import libfm as libfm_module
from fullrank.data.readers.frappe import FIELDS
from fullrank.data.readers.ipinyou import FIELDS as IPINYOU_FIELDS
from fullrank.data.readers.libfm import read_libfm

WORDS = {
    "user": ("u0", "u1"), "item": ("7", "8", "9"), "daytime": ("morning", "night"), "weekday": ("monday",),
    "isweekend": ("workday",), "homework": ("home", "work"), "cost": ("free", "paid"), "weather": ("sunny",),
    "country": ("Peru",), "city": ("0", "5"),
}  # fmt: skip
NUMBERED = [(field, word) for field, words in WORDS.items() for word in words]
MAP = "id\tfield\tvalue\n" + "".join(f"{i}\t{field}\t{word}\n" for i, (field, word) in enumerate(NUMBERED))


def line(label: int, **words: str) -> str:
    chosen = [NUMBERED.index((field, words.get(field, own[0]))) for field, own in WORDS.items()]
    return f"{label} " + " ".join(f"{number}:1" for number in chosen) + "\n"


TRAIN = line(1, user="u1", city="5") + line(-1, item="9", daytime="night") + line(1, item="8")
FRAPPE = {
    "frappe.train.libfm": TRAIN,
    "frappe.validation.libfm.gz": line(-1, cost="paid") + line(1, homework="work"),
    "frappe.test.libfm": line(1, item="9").rstrip("\n"),
    "feature_map.tsv.gz": MAP,
}


def test_frappe_splits_labels_and_words(tmp_path):
    source = Frappe(write_files(tmp_path, FRAPPE))
    rows = rows_of(source)
    assert rows[0] == {
        "used": 1, "user": "u1", "item": "7", "daytime": "morning", "weekday": "monday", "isweekend": "workday",
        "homework": "home", "cost": "free", "weather": "sunny", "country": "Peru", "city": "5", "row": 0,
        "@split": "train",
    }  # fmt: skip
    assert [row["@split"] for row in rows] == ["train"] * 3 + ["valid"] * 2 + ["test"]
    assert [row["used"] for row in rows] == [1, 0, 1, 0, 1, 1] and [row["row"] for row in rows] == list(range(6))
    assert (rows[1]["item"], rows[3]["cost"], rows[4]["homework"], rows[5]["item"]) == ("9", "paid", "work", "9")
    assert [field.name for field in source.schema.all_features()] == list(FIELDS)


def test_frappe_without_a_map_has_the_numbers_for_keys(tmp_path):
    files = {name: text for name, text in FRAPPE.items() if not name.startswith("feature_map")}
    plain = Frappe(write_files(tmp_path / "a", files))
    named = Frappe(write_files(tmp_path / "b", FRAPPE))
    assert plain.fingerprint() != named.fingerprint()
    for number, word in zip(rows_of(plain), rows_of(named), strict=True):
        assert {field: NUMBERED[number[field]][1] for field in FIELDS} == {field: word[field] for field in FIELDS}


@pytest.mark.parametrize("train", ["frappe.train.libfm.gz", "frappe.train.rebuilt.libfm"])
def test_frappe_takes_a_published_and_a_rebuilt_train_file(tmp_path, train):
    files = FRAPPE | {train: TRAIN}
    del files["frappe.train.libfm"]
    assert len(rows_of(Frappe(write_files(tmp_path, files)))) == 6


def test_frappe_prepares_as_the_files_say(tmp_path):
    data = prepared_as_usual(Frappe(write_files(tmp_path / "set", FRAPPE)), tmp_path / "data")
    (label,) = columns_of(data, "train", "@label.used")
    assert label.tolist() == [1.0, 0.0, 1.0]
    (item, label) = columns_of(data, "test", "item", "@label.used")
    (train_item,) = columns_of(data, "train", "item")
    assert item[0] == train_item[1] and label.tolist() == [1.0]


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ("2 0:1 2:1", "line 2: expected a label"),
        (line(1).replace("0:1 2:1", "0:2 2:1"), r"line 2: expected a label \(-1, 0 or 1\) and 10 times `id:1`, got"),
        (line(1).replace("0:1 ", ""), "line 2"),
        (line(1).rstrip() + " 5:1", "line 2"),
        (line(1).replace("0:1", "0:11"), "line 2"),
        (line(1).replace("0:1", "x:1"), "line 2"),
        (line(3), "line 2"),
    ],
)
def test_a_line_that_is_none_is_named(tmp_path, bad, said):
    folder = write_files(tmp_path, FRAPPE | {"frappe.train.libfm": line(1) + bad.rstrip() + "\n" + line(1)})
    with pytest.raises(DataError, match=rf"frappe\.train\.libfm, {said}"):
        rows_of(Frappe(folder))


def test_an_id_of_another_field_is_named(tmp_path):
    swapped = line(1).replace("0:1 2:1", "2:1 0:1")
    folder = write_files(tmp_path, FRAPPE | {"frappe.test.libfm": line(1) + swapped})
    with pytest.raises(DataError, match=r"frappe\.test\.libfm, row 2: expected an id of field 'user', got 2"):
        rows_of(Frappe(folder))
    beyond = write_files(tmp_path / "b", FRAPPE | {"frappe.test.libfm": line(1).replace("0:1 2:1", "99:1 2:1")})
    with pytest.raises(DataError, match=r"row 1: expected an id of field 'user', got 99"):
        rows_of(Frappe(beyond))


def test_a_set_without_its_files_is_named(tmp_path):
    with pytest.raises(DataError, match=r"expected a file 'frappe\.train\.libfm', found \['frappe\.test\.libfm'\]"):
        rows_of(Frappe(write_files(tmp_path, {"frappe.test.libfm": TRAIN})))


@given(
    rows=st.lists(st.tuples(st.sampled_from([-1, 0, 1]), st.lists(st.integers(0, 10**12), min_size=3, max_size=3))),
    windows=st.booleans(),
    block=st.integers(1, 60),
)
def test_whatever_is_written_is_read_in_any_block_size(tmp_path_factory, rows, windows, block):
    folder = tmp_path_factory.mktemp("libfm")
    text = "".join(f"{label} " + " ".join(f"{i}:1" for i in ids) + "\n" for label, ids in rows)
    (folder / "a.libfm").write_bytes(text.replace("\n", "\r\n" if windows else "\n").encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(libfm_module, "_BLOCK_BYTES", block)
        parts = list(read_libfm(Bundle(folder), "a.libfm", 3))
    labels = np.concatenate([label for label, _ in parts] or [np.zeros(0)])
    assert labels.tolist() == [int(label > 0) for label, _ in rows]
    assert np.concatenate([ids for _, ids in parts] or [np.zeros((0, 3))]).tolist() == [ids for _, ids in rows]


INDEX = "".join(f"{field}:a\t{2 * i}\n{field}:b\t{2 * i + 1}\n" for i, field in enumerate(IPINYOU_FIELDS))


def ipinyou_line(label: int, *second: str) -> str:
    return f"{label} " + " ".join(f"{2 * i + (f in second)}:1" for i, f in enumerate(IPINYOU_FIELDS)) + "\n"


def test_ipinyou_fields_have_the_names_of_the_index(tmp_path):
    files = {
        "train.fm.txt": ipinyou_line(0, "IP") + ipinyou_line(1, "creative", "slotprice"),
        "test.fm.txt": ipinyou_line(0),
        "featindex.fm.txt.gz": INDEX.replace("IP:b", "IP:1.2:3.*"),
    }
    source = IPinYou(write_files(tmp_path / "set", files))
    rows = rows_of(source)
    assert [(row["click"], row["@split"]) for row in rows] == [(0, "train"), (1, "train"), (0, "test")]
    assert rows[0]["IP"] == "1.2:3.*" and (rows[1]["creative"], rows[1]["slotprice"], rows[1]["IP"]) == ("b", "b", "a")
    assert {f.name for f in source.schema.all_features()} == {*IPINYOU_FIELDS, "item"} - {"creative"}
    data = prepared_as_usual(source, tmp_path / "data")
    assert columns_of(data, "train", "@label.click")[0].tolist() == [0.0, 1.0]


def test_ipinyou_index_that_is_none_is_named(tmp_path):
    files = {"train.fm.txt": "", "test.fm.txt": "", "featindex.fm.txt": "IP:a\t0\ntruncate\t1\n"}
    with pytest.raises(DataError, match=r"featindex\.fm\.txt, line 2: expected `field:value`, got 'truncate'"):
        rows_of(IPinYou(write_files(tmp_path, files)))


def test_real_frappe():
    source = open_public("frappe", real("frappe"))
    assert counts(source, "used") == (
        {"train": 202_027, "valid": 57_722, "test": 28_860},
        {"train": 67_604, "valid": 19_063, "test": 9_536},
    )
    chunks = [chunk.records for chunk in source.chunks()]
    different = {name: len({key for chunk in chunks for key in chunk[name].to_pylist()}) for name in FIELDS}
    assert different == {
        "user": 957, "item": 4082, "daytime": 7, "weekday": 7, "isweekend": 2, "homework": 3, "cost": 2, "weather": 9,
        "country": 80, "city": 233,
    }  # fmt: skip


def test_real_ipinyou():
    source = open_public("ipinyou", real("ipinyou_fm_deepctr"))
    assert counts(source, "click") == ({"train": 26_773, "test": 21_150}, {"train": 255, "test": 50})
    first = next(source.chunks()).records
    assert set(first["advertiser"].to_pylist()) == {"2997"} and set(first["slotwidth"].to_pylist()) == {"320"}


def test_real_frappe_slice_prepares(tmp_path):
    folder = real("frappe")
    bundle, files = Bundle(folder), {}
    names = {"train.reconstructed": "train", "validation": "validation", "test": "test"}
    for name, short in names.items():
        with bundle.open(f"frappe.{name}.libfm.gz") as stream:
            files[f"frappe.{short}.libfm"] = stream.read(60_000).rpartition(b"\n")[0].decode() + "\n"
    with bundle.open("feature_map.tsv.gz") as stream:
        files["feature_map.tsv"] = stream.read().decode()
    data = prepared_as_usual(Frappe(write_files(tmp_path / "set", files)), tmp_path / "data")
    for split, name in (("train", "train"), ("valid", "validation"), ("test", "test")):
        text = files[f"frappe.{name}.libfm"]
        (label,) = columns_of(data, split, "@label.used")
        assert label.tolist() == [float(row.startswith("1 ")) for row in text.splitlines()]
