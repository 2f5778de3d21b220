"""Logs as people have them: what is guessed, what is said about it, and that every row of them can then be read."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from test_infer import N, ads_log, guess, kinds, renamed, write_parquet, write_text

from fullrank.data.columns import DataError
from fullrank.data.infer import infer_schema
from fullrank.data.keys import code_of_key
from fullrank.data.normalise import Origin, normalise
from fullrank.data.readers.tabular import TabularSource
from fullrank.schema import EventOutcome, Feature, History, Roles, Schema, SchemaError, Task, TimeColumn
from fullrank.schema_toml import from_toml, to_toml


def read(path: Path, schema: Schema):
    (chunk,) = TabularSource([path], schema).chunks()
    return normalise(schema, chunk.records, Origin(chunk.file))


@pytest.mark.parametrize("words", [("no", "yes"), ("N", "Y"), ("0.0", "1.0"), (" No ", "YES")])
def test_labels_in_words(tmp_path: Path, words: tuple[str, str]) -> None:
    log = ads_log()
    clicks = np.array(log["click"])
    log["click"] = [words[c] for c in clicks]
    path = write_text(tmp_path / "log.csv", log)
    schema = guess(path).schema
    assert [(task.name, task.kind) for task in schema.tasks] == [("click", "binary"), ("purchase", "binary")]
    assert schema.histories[0].where == "click" and schema.tasks[1].parent == "click"
    rows = read(path, schema)
    np.testing.assert_array_equal(rows.array("@label.click"), clicks)
    np.testing.assert_array_equal(rows.array("@history.past.where"), clicks == 1)


def test_outcomes_in_words(tmp_path: Path) -> None:
    log = ads_log()
    likes = 1 - np.array(log["click"])
    log["click"] = [("no", "yes")[c] for c in likes]
    path = write_text(tmp_path / "log.csv", log)
    schema = guess(path).schema
    assert schema.histories == (History(name="past", outcomes=(EventOutcome(name="click"),)),)
    np.testing.assert_array_equal(read(path, schema).array("@history.past.click"), likes)


def test_a_bom_leading_zeros_and_quoted_commas(tmp_path: Path) -> None:
    log = ads_log()
    log["user_id"] = [f"{u:08d}" for u in log["user_id"]]
    log["title"] = [f"one, two and {t}, {i % 7}" for i, t in enumerate(log["ad_id"])]
    log = {name: log[name] for name in ("user_id", "ad_id", "timestamp", "click", "title")}
    path = write_text(tmp_path / "log.csv", log)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    schema = guess(path).schema
    assert schema.roles.user == "user_id" and schema.roles.item == "ad_id"
    assert read(path, schema).array("@user")[0] == code_of_key(log["user_id"][0]) != code_of_key(int(log["user_id"][0]))


def test_numbers_that_become_text_are_pointed_at(tmp_path: Path) -> None:
    log = ads_log()
    log["shelf"] = [i % 40 if i < 3_000 or i % 2 else f"B-{i % 3}" for i in range(N)]
    text = guess(write_text(tmp_path / "log.csv", log)).toml()
    assert "87.5% of them are numbers, the first other is 'B-0' in row 3,001: if that is a slip, mend the log" in text
    log["shelf"] = [f"{i % 97}|{i % 89}" if i % 2 else str(i % 97) for i in range(N)]
    guessed = guess(write_parquet(tmp_path / "log.parquet", log))
    assert kinds(guessed.schema)["shelf"][0] == "multi"
    log["shelf"] = [f"{(i * i) % 1009}|{i % 89}" if i % 20 == 0 else str(i % 7) for i in range(N)]
    assert "5% of them hold '|': if that parts values, set kind = 'multi'" in guess(
        write_parquet(tmp_path / "log.parquet", log)
    ).toml()


def test_lists_written_as_texts(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    log = ads_log()
    tags, dense = log["tags"], rng.normal(size=(100, 3)).round(3)
    ads = [int(ad[3:]) for ad in log["ad_id"]]
    lists = [[f"ad-{a}" for a in rng.integers(0, 100, k)] for k in rng.integers(0, 5, N)]
    log["tags"] = [json.dumps(t) for t in tags]
    log["place"] = [str(dense[a].tolist()) for a in ads]
    log["hist_ad_id"] = [str(one) for one in lists]  # with Python's quotes
    plain = log | {"tags": tags, "place": [dense[a].tolist() for a in ads], "hist_ad_id": lists}
    expected = guess(write_parquet(tmp_path / "plain.parquet", plain)).schema
    for path in (write_parquet(tmp_path / "log.parquet", log), write_text(tmp_path / "log.csv", log)):
        guessed = guess(path)
        assert guessed.schema.features == expected.features and guessed.schema.histories == expected.histories
        assert "4 distinct values in JSON arrays" in guessed.toml()
        rows, straight = read(path, guessed.schema), read(tmp_path / "plain.parquet", expected)
        for name in ("tags", "@history.hist.item"):
            np.testing.assert_array_equal(rows.ragged(name).values, straight.ragged(name).values)
            np.testing.assert_array_equal(rows.ragged(name).offsets, straight.ragged(name).offsets)
        np.testing.assert_array_equal(rows.array("place"), straight.array("place"))


def made(values: list) -> list[list[int]]:
    batch = pa.RecordBatch.from_pydict({"f": values})
    column = normalise(Schema(features=(Feature(name="f", kind="multi"),)), batch, Origin("log")).ragged("f")
    return [column.values[a:b].tolist() for a, b in zip(column.offsets[:-1], column.offsets[1:], strict=True)]


def codes(*keys: int | str) -> list[int]:
    return [code_of_key(key) for key in keys]


def test_what_texts_spell() -> None:
    assert made(["[1, 2]", "[]", None, " [3] "]) == [codes(1, 2), [], [], codes(3)]
    assert made(['["a, b","c"]', '["2025-01-31"]', '["7"]']) == [codes("a, b", "c"), codes("2025-01-31"), codes(7)]
    assert made(["['it', 'x']", ""]) == [codes("it", "x"), []]
    assert made(["a|b", "c", None]) == [codes("a", "b"), codes("c"), []]
    assert made(["a", "b"]) == [codes("a"), codes("b")]
    assert made(["a,b|c"]) == [codes("a,b", "c")]
    assert made(["[x|y]z"]) == [codes("[x", "y]z")]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (['["a"]', "[1, 2"], "column 'f' has type|row 2"),
        (['["a"]', "[1]"], r"log: row 2, column 'f': expected a list: a JSON array of .*, got '\[1\]'"),
        (["[1]", "[1, }]"], r"log: row 2, column 'f': expected a list: .*, got '\[1, \}\]'"),
        (["a,b", "c"], "has type large_string; expected lists"),
    ],
)
def test_texts_that_spell_no_list(values: list, message: str) -> None:
    if values[1] == "[1, 2":  # not all of them are arrays: values with `|` between them, of which there is none
        with pytest.raises(DataError, match="expected lists"):
            made(values)
        return
    with pytest.raises(DataError, match=message):
        made(values)


def test_times_in_several_units(tmp_path: Path) -> None:
    """ISO with zones for the row, milliseconds for the label; the same seconds come out of all."""
    log = ads_log()
    seconds, late = np.array(log["timestamp"]), log["purchase_time"]
    zones = [("+02:00", 7_200), ("Z", 0), ("-05:30", -19_800)]
    iso = [str(np.datetime64(t + zones[i % 3][1], "s")) + zones[i % 3][0] for i, t in enumerate(seconds.tolist())]
    order = np.random.default_rng(0).permutation(N)
    messy = log | {"timestamp": iso, "purchase_time": [None if t is None else t * 1_000 for t in late]}
    messy = {name: [column[i] for i in order] for name, column in renamed(messy, timestamp="event_time").items()}
    path = write_text(tmp_path / "log.csv", messy)
    guessed = guess(path)
    schema = guessed.schema
    assert schema.roles.time == "event_time" and schema.time_columns == (TimeColumn(name="purchase_time", unit="ms"),)
    assert (schema.tasks[1].label_time, schema.tasks[1].window) == ("purchase_time", 86_400)
    assert "# in 'ms', while the row's time has dates: only so they fit together\n[[time_column]]" in guessed.toml()
    rows = read(path, schema)
    np.testing.assert_array_equal(rows.array("@time"), seconds[order] * 1_000_000)
    known = rows.array("@known_at.purchase")
    for at, row in enumerate(order.tolist()):
        if late[row] is not None:
            assert known[at] == late[row] * 1_000_000


def test_lists_of_times_in_another_unit(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    log = ads_log()
    lengths = rng.integers(0, 6, N)
    log["hist_ad_id"] = [[f"ad-{a}" for a in rng.integers(0, 100, k)] for k in lengths]
    ages = [sorted(rng.integers(1, 9_999, k).tolist(), reverse=True) for k in lengths]
    log["hist_ts"] = [[(t - a) * 1_000 for a in row] for t, row in zip(log["timestamp"], ages, strict=True)]
    path = write_parquet(tmp_path / "log.parquet", log)
    schema = guess(path).schema
    assert schema.history("hist").time == "hist_ts" and schema.time_columns == (TimeColumn(name="hist_ts", unit="ms"),)
    times = read(path, schema).ragged("@history.hist.time")
    row = int(np.argmax(lengths > 0))
    first = int(times.offsets[row])
    assert times.values[first] == (log["timestamp"][row] - ages[row][0]) * 1_000_000


def test_units_of_time_columns_are_checked_and_written() -> None:
    schema = Schema(
        roles=Roles(time="t"),
        tasks=(Task(name="buy", label_time="late", window=5),),
        time_columns=(TimeColumn(name="late", unit="us"),),
    )
    assert from_toml(to_toml(schema)) == schema and "[[time_column]]" in to_toml(schema)
    assert (schema.unit_of("late"), schema.unit_of("t")) == ("us", "s")
    with pytest.raises(SchemaError, match=r"'lat' to be one of the columns of times \['late', 't'\]. Did you"):
        Schema(roles=schema.roles, tasks=schema.tasks, time_columns=(TimeColumn(name="lat", unit="us"),))
    with pytest.raises(SchemaError, match="Expected unit of time column 't' to be one of 's', 'ms', 'us', got 'h'"):
        TimeColumn(name="t", unit="h")  # type: ignore[arg-type]
    with pytest.raises(SchemaError, match="there is no clock"):
        Schema(roles=Roles(order="t"), time_unit="position", time_columns=(TimeColumn(name="t", unit="s"),))
    batch = pa.RecordBatch.from_pydict({"t": [10**12], "buy": [1], "late": [None]})
    with pytest.raises(DataError, match=r"in 's': is that the log's time_unit\? One column's own goes in a \[\[time_"):
        normalise(Schema(roles=Roles(time="t")), batch, Origin("log"))


def test_a_struct_is_left_out_with_a_word(tmp_path: Path) -> None:
    table = pa.table(ads_log() | {"phone": [{"os": "a", "screen": {"wide": 3}}] * N})
    pq.write_table(table, tmp_path / "log.parquet")
    assert "#   phone: type struct<os: string, screen: struct<wide: int64>>: spread it over plain columns" in (
        infer_schema(tmp_path / "log.parquet").toml()
    )


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "user;price\n1;2,5\n", "separated by semicolons: write the file again with commas"),
        ("a.csv", "user;price\n1;2\n", "separated by semicolons: write the file again with commas"),
        ("a.csv", "user\tprice\n1\t2,5\n", "separated by tabs: name the file .tsv"),
        ("a.tsv", "user,price\n1,2\t5\n", "separated by commas: name the file .csv"),
        ("a.csv", ",user\n0,1\n", "a column without a name (row numbers, perhaps,"),
    ],
)
def test_files_of_another_form_are_named(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(DataError) as caught:
        infer_schema(tmp_path / name)
    assert message in str(caught.value)
