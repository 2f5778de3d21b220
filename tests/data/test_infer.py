"""A guessed schema is read back, fits the log it was guessed from, and says why; the logs are made here."""

from __future__ import annotations

import csv
import gzip
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fullrank.data.columns import DataError
from fullrank.data.infer import Guess, infer_schema
from fullrank.data.infer_features import one_value_per_key
from fullrank.data.infer_sample import Column
from fullrank.data.normalise import Origin, normalise
from fullrank.data.readers.tabular import TabularSource
from fullrank.schema import EventFeature, EventOutcome, History, Schema
from fullrank.schema_toml import from_toml

N = 4_000
START = 1_700_000_000


def ads_log(seed: int = 0) -> dict[str, list]:
    """Requests of four ads each: every kind of column that an ordinary ad log has, in its plainest form."""
    rng = np.random.default_rng(seed)
    request = np.repeat(np.arange(N // 4), 4)
    user = rng.integers(0, 200, N // 4)[request]
    ad = rng.integers(0, 100, N)
    time = START + np.sort(rng.integers(0, 5 * 86_400, N // 4))[request]
    click = rng.random(N) < 0.2
    bought = click & (rng.random(N) < 0.3)
    tags = [rng.choice(["red", "big", "new", "old"], rng.integers(1, 4), replace=False).tolist() for _ in range(100)]
    return {
        "request_id": [f"r{r}" for r in request],
        "impression_id": list(range(10**12, 10**12 + N)),
        "user_id": (user + 1000).tolist(),
        "ad_id": [f"ad-{a}" for a in ad],
        "campaign_id": (ad // 5).tolist(),
        "timestamp": time.tolist(),
        "position": np.tile(np.arange(4), N // 4).tolist(),
        "click": click.astype(int).tolist(),
        "purchase": bought.astype(int).tolist(),
        "purchase_time": np.where(bought, time + rng.integers(60, 86_000, N), None).tolist(),
        "gender": [["m", "f", None][u % 3] for u in user],
        "age": [None if u % 10 == 0 else 18 + u % 50 for u in user],
        "device_type": rng.integers(0, 4, N // 4)[request].tolist(),
        "tags": [tags[a] for a in ad],
        "title": [f"the very best offer number {a}" for a in ad],
        "price": (ad * 0.5 + 0.25).tolist(),
        "bid": np.exp(rng.normal(size=N)).tolist(),
        "price_paid": np.exp(rng.normal(size=N)).tolist(),
        "propensity": rng.uniform(0.01, 1.0, N).tolist(),
        "match_score": rng.random(N).tolist(),
        "version": [1] * N,
        "nothing": [None] * N,
        "query": [f"what somebody typed before row {i}" for i in range(N)],
    }


def write_text(path: Path, log: dict[str, list], delimiter: str = ",") -> Path:
    def cell(value: object) -> object:
        return "" if value is None else "|".join(map(str, value)) if isinstance(value, list) else value

    with gzip.open(path, "wt", newline="") if path.suffix == ".gz" else path.open("w", newline="") as file:
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerow(log)
        writer.writerows(zip(*([cell(value) for value in column] for column in log.values()), strict=True))
    return path


def write_parquet(path: Path, log: dict[str, list]) -> Path:
    pq.write_table(pa.table(log), path)
    return path


def guess(path: Path) -> Guess:
    """The guess, once its text was read back and every row of the log has passed through the guessed schema."""
    guessed = infer_schema(path)
    assert from_toml(guessed.toml()) == guessed.schema
    rows = 0
    for chunk in TabularSource([path], guessed.schema).chunks():
        rows += normalise(guessed.schema, chunk.records, Origin(chunk.file, chunk.first_row)).num_rows
    assert rows > 0
    return guessed


def kinds(schema: Schema) -> dict[str, tuple[str, str]]:
    return {feature.name: (feature.kind, feature.of) for feature in schema.features}


def renamed(log: dict[str, list], **names: str) -> dict[str, list]:
    return {names.get(name, name): column for name, column in log.items()}


ROLES = {
    "user": "user_id",
    "item": "ad_id",
    "request": "request_id",
    "impression": "impression_id",
    "time": "timestamp",
    "position": "position",
    "campaign": "campaign_id",
    "propensity": "propensity",
    "bid": "bid",
    "price": "price_paid",
}
KINDS = {
    "campaign_id": ("categorical", "item"),
    "gender": ("categorical", "user"),
    "age": ("numeric", "user"),
    "device_type": ("categorical", "context"),
    "tags": ("multi", "item"),
    "title": ("text", "item"),
    "price": ("numeric", "item"),
    "match_score": ("numeric", "pair"),
}


def test_an_ordinary_ad_log_as_parquet(tmp_path: Path) -> None:
    guessed = guess(write_parquet(tmp_path / "ads log.parquet", ads_log()))
    schema = guessed.schema
    assert schema.name == "ads_log"
    assert schema.roles.columns() == ROLES
    assert schema.time_unit == "s"
    assert kinds(schema) == KINDS
    click, purchase = schema.tasks
    assert (click.name, click.kind, click.parent, click.label_time) == ("click", "binary", "", "")
    assert (purchase.parent, purchase.label_time, purchase.window) == ("click", "purchase_time", 86_400)
    assert schema.histories == (History(name="past", where="click"),)
    text = guessed.toml()
    assert "# 4,000 distinct values in 4,000 rows, integers in a column named like an impression\n" in text
    assert "# numeric: numbers with fractions, from 0.25 to 49.75. Of the item: each of 100 has one value" in text
    assert "only rows with click = 1" in text
    assert text.endswith(
        "# Left out:\n#   version: constant: 1 in all 4,000 rows\n#   nothing: all missing in the sample\n"
        "#   query: free text, 4,000 distinct values in 4,000 rows: derive categories or a vector from it\n"
    )
    assert guessed.missing == ()


def test_the_same_log_as_csv_tsv_and_gzip_gives_the_same_schema(tmp_path: Path) -> None:
    log = ads_log()
    expected = infer_schema(write_parquet(tmp_path / "log.parquet", log)).schema
    assert guess(write_text(tmp_path / "log.csv", log)).schema == expected
    assert guess(write_text(tmp_path / "log.tsv", log, "\t")).schema == expected
    assert guess(write_text(tmp_path / "log.csv.gz", log)).schema == expected


@pytest.mark.parametrize("style", ["camelCase", "PascalCase", "UPPER", "kebab-case", "two words"])
def test_names_may_be_written_in_any_style(tmp_path: Path, style: str) -> None:
    def restyle(name: str) -> str:
        words = name.split("_")
        pascal = "".join(word.title() for word in words)
        return {
            "camelCase": words[0] + "".join(word.title() for word in words[1:]),
            "PascalCase": pascal,
            "UPPER": name.upper(),
            "kebab-case": "-".join(words),
            "two words": " ".join(words),
        }[style]

    log = {restyle(name): column for name, column in ads_log().items()}
    schema = guess(write_parquet(tmp_path / "log.parquet", log)).schema
    assert schema.roles.columns() == {role: restyle(name) for role, name in ROLES.items()}
    by_column = {feature.column: (feature.kind, feature.of) for feature in schema.features}
    assert by_column == {restyle(name): found for name, found in KINDS.items()}
    assert [task.column for task in schema.tasks] == [restyle("click"), restyle("purchase")]


@pytest.mark.parametrize(("unit", "factor"), [("s", 1), ("ms", 1_000), ("us", 1_000_000)])
def test_the_unit_of_times_follows_from_their_size(tmp_path: Path, unit: str, factor: int) -> None:
    log = ads_log()
    log["timestamp"] = [t * factor for t in log["timestamp"]]
    log["purchase_time"] = [t and t * factor for t in log["purchase_time"]]
    guessed = guess(write_parquet(tmp_path / "log.parquet", log))
    assert guessed.schema.time_unit == unit
    assert guessed.schema.tasks[1].window == 86_400
    assert f"{unit} since 1970: {log['timestamp'][0]} in the first row, the middle row is of 2023" in guessed.toml()


def test_iso_texts_and_arrow_timestamps_are_times(tmp_path: Path) -> None:
    log = renamed(ads_log(), timestamp="event_time")
    log["purchase_time"] = [t and str(np.datetime64(t, "s")) for t in log["purchase_time"]]
    log["event_time"] = [str(np.datetime64(t, "s")).replace("T", " ") for t in log["event_time"]]
    from_text = guess(write_text(tmp_path / "log.csv", log)).schema
    assert from_text.roles.time == "event_time"
    assert (from_text.tasks[1].label_time, from_text.tasks[1].window) == ("purchase_time", 86_400)
    stamps = pa.array(log["event_time"]).cast(pa.timestamp("ns")).cast(pa.timestamp("ns", "UTC"))
    table = pa.table({name: stamps if name == "event_time" else column for name, column in log.items()})
    pq.write_table(table, tmp_path / "log.parquet")
    assert guess(tmp_path / "log.parquet").schema.roles == from_text.roles


def test_times_that_are_none_are_not_taken(tmp_path: Path) -> None:
    log = renamed(ads_log(), timestamp="hour")
    del log["purchase_time"]
    log["hour"] = [(t // 3600) % 24 for t in log["hour"]]
    guessed = infer_schema(write_parquet(tmp_path / "a.parquet", log))
    assert not guessed.schema.roles.time
    assert "No column looks like a time" in guessed.missing[0]
    assert kinds(guessed.schema)["hour"] == ("categorical", "context")
    log["hour"] = [23_110_100 + h for h in log["hour"]]  # YYMMDDHH
    guessed = guess(write_parquet(tmp_path / "b.parquet", log))
    assert (guessed.schema.roles.order, guessed.schema.time_unit) == ("hour", "position")
    assert "written dates" in guessed.toml()
    log["hour"] = [f"{h % 12}/11/2023 {h % 24}:00" for h in log["hour"]]
    text = infer_schema(write_parquet(tmp_path / "c.parquet", log)).toml()
    assert "#   hour: named like a time, but '" in text
    assert "is not ISO 8601" in text


def test_csv_of_mixed_types(tmp_path: Path) -> None:
    log = ads_log()
    log["click"] = [["False", "true"][c] for c in log["click"]]
    log["user_id"] = [f"guest {u}" if u % 7 == 0 else f"{u:09d}" if u % 7 == 1 else u for u in log["user_id"]]
    log["age"] = [["", "NA", "NaN"][i % 3] if a is None else f"{a}.0" for i, a in enumerate(log["age"])]
    log["device_type"] = [["phone", "42", "", "café"][d] for d in log["device_type"]]
    schema = guess(write_text(tmp_path / "log.csv", log)).schema
    assert schema.roles.user == "user_id"
    assert kinds(schema) == KINDS
    assert [task.kind for task in schema.tasks] == ["binary", "binary"]
    assert schema.tasks[1].parent == "click"


def test_ratings_bring_a_task_and_an_event_feature(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    log = {
        "userId": rng.integers(1, 90, N).tolist(),
        "movieId": rng.integers(1, 400, N).tolist(),
        "rating": (rng.integers(1, 11, N) / 2).tolist(),
        "timestamp": rng.integers(START, START + 10**6, N).tolist(),
    }
    schema = guess(write_text(tmp_path / "ratings.csv", log)).schema
    assert [(task.name, task.kind) for task in schema.tasks] == [("rating", "regression")]
    assert schema.histories == (History(name="past", features=(EventFeature(name="rating", kind="numeric"),)),)
    assert schema.features == ()


def test_frequent_positives_keep_every_row_as_an_event_with_its_outcome(tmp_path: Path) -> None:
    log = ads_log()
    log["click"] = [1 - c for c in log["click"]]
    schema = guess(write_parquet(tmp_path / "log.parquet", log)).schema
    assert schema.histories == (History(name="past", outcomes=(EventOutcome(name="click"),)),)
    assert schema.tasks[1].parent == ""


def test_list_columns_become_histories_vectors_and_weighted_values(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    log = ads_log()
    lengths = rng.integers(0, 6, N)
    log["hist_ad_id"] = [[f"ad-{a}" for a in rng.integers(0, 100, k)] for k in lengths]
    ages = [sorted(rng.integers(1, 9_999, k).tolist(), reverse=True) for k in lengths]
    log["hist_ts"] = [[time - age for age in row] for time, row in zip(log["timestamp"], ages, strict=True)]
    log["hist_action"] = [rng.integers(0, 3, k).tolist() for k in lengths]
    vectors, kinds_of_ad = rng.normal(size=(100, 6)), [rng.integers(0, 9, 3).tolist() for _ in range(100)]
    numbers = [int(ad[3:]) for ad in log["ad_id"]]
    log["ad_vector"] = [vectors[a].tolist() for a in numbers]
    log["ad_kinds"] = [kinds_of_ad[a] for a in numbers]
    log["ad_kind_weights"] = [[float(k) + 0.5 for k in kinds_of_ad[a]] for a in numbers]
    log["nested"] = [{"a": 1}] * N
    guessed = guess(write_parquet(tmp_path / "log.parquet", log))
    schema = guessed.schema
    hist = schema.history("hist")
    assert (hist.layout, hist.item, hist.time, hist.key_space) == ("inline", "hist_ad_id", "hist_ts", "item")
    assert (hist.order, hist.max_length) == ("oldest_first", 5)
    assert [feature.column for feature in hist.features] == ["hist_action"]
    assert schema.feature("ad_vector").dim == 6
    assert schema.feature("ad_kinds").weights == "ad_kind_weights"
    assert "nested: type struct" in guessed.toml()
    nameless = renamed(log, hist_ts="hist_39", hist_ad_id="hist_40", hist_action="hist_41")
    hist = guess(write_parquet(tmp_path / "log.parquet", nameless)).schema.history("hist")
    assert (hist.item, hist.time) == ("hist_40", "hist_39")
    newest_first = log | {name: [c[::-1] for c in log[name]] for name in ("hist_ad_id", "hist_ts", "hist_action")}
    schema = guess(write_parquet(tmp_path / "log.parquet", newest_first)).schema
    assert schema.history("hist").order == "newest_first"
    late = log | {"hist_ts": [[t + 5 for t in times] for times in log["hist_ts"]], "timestamp": [START] * N}
    text = infer_schema(write_parquet(tmp_path / "log.parquet", late)).toml()
    assert "#   hist_ad_id: a list of history 'hist', whose times are later than the row's own" in text


def test_without_a_label_it_says_what_to_add(tmp_path: Path) -> None:
    log = renamed(ads_log(), click="event_type", purchase="seen_before")
    del log["purchase_time"]
    log["event_type"] = [["view", "cart", "buy"][i % 3] for i in range(N)]
    guessed = guess(write_parquet(tmp_path / "log.parquet", log))
    assert guessed.schema.tasks == ()
    (missing,) = guessed.missing
    assert "No column looks like a label" in missing
    assert "Columns of 0 and 1 here: seen_before." in missing
    assert f"# {missing}" in guessed.toml()
    assert guessed.schema.histories[0].features == (EventFeature(name="event_type"),)
    assert "event_type" not in kinds(guessed.schema)


def test_what_came_of_a_row_is_never_an_input(tmp_path: Path) -> None:
    log = ads_log() | {"liked": ["maybe"] * N, "p_click": [0.1, 0.2] * (N // 2)}
    log["label"] = [[-1, 1, 5][i % 3] for i in range(N)]
    log["label_type"] = [1 + i % 2 for i in range(N)]
    guessed = guess(write_parquet(tmp_path / "log.parquet", log))
    assert [task.name for task in guessed.schema.tasks] == ["click", "purchase"]
    assert not {"label", "liked", "p_click"} & set(kinds(guessed.schema))
    assert "#   label_type: named like a label, but integers from 1 to 2" in guessed.toml()
    assert "#   label: named like a label, but integers from -1 to 5 are neither 0/1 nor classes" in guessed.toml()
    log["label"] = [i % 4 for i in range(N)]
    task = guess(write_parquet(tmp_path / "log.parquet", log)).schema.tasks[2]
    assert (task.name, task.kind, task.classes) == ("label", "multiclass", 4)


def test_one_row_is_enough_for_roles(tmp_path: Path) -> None:
    log = {name: column[:1] for name, column in ads_log().items()}
    assert guess(write_parquet(tmp_path / "log.parquet", log)).schema.roles.columns() == ROLES
    assert guess(write_text(tmp_path / "log.csv", log)).schema.roles.columns() == ROLES


def test_names_that_a_schema_can_not_have_are_mended(tmp_path: Path) -> None:
    log = {
        "user_id": [i % 50 for i in range(N)],
        "item_id": [i % 61 for i in range(N)],
        "item": [["a", "b"][i % 2] for i in range(N)],
        "e.v/x": [i % 7 for i in range(N)],
        "e v x": [i % 5 for i in range(N)],
        "Größe": [i % 3 for i in range(N)],
    }
    schema = guess(write_parquet(tmp_path / "päck (1).parquet", log)).schema
    assert schema.name == "päck_1"
    assert [feature.name for feature in schema.features] == ["item_2", "e_v_x", "e_v_x_2", "Größe"]


def test_only_the_first_rows_are_read(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "log.parquet", ads_log())
    head = infer_schema(path, rows=500)
    assert "guessed from the first 500 rows of 4,000." in head.toml()
    assert infer_schema(write_text(tmp_path / "log.csv", ads_log()), rows=500).schema == head.schema


def test_whose_a_value_is_needs_evidence() -> None:
    def column(values: list) -> Column:
        return Column("x", pa.array(values), "integer")

    keys = column([i % 20 for i in range(200)])
    assert one_value_per_key(column([i % 20 // 3 for i in range(200)]), keys) is True
    assert one_value_per_key(column([i % 20 // 3 + (i == 199) * 50 for i in range(200)]), keys) is False
    assert one_value_per_key(column([None if i < 40 else i % 20 // 3 for i in range(200)]), keys) is True
    assert one_value_per_key(column([1] * 199 + [2]), keys) is False
    assert one_value_per_key(column([int(i % 20 == 7) for i in range(40)]), column([i % 20 for i in range(40)])) is None
    assert one_value_per_key(column(list(range(200))), column(list(range(200)))) is None  # no key comes again


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("log.csv", "196,242,3\n1,2,3\n", r"column names in the first line, got \['196', '242', '3'\]"),
        ("log.csv", "a,b\n", r"at least one row, got the columns \['a', 'b'\]"),
        ("log.csv", "a,a\n1,2\n", r"a name of its own, got 'a' 2 times"),
        ("log.csv", "a,\n1,2\n", r"a column without a name"),
        ("log.csv", "", r"log\.csv: expected a readable \.csv file"),
        ("log.csv", "a,b\n1,2\n1,2,3\n", r"Expected 2 columns, got 3"),
        ("log.parquet", "PAR1 and no more", r"log\.parquet: expected a readable \.parquet file"),
        ("log.xlsx", "x", r"ending in \.parquet, .*, got '\.xlsx'"),
    ],
)
def test_a_file_that_is_no_table_is_refused(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=message):
        infer_schema(tmp_path / name)


def test_a_file_that_is_not_there_brings_the_nearest_name(tmp_path: Path) -> None:
    (tmp_path / "clicks.csv").write_text("a\n1\n")
    with pytest.raises(DataError, match=r"click\.csv: expected a file, found none\. Did you mean 'clicks\.csv'\?"):
        infer_schema(tmp_path / "click.csv")
