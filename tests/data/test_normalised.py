"""Spilling normalised rows, picking from them and joining them loses nothing."""

import io

import numpy as np
import pyarrow as pa
import pytest

from fullrank.data.columns import Ragged
from fullrank.data.normalise import Normalised, Origin, normalise
from fullrank.schema import EventFeature, Feature, History, Roles, Schema, Task

SCHEMA = Schema(
    roles=Roles(user="u", item="i", time="t", request="r"),
    features=(
        Feature(name="city", kind="categorical", of="user"),
        Feature(name="g", kind="multi", weights="w"),
        Feature(name="v", kind="vector", dim=2),
        Feature(name="title", kind="text", of="item"),
    ),
    tasks=(Task(name="y"),),
    histories=(
        History(name="h", layout="inline", item="hi", time="ht", features=(EventFeature(name="a"),)),
        History(name="log", where="y"),
    ),
)
ROWS = [
    {
        "u": "a",
        "i": 1,
        "t": 10,
        "r": 1,
        "city": "å",
        "g": ["x", "y"],
        "w": [1.0, 2.0],
        "v": [1.0, 2.0],
        "title": "T",
        "y": 1,
        "hi": [1, 2],
        "ht": [1, 2],
        "a": ["p", "q"],
    },
    {
        "u": "b",
        "i": 2,
        "t": 11,
        "r": 1,
        "city": None,
        "g": None,
        "w": None,
        "v": None,
        "title": None,
        "y": None,
        "hi": [],
        "ht": [],
        "a": [],
    },
    {
        "u": "007",
        "i": 3,
        "t": 12,
        "r": 2,
        "city": "7",
        "g": ["z"],
        "w": [0.0],
        "v": [3.0, 4.0],
        "title": "é",
        "y": 0,
        "hi": [9],
        "ht": [3],
        "a": ["p"],
    },
]


def rows(count=3):
    return normalise(SCHEMA, pa.RecordBatch.from_pylist(ROWS * (count // 3)), Origin("f"))


def same(left: Normalised, right: Normalised) -> None:
    assert left.num_rows == right.num_rows and list(left.columns) == list(right.columns)
    for name, column in left.columns.items():
        other = right.columns[name]
        if isinstance(column, Ragged):
            assert isinstance(other, Ragged)
            np.testing.assert_array_equal(column.offsets, other.offsets)
            column, other = column.values, other.values
        assert column.dtype == other.dtype, name
        np.testing.assert_array_equal(column, other)
    assert {name: text.to_pylist() for name, text in left.texts.items()} == {
        name: text.to_pylist() for name, text in right.texts.items()
    }
    for name, keys in left.keys.items():
        np.testing.assert_array_equal(keys.unique_codes, right.keys[name].unique_codes)
        assert keys.unique_texts.to_pylist() == right.keys[name].unique_texts.to_pylist()
        assert len(keys.codes) == len(right.keys[name].codes)


def through_a_file(parts):
    sink = io.BytesIO()
    batches = [part.to_arrow() for part in parts]
    with pa.ipc.new_file(sink, batches[0].schema) as writer:
        for batch in batches:
            writer.write_batch(batch)
    reader = pa.ipc.open_file(pa.BufferReader(sink.getvalue()))
    return [Normalised.from_arrow(reader.get_batch(number)) for number in range(reader.num_record_batches)]


def test_spill_and_read_back():
    same(through_a_file([rows()])[0], rows())


def test_batches_that_were_cut_and_joined_fit_one_file():
    whole = rows(9)
    parts = [
        whole.take(np.arange(2)),
        Normalised.concat([whole.take(np.arange(2, 4)), whole.take(np.arange(4, 9))]),
        whole.take(np.zeros(9, dtype=bool)),
        whole,
    ]
    back = through_a_file(parts)
    same(Normalised.concat(back[:3]), whole)
    same(back[3], whole)
    assert len({part.to_arrow().schema for part in [*parts, *back]}) == 1


def test_shared_arrays_are_written_once():
    names = rows().to_arrow().schema.names
    assert "values @user" in names and "values user" not in names and "entries user" not in names
    assert [name for name in names if name.startswith("offsets @history.h.")] == ["offsets @history.h.item"]
    back = through_a_file([rows()])[0]
    assert back.columns["user"] is back.columns["@user"]
    assert back.num_bytes == rows().num_bytes


@pytest.mark.parametrize("index", [[2, 0], [], [1, 1, 1]])
def test_take_is_what_normalising_those_rows_gives(index):
    taken = rows().take(np.array(index, dtype=np.int64))
    batch = pa.RecordBatch.from_pylist(ROWS).take(pa.array(index, pa.int64()))
    same(taken, normalise(SCHEMA, batch, Origin("f")))


def test_taken_rows_have_only_their_keys():
    taken = rows().take(np.array([False, False, True]))
    assert taken.keys["city"].unique_texts.to_pylist() == ["7"]
    assert taken.keys["user"].unique_texts.to_pylist() == ["007"]
    assert taken.keys["g"].unique_texts.to_pylist() == ["z"]
