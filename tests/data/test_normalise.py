"""Records → typed columns: what every kind accepts, and the message for what it does not."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fullrank.data.columns import NEVER, DataError, Ragged
from fullrank.data.keys import code_of_key
from fullrank.data.normalise import Origin, normalise
from fullrank.schema import Feature, Roles, Schema, Task

ORIGIN = Origin("day1.parquet", first_row=100)
ALWAYS = np.iinfo(np.int64).min


def run(schema, columns, **options):
    arrays = [column if isinstance(column, pa.Array) else pa.array(column) for column in columns.values()]
    return normalise(schema, pa.RecordBatch.from_arrays(arrays, names=list(columns)), ORIGIN, **options)


def one_feature(kind, values, **options):
    schema = Schema(features=(Feature(name="f", kind=kind, **options),))
    return run(schema, {"f": values}).columns["f"]


def message(schema, columns, **options):
    with pytest.raises(DataError) as caught:
        run(schema, columns, **options)
    return str(caught.value)


def feature_message(kind, values, **options):
    return message(Schema(features=(Feature(name="f", kind=kind, **options),)), {"f": values})


def label(kind, values, **options):
    made = run(Schema(tasks=(Task(name="y", kind=kind, **options),)), {"y": values})
    return made.array("@label.y"), made.array("@known_at.y")


# keys


def test_one_key_as_text_number_float_and_dictionary():
    as_text = one_feature("categorical", ["1", "007", "é", None, ""])
    assert as_text.tolist() == [code_of_key(1), code_of_key("007"), code_of_key("é"), 0, 0]
    for column in (
        pa.array([1]),
        pa.array([1.0]),
        pa.array(["1"]).dictionary_encode(),
        pa.array(["1"], pa.string_view()),
    ):
        assert one_feature("categorical", column).tolist() == [code_of_key(1)]


@given(
    st.lists(
        st.one_of(st.none(), st.text(max_size=4), st.integers(-(2**63), 2**63 - 1).map(str)), max_size=20
    )
)
@settings(max_examples=40, deadline=None)
def test_keys_round_trip_through_their_texts(values):
    schema = Schema(features=(Feature(name="f", kind="categorical"),))
    made = run(schema, {"f": pa.array(values, pa.string())})
    keys = made.keys["f"]
    text_of = dict(zip(keys.unique_codes.tolist(), keys.unique_texts.to_pylist(), strict=True))
    assert [text_of.get(code, "") for code in made.array("f").tolist()] == [value or "" for value in values]


def test_a_key_of_one_and_a_half_is_an_error_with_its_row():
    text = feature_message("categorical", [1.0, None, 1.5])
    assert text.startswith(
        "day1.parquet: row 103, column 'f': expected an integer, a text or an integral float"
    )
    assert text.endswith("got 1.5.")


def test_a_struct_is_no_key():
    text = feature_message("categorical", [{"a": 1}])
    assert (
        "column 'f' has type struct<a: int64>; expected a column of integers, texts or integral floats"
        in text
    )


def test_the_hash_key_hides_identity_alone():
    schema = Schema(
        roles=Roles(user="u", item="i", impression="imp", request="r"),
        features=(
            Feature(name="same", kind="categorical", column="u"),
            Feature(name="friend", kind="categorical", key_space="user"),
            Feature(name="other", kind="categorical"),
        ),
    )
    columns = {name: ["7"] for name in ("u", "i", "imp", "r", "friend", "other")}
    secret = b"0123456789abcdef"
    plain, hidden = run(schema, columns), run(schema, columns, hash_key=secret)
    for name in ("user", "@user", "@impression", "@request", "same", "friend"):
        assert hidden.array(name).tolist() == [code_of_key(7, secret)], name
        assert hidden.keys[name].unique_texts.to_pylist() != ["7"]
    for name in ("item", "@item", "other"):
        assert hidden.array(name).tolist() == plain.array(name).tolist() == [code_of_key(7)], name


# multi-valued


def test_multi_drops_nulls_with_their_weights_and_takes_any_list_type():
    feature = Feature(name="f", kind="multi", weights="w")
    values = [["a", None, "1"], [], None, ["b"]]
    weights = [[0.5, None, 2.0], [], None, [1.0]]
    for kind in (pa.list_(pa.string()), pa.large_list(pa.string())):
        made = run(Schema(features=(feature,)), {"f": pa.array(values, kind), "w": weights})
        assert made.ragged("f").values.tolist() == [code_of_key(key) for key in ("a", 1, "b")]
        assert made.ragged("f").offsets.tolist() == [0, 2, 2, 2, 3]
        assert made.ragged("f@weights").values.tolist() == [0.5, 2.0, 1.0]
        assert made.ragged("f@weights").offsets is made.ragged("f").offsets
    fixed = one_feature("multi", pa.array([[1, 2], None], pa.list_(pa.int64(), 2)))
    assert isinstance(fixed, Ragged) and fixed.offsets.tolist() == [0, 2, 2]
    assert len(one_feature("multi", pa.nulls(3))) == 3


def test_multi_of_a_sliced_batch():
    batch = pa.RecordBatch.from_pydict({"f": [[1], [2, 3], None, [4]]}).slice(1)
    made = normalise(Schema(features=(Feature(name="f", kind="multi"),)), batch, ORIGIN).ragged("f")
    assert made.values.tolist() == [code_of_key(key) for key in (2, 3, 4)] and made.offsets.tolist() == [
        0,
        2,
        2,
        3,
    ]


def test_multi_errors():
    text = feature_message("multi", ["a,b"])
    assert "has type large_string; expected lists (feature 'f'). Of texts, JSON arrays are lists" in text
    assert "row 103, column 'f'" in feature_message("multi", [[], [1.0, 2.0], [3.0, 2.5]])
    feature = Feature(name="f", kind="multi", weights="w")
    text = message(Schema(features=(feature,)), {"f": [[1], [1, 2]], "w": [[1.0], [1.0]]})
    assert "row 102, column 'w': expected as many values as column 'f' has (2), not 1, got [1.0]" in text
    text = message(Schema(features=(feature,)), {"f": [[1, 2]], "w": [[1.0, None]]})
    assert "row 101, column 'w': expected a finite weight, got None" in text


# numbers


def test_numbers_of_any_type():
    assert one_feature("numeric", ["1.5", " -2 ", "1e3", "", None, "nan"])[:3].tolist() == [1.5, -2.0, 1000.0]
    assert np.isnan(one_feature("numeric", ["", None, "nan", "NaN"])).all()
    assert one_feature("numeric", [True, False]).tolist() == [1, 0]
    assert one_feature("numeric", pa.array([2**63 + 1], pa.uint64())).tolist() == [2.0**63]
    assert one_feature("numeric", pa.array([1, None], pa.decimal128(5, 1)))[0] == 1
    assert np.isnan(one_feature("numeric", pa.nulls(2))).all()
    assert one_feature("numeric", pa.array([1.5], pa.float16())).dtype == np.float32


def test_bad_numbers():
    for bad in ([1.0, np.inf], [1.0, -np.inf], ["1", "inf"], [1.0, 1e39]):
        text = feature_message("numeric", bad)
        assert "row 102, column 'f': expected a finite number" in text and repr(bad[1]) in text
    assert "row 104, column 'f'" in feature_message("numeric", ["1", "2", "", "twelve", "4", "x"])
    assert "'twelve'" in feature_message("numeric", ["1", "2", "", "twelve", "4", "x"])
    assert "has type list" in feature_message("numeric", [[1]])


def test_vectors():
    made = one_feature("vector", [[1.0, 2.0], None, []], dim=2)
    assert made[0].tolist() == [1.0, 2.0] and np.isnan(made[1:]).all() and made.dtype == np.float32
    text = feature_message("vector", [[1.0, 2.0], [1.0, 2.0, 3.0]], dim=2)
    assert "row 102, column 'f': expected 2 numbers (vector 'f'), not 3, got [1.0, 2.0, 3.0]" in text
    assert "row 102" in feature_message("vector", [[1.0, 2.0], [1.0, None]], dim=2)


def test_texts_keep_unicode_and_null():
    schema = Schema(roles=Roles(item="i"), features=(Feature(name="title", kind="text", of="item"),))
    for values, texts in ((["Amélie ☂", None], ["Amélie ☂", None]), ([1984, None], ["1984", None])):
        assert run(schema, {"i": [1, 2], "title": values}).texts["title"].to_pylist() == texts
    assert "type double; expected texts" in message(schema, {"i": [1], "title": [1.5]})


# labels


@given(st.lists(st.sampled_from([0, 1, None]), max_size=10), st.integers(0, 5))
@settings(max_examples=40, deadline=None)
def test_binary_labels_in_every_form_are_one_label(values, form):
    forms = [
        (pa.bool_(), lambda v: bool(v)),
        (pa.int8(), lambda v: v),
        (pa.float32(), lambda v: float(v)),
        (pa.string(), lambda v: str(v)),
        (pa.string(), lambda v: ["FALSE", "tRue"][v]),
        (pa.large_string(), lambda v: [" false", "True "][v]),
    ]
    kind, write = forms[form]
    got, known = label("binary", pa.array([None if v is None else write(v) for v in values], kind))
    assert got.tolist() == [v or 0 for v in values]
    assert known.tolist() == [NEVER if v is None else ALWAYS for v in values]


@pytest.mark.parametrize("bad", [[0, 2], [0.0, 0.5], ["0", "perhaps"], [0, -1], [0.0, np.inf]])
def test_a_label_outside_its_domain(bad):
    text = message(Schema(tasks=(Task(name="y"),)), {"y": bad})
    assert (
        text.startswith("day1.parquet: row 102, column 'y': expected 0 or 1 (") and f"got {bad[1]!r}" in text
    )


def test_classes_and_values():
    assert label("multiclass", [0, 2, None], classes=3)[0].tolist() == [0, 2, 0]
    assert label("multiclass", ["1"], classes=3)[0].tolist() == [1]
    assert label("regression", [1.5, np.nan])[1].tolist() == [ALWAYS, NEVER]
    task = Task(name="y", kind="multiclass", classes=3)
    for bad in (3, -1, 0.5):
        text = message(Schema(tasks=(task,)), {"y": [bad]})
        assert "an integer from 0 to 2 (the classes of task 'y'" in text
    assert "finite" in message(Schema(tasks=(Task(name="y", kind="regression"),)), {"y": [np.inf]})


def test_when_a_label_is_known():
    schema = Schema(
        roles=Roles(time="t"),
        tasks=(Task(name="click"), Task(name="buy", column="b", label_time="bt", window=100)),
    )
    columns = {
        "t": [10] * 5,
        "click": [1, 0, None, 1, 1],
        "b": [1, 1, 1, 0, None],
        "bt": [30, None, 5, 20, 20],
    }
    made = run(schema, columns)
    second = 1_000_000
    assert made.array("@known_at.click").tolist() == [
        10 * second,
        10 * second,
        NEVER,
        10 * second,
        10 * second,
    ]
    # dated · undated waits for the window · dated before its row counts from it · negative · not known
    assert made.array("@known_at.buy").tolist() == [
        30 * second,
        110 * second,
        10 * second,
        110 * second,
        NEVER,
    ]


def test_a_task_of_some_scenarios_is_never_known_in_others():
    schema = Schema(roles=Roles(scenario="s"), tasks=(Task(name="y", scenarios=("feed",)),))
    made = run(schema, {"s": ["feed", "search"], "y": [1, 1]})
    assert made.array("@label.y").tolist() == [1, 0] and made.array("@known_at.y").tolist() == [ALWAYS, NEVER]


# roles


def test_logged_numbers():
    roles = Roles(
        weight="w", sample_rate="s", propensity="p", exploration="e", position="pos", bid="bid", price="pr"
    )
    columns = {
        "w": [0, 2.5],
        "s": [1, 0.5],
        "p": ["0.1", "1"],
        "e": [True, None],
        "pos": [1, 2],
        "bid": [1.5, 2],
        "pr": [1, None],
    }
    made = run(Schema(roles=roles), columns)
    assert made.array("@weight").tolist() == [0, 2.5] and made.array("@sample_rate").tolist() == [1, 0.5]
    assert (
        np.isnan(made.array("@exploration")).tolist() == [False, True] and np.isnan(made.array("@price"))[1]
    )
    for column, bad, words in (
        ("w", -1, "a number >= 0"),
        ("w", None, "a number >= 0"),
        ("s", None, "> 0"),
        ("s", 0, "> 0 and <= 1"),
        ("p", "1.5", "> 0"),
    ):
        text = message(Schema(roles=roles), {**columns, column: [columns[column][0], bad]})
        assert f"row 102, column '{column}': expected" in text and words in text and f"got {bad!r}" in text


def test_keys_of_scenario_campaign_and_advertiser():
    roles = Roles(scenario="page", campaign="c", advertiser="a")
    made = run(Schema(roles=roles), {"page": ["feed", None], "c": [7, 8], "a": ["acme", "7"]}, labels=False)
    expected = {"scenario": ("feed", None), "campaign": (7, 8), "advertiser": ("acme", 7)}
    for role, keys in expected.items():
        codes = [code_of_key(key) if key is not None else 0 for key in keys]
        assert made.columns[f"@{role}"].dtype == np.uint64 and made.columns[f"@{role}"].tolist() == codes
    assert "expected column 'a' (role advertiser)" in message(Schema(roles=roles), {"page": [1], "c": [1]})


def test_without_labels_what_logging_adds_may_be_absent():
    schema = Schema(
        roles=Roles(user="u", impression="imp", weight="w", propensity="p"),
        features=(Feature(name="x", kind="numeric"),),
        tasks=(Task(name="y", label_time="yt"),),
    )
    made = run(schema, {"u": [1], "x": [2.0]}, labels=False)
    assert sorted(made.columns) == ["@user", "user", "x"]
    assert "@label.y" in run(schema, {"u": [1], "x": [2.0], "y": [1]}, labels=False).columns
    assert "expected column 'x' (feature 'x')" in message(schema, {"u": [1]}, labels=False)
    assert "expected column 'imp' (role impression)" in message(schema, {"u": [1], "x": [2.0]})


def test_a_missing_column_names_the_nearest_and_all():
    text = message(Schema(roles=Roles(user="user_id")), {"userid": [1], "item": [2]})
    assert text == (
        "day1.parquet: expected column 'user_id' (role user), found ['userid', 'item']. Did you mean 'userid'?"
    )
    twice = pa.RecordBatch.from_arrays([pa.array([1]), pa.array([1])], names=["u", "u"])
    with pytest.raises(DataError, match="column 'u' \\(role user\\) once, found it 2 times"):
        normalise(Schema(roles=Roles(user="u")), twice, ORIGIN)


def test_a_long_bad_value_is_cut():
    text = feature_message("numeric", ["x" * 10_000])
    assert len(text) < 400 and "…" in text


def test_no_rows_and_one_row():
    schema = Schema(
        roles=Roles(user="u", item="i", time="t"),
        features=(Feature(name="g", kind="multi"), Feature(name="v", kind="vector", dim=2)),
        tasks=(Task(name="y"),),
        time_sorted=True,
    )
    columns = {"u": ["a"], "i": [1], "t": [5], "g": [[1]], "v": [[1.0, 2.0]], "y": [1]}
    one = run(schema, columns)
    assert one.num_rows == 1 and one.first_time == one.last_time == 5_000_000
    batch = pa.RecordBatch.from_pydict(columns).slice(0, 0)
    assert normalise(schema, batch, ORIGIN).num_rows == 0
