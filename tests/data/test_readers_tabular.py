import csv
import gzip
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fullrank.data.columns import DataError
from fullrank.data.readers.tabular import TabularSource, columns_read
from fullrank.data.source import CHUNK_ROWS, write_parquet
from fullrank.schema import EventFeature, Feature, History, Roles, Schema, Task

SCHEMA = Schema(
    roles=Roles(user="user", item="item", time="time"),
    features=(
        Feature(name="price", kind="numeric", of="item"),
        Feature(name="tags", kind="multi", of="item", weights="tag_weights"),
        Feature(name="title", kind="text", of="item"),
    ),
    tasks=(Task(name="click"),),
)
HEADER = ["user", "item", "time", "price", "tags", "tag_weights", "title", "click", "unused"]
LINES = [
    ["007", "a", "10", "1.5", "x|y", "0.5|2", 'a "quoted", title', "1", "?"],
    ["7", "b", "11", "", "", "", "two\nlines", "true", "?"],
    ["NA", "ü", "12", "NaN", "z", "1", "", "0", "?"],
]


def write_csv(path: Path, lines: list[list[str]] = LINES, header: list[str] = HEADER) -> Path:
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "wt", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *lines])
    return path


def rows_of(source: TabularSource) -> list[dict]:
    return [row for chunk in source.chunks() for row in chunk.records.to_pylist()]


@pytest.mark.parametrize("name", ["log.csv", "log.csv.gz"])
def test_csv_keys_stay_text_and_only_numbers_know_na(tmp_path, name):
    rows = rows_of(TabularSource([write_csv(tmp_path / name)], SCHEMA))
    assert [row["user"] for row in rows] == ["007", "7", "NA"]
    assert [row["item"] for row in rows] == ["a", "b", "ü"]
    assert [row["time"] for row in rows] == ["10", "11", "12"]
    assert [row["price"] for row in rows] == ["1.5", None, None]
    assert [row["tags"] for row in rows] == [["x", "y"], None, ["z"]]
    assert [row["tag_weights"] for row in rows] == [["0.5", "2"], None, ["1"]]
    assert [row["title"] for row in rows] == ['a "quoted", title', "two\nlines", None]
    assert [row["click"] for row in rows] == ["1", "true", "0"]
    assert "unused" not in rows[0]


def test_tab_separated_text_has_no_quotes(tmp_path):
    schema = Schema(roles=Roles(item="u"), features=(Feature(name="t", kind="text", of="item"),))
    (tmp_path / "log.tsv").write_text('u\tt\n1\t"never closed\n2\tb\n')
    assert rows_of(TabularSource([tmp_path / "log.tsv"], schema)) == [
        {"u": "1", "t": '"never closed'},
        {"u": "2", "t": "b"},
    ]


def test_parquet_and_csv_of_one_log_agree(tmp_path):
    source = TabularSource([write_csv(tmp_path / "log.csv")], SCHEMA)
    parquet = TabularSource([write_parquet(source, tmp_path / "log.parquet")], SCHEMA)
    assert rows_of(parquet) == rows_of(source)


def test_chunks_are_bounded_say_where_they_are_and_come_again(tmp_path):
    rows = 2 * CHUNK_ROWS + 17
    table = pa.table({"u": range(rows), "unused": [1.0] * rows})
    pq.write_table(table, tmp_path / "b.parquet", row_group_size=CHUNK_ROWS + 5)
    pq.write_table(table.slice(0, 3), tmp_path / "a.parquet")
    pq.write_table(table.slice(0, 0), tmp_path / "empty.parquet")
    source = TabularSource([tmp_path], Schema(roles=Roles(user="u")))
    for _ in range(2):
        chunks = list(source.chunks())
        assert max(chunk.records.num_rows for chunk in chunks) <= CHUNK_ROWS
        assert [Path(chunk.file).name for chunk in chunks][:2] == ["a.parquet", "b.parquet"]
        for chunk in chunks:
            assert chunk.records.schema.names == ["u"]
            first = chunk.first_row
            assert chunk.records["u"].to_pylist() == list(range(first, first + chunk.records.num_rows))
        assert sum(chunk.records.num_rows for chunk in chunks) == rows + 3


def test_csv_chunks_are_bounded_and_counted(tmp_path):
    (tmp_path / "log.csv").write_text("u\n" + "\n".join(map(str, range(CHUNK_ROWS + 9))))
    chunks = list(TabularSource([tmp_path / "log.csv"], Schema(roles=Roles(user="u"))).chunks())
    assert max(chunk.records.num_rows for chunk in chunks) <= CHUNK_ROWS
    for chunk in chunks:
        assert chunk.records["u"][0].as_py() == str(chunk.first_row)


def test_dictionary_columns_are_written_out(tmp_path):
    pq.write_table(pa.table({"u": pa.array(["a", "b", "a"]).dictionary_encode()}), tmp_path / "d.parquet")
    (chunk,) = TabularSource([tmp_path / "d.parquet"], Schema(roles=Roles(user="u"))).chunks()
    assert chunk.records["u"].type == pa.string()


def test_given_splits_follow_their_files(tmp_path):
    files = [write_csv(tmp_path / f"{name}.csv", LINES[i : i + 1]) for i, name in enumerate(("x", "y", "z"))]
    source = TabularSource(files, SCHEMA, ["train", "test", "train"])
    assert [(chunk.split, chunk.records["user"][0].as_py()) for chunk in source.chunks()] == [
        ("train", "007"), ("test", "7"), ("train", "NA"),
    ]  # fmt: skip


def test_fingerprint_is_of_contents(tmp_path):
    first = TabularSource([write_csv(tmp_path / "a.csv")], SCHEMA).fingerprint()
    assert TabularSource([write_csv(tmp_path / "b.csv")], SCHEMA).fingerprint() == first
    assert TabularSource([write_csv(tmp_path / "b.csv", LINES[:2])], SCHEMA).fingerprint() != first


def test_inline_history_in_text(tmp_path):
    schema = Schema(
        roles=Roles(user="u", time="t"),
        histories=(History(name="h", layout="inline", item="hi", time="ht", features=(EventFeature(name="a"),)),),
    )
    assert columns_read(schema)["ht"] == "list"
    (tmp_path / "h.csv").write_text("u,t,hi,ht,a\n1,9,i|j,7|8,05|6\n2,9,,,\n")
    assert rows_of(TabularSource([tmp_path / "h.csv"], schema))[0] == {
        "u": "1", "t": "9", "hi": ["i", "j"], "ht": ["7", "8"], "a": ["05", "6"],
    }  # fmt: skip


def test_columns_of_event_files_are_not_asked_of_the_log():
    history = History(name="h", source="file", user="who", item="what", time="when")
    assert "when" not in columns_read(Schema(roles=Roles(user="u", time="t"), histories=(history,)))


def _message(path: Path, schema: Schema = SCHEMA) -> str:
    with pytest.raises(DataError) as caught:
        rows_of(TabularSource([path], schema))
    return str(caught.value)


def test_missing_column_names_the_nearest(tmp_path):
    header = ["usr", *HEADER[1:]]
    message = _message(write_csv(tmp_path / "log.csv", header=header))
    assert "log.csv" in message and "expected column 'user'" in message and "Did you mean 'usr'?" in message
    pq.write_table(pa.table({"usr": [1]}), tmp_path / "log.parquet")
    assert "Did you mean 'usr'?" in _message(tmp_path / "log.parquet")


def test_a_ragged_line_is_named(tmp_path):
    write_csv(tmp_path / "log.csv", [*LINES[:1], ["8", "c"], *LINES[2:]])
    message = _message(tmp_path / "log.csv")
    assert "log.csv, line 3: expected 9 fields, got 2" in message and "'8,c'" in message


def test_bytes_that_are_no_text_are_named(tmp_path):
    (tmp_path / "log.csv").write_bytes(b"u\nok\n\xff\xfe\n")
    message = _message(tmp_path / "log.csv", Schema(roles=Roles(user="u")))
    assert "log.csv, line 3: expected UTF-8" in message


def test_broken_files_are_named(tmp_path):
    whole = write_csv(tmp_path / "log.csv.gz", LINES * 1000).read_bytes()
    (tmp_path / "log.csv.gz").write_bytes(whole[: len(whole) // 2])
    assert "log.csv.gz: expected a whole gzip file" in _message(tmp_path / "log.csv.gz")
    pq.write_table(pa.table({"u": range(1000)}), tmp_path / "log.parquet")
    whole = (tmp_path / "log.parquet").read_bytes()
    (tmp_path / "log.parquet").write_bytes(whole[:-20])
    assert "log.parquet: expected a whole Parquet file" in _message(tmp_path / "log.parquet")
    (tmp_path / "log.parquet").write_bytes(b"")
    assert "write or fetch it again" in _message(tmp_path / "log.parquet")
    (tmp_path / "log.csv").write_bytes(b"")
    assert "got no line at all" in _message(tmp_path / "log.csv")


def test_what_is_not_there_or_not_known_is_named(tmp_path):
    write_csv(tmp_path / "log.csv")
    assert "Did you mean 'log.csv'?" in _message(tmp_path / "lag.csv")
    (tmp_path / "log.xlsx").write_bytes(b"")
    assert "expected one of .parquet" in _message(tmp_path / "log.xlsx")
    with pytest.raises(DataError, match=r"got 'validation'\. Did you mean 'valid'"):
        TabularSource([tmp_path / "log.csv"], SCHEMA, ["validation"])
    with pytest.raises(DataError, match="one split for each of 1 files, got 2"):
        TabularSource([tmp_path / "log.csv"], SCHEMA, ["train", "test"])
