"""Avazu, TalkingData and the iPinYou auctions: hours, minutes, delayed labels and market prices."""

import datetime
from collections import Counter

import numpy as np
import pytest
from public_files import columns_of, counts, prepared_as_usual, real, rows_of, write_files

from fullrank.data.columns import DataError
from fullrank.data.partitions import PreparedData
from fullrank.data.prepare import prepare
from fullrank.data.readers import Avazu, IPinYouBidding, TalkingData
from fullrank.data.readers.avazu import AD, COLUMNS, REQUEST, avazu_schema
from fullrank.data.readers.talkingdata import WINDOW
from fullrank.data.splits import AllTrain, ByTime, GivenFiles

NAMES = ",".join(COLUMNS) + "\n"


def avazu_line(name: str, click: int, hour: str, **values: str) -> str:
    given = {"id": name, "click": str(click), "hour": hour} | values
    return ",".join(given.get(column, f"{column}0") for column in COLUMNS) + "\n"


def test_avazu_columns_are_the_competition_s():
    header = "id,click,hour,C1,banner_pos,site_id,site_domain,site_category,app_id,app_domain,app_category,device_id,"
    header += "device_ip,device_model,device_type,device_conn_type,C14,C15,C16,C17,C18,C19,C20,C21\n"
    assert header == NAMES


def test_avazu_hours_are_times_and_fields_of_the_clock(tmp_path):
    text = NAMES + avazu_line("18446744073709551615", 1, "14102100") + avazu_line("7", 0, "14103123", C20="-1")
    source = Avazu(write_files(tmp_path, {"train.csv": text}))
    first, second = rows_of(source)
    when = datetime.datetime(2014, 10, 21, tzinfo=datetime.UTC)
    assert first["time"] == when.timestamp() and (first["hour_of_day"], first["weekday"]) == (0, "Tuesday")
    when = datetime.datetime(2014, 10, 31, 23, tzinfo=datetime.UTC)
    assert second["time"] == when.timestamp() and (second["hour_of_day"], second["weekday"]) == (23, "Friday")
    assert (first["id"], first["click"], second["C20"]) == ("18446744073709551615", "1", "-1")
    assert source.split == ByTime()
    fields = {feature.name for feature in source.schema.features}
    assert fields == {*REQUEST, *AD, "hour_of_day", "weekday"} and len(fields) == 23
    assert avazu_schema(min_count=5).key_space("C14").min_count == 5


def test_avazu_copies_with_and_without_a_line_of_names(tmp_path):
    files = {
        "train.csv": NAMES + avazu_line("1", 0, "14102100") + avazu_line("2", 1, "14102101"),
        "dev.csv": avazu_line("3", 1, "14102100"),
        "test.csv": avazu_line("4", 0, "14102100"),
    }
    source = Avazu(write_files(tmp_path / "set", files))
    assert [(row["id"], row["@split"]) for row in rows_of(source)] == [
        ("1", "train"), ("2", "train"), ("3", "valid"), ("4", "test"),
    ]  # fmt: skip
    assert source.split == GivenFiles()
    data = prepared_as_usual(source, tmp_path / "data")
    assert columns_of(data, "train", "@label.click")[0].tolist() == [0.0, 1.0]
    assert columns_of(data, "valid", "@label.click")[0].tolist() == [1.0]
    gzipped = Avazu(write_files(tmp_path / "gz", {"train.gz": files["train.csv"]}))
    assert [row["id"] for row in rows_of(gzipped)] == ["1", "2"]


@pytest.mark.parametrize("hour", ["14102124", "2014102100", "14133100", "1410210x", ""])
def test_avazu_hour_that_is_none_is_named(tmp_path, hour):
    text = NAMES + avazu_line("1", 0, "14102100") + avazu_line("2", 0, hour)
    with pytest.raises(DataError, match=r"train\.csv, column 'hour', row 2: expected an hour written YYMMDDHH, got"):
        rows_of(Avazu(write_files(tmp_path, {"train.csv": text})))


def test_avazu_line_with_too_few_fields_is_named(tmp_path):
    with pytest.raises(DataError, match=r"train\.csv, line 2: expected 24 fields, got 2"):
        rows_of(Avazu(write_files(tmp_path, {"train.csv": NAMES + "1,0\n"})))


CLICKS = (
    "ip,app,device,os,channel,click_time,attributed_time,is_attributed\n"
    "5,1,1,13,497,2017-11-07 9:30,2017-11-07 10:00,1\n"
    "5,1,1,13,497,2017-11-07 9:45,,0\n"
    "5,2,1,13,498,2017-11-07 11:00,,0\n"
    "6,2,1,17,498,2017-11-08 09:30:00,2017-11-08 10:30:59,1\n"
    "5,3,1,13,499,2017-11-08 23:00,,0\n"
)


def test_talkingdata_times_of_one_and_two_digit_hours(tmp_path):
    source = TalkingData(write_files(tmp_path, {"train_sample.csv": CLICKS.replace("\n", "\r\n")}))
    rows = rows_of(source)
    assert [row["click_time"] for row in rows[:4]] == [
        "2017-11-07 09:30", "2017-11-07 09:45", "2017-11-07 11:00", "2017-11-08 09:30:00",
    ]  # fmt: skip
    assert rows[0]["attributed_time"] == "2017-11-07 10:00" and rows[1]["attributed_time"] is None
    assert [row["is_attributed"] for row in rows] == ["1", "0", "0", "1", "0"]
    end = datetime.datetime(2017, 11, 10, 16, tzinfo=datetime.UTC)
    assert source.as_of == end.timestamp() * 1_000_000 and WINDOW == 86_400


def test_talkingdata_labels_wait_for_their_window(tmp_path):
    source = TalkingData(write_files(tmp_path / "set", {"train_sample.csv": CLICKS}))
    noon = int(datetime.datetime(2017, 11, 8, 12, tzinfo=datetime.UTC).timestamp()) * 1_000_000
    prepare(source, tmp_path / "early", split=AllTrain(), as_of=noon)
    prepare(source, tmp_path / "late", split=AllTrain(), as_of=source.as_of)
    for name, known in (("early", 3), ("late", 5)):
        data = PreparedData.open(tmp_path / name)
        label, known_at, when = columns_of(data, "train", "@label.install", "@known_at.install", "@time")
        as_of = noon if name == "early" else source.as_of
        counted = (known_at <= as_of) & (when + WINDOW * 1_000_000 <= as_of)
        assert counted.sum() == known
        assert label[counted].sum() == {"early": 1, "late": 2}[name]


def test_talkingdata_past_clicks_of_an_address(tmp_path):
    source = TalkingData(write_files(tmp_path / "set", {"train.csv": CLICKS}))
    prepare(source, tmp_path / "data", split=AllTrain(), as_of=source.as_of)
    data = PreparedData.open(tmp_path / "data")
    time, length = columns_of(data, "train", "@time", "@history.clicks.length")
    assert length[np.argsort(time)].tolist() == [0, 1, 2, 0, 3]


def test_auctions_have_a_price_and_a_prediction(tmp_path):
    files = {
        "test.theta.txt.gz": "0 70 0.002\n1 6 0.25\n0 277 1e-05\n",
        "info.json": '{"price_counter_train": [0, 2, 5], "imp_train": 7, "clk_train": 1, "cost_train": 12}',
    }
    source = IPinYouBidding(write_files(tmp_path / "set", files))
    rows = rows_of(source)
    assert [(row["click"], row["market_price"], row["pctr"], row["row"]) for row in rows] == [
        ("0", "70", "0.002", 0), ("1", "6", "0.25", 1), ("0", "277", "1e-05", 2),
    ]  # fmt: skip
    known = source.statistics()
    assert known.price_counts.tolist() == [0, 2, 5] and (known.impressions, known.clicks, known.cost) == (7, 1, 12)
    data = prepared_as_usual(source, tmp_path / "data")
    price, label = columns_of(data, "train", "@price", "@label.click")
    assert price.tolist() == [70, 6, 277] and label.tolist() == [0, 1, 0]


def test_auctions_that_are_none_are_named(tmp_path):
    folder = write_files(tmp_path, {"test.theta.txt": "0 70 0.002\n1 6\n", "info.json": '{"imp_train": 7}'})
    with pytest.raises(DataError, match=r"test\.theta\.txt, line 2: expected 3 fields, got 2"):
        rows_of(IPinYouBidding(folder))
    with pytest.raises(DataError, match=r"info\.json: expected JSON with price_counter_train.*KeyError"):
        IPinYouBidding(folder).statistics()


def test_real_avazu(tmp_path):
    source = Avazu(real("avazu_9k"))
    rows, clicks = counts(source, "click")
    assert rows == {"train": 8_087, "valid": 480, "test": 432} and sum(clicks.values()) == 1_563
    data = prepared_as_usual(source, tmp_path / "data")
    assert columns_of(data, "valid", "@label.click")[0].sum() == clicks["valid"]


def test_real_talkingdata(tmp_path):
    folder = real("talkingdata_100k")
    assert counts(TalkingData(folder), "is_attributed") == ({"": 100_000}, {"": 227})
    with (folder / "train_sample.csv").open() as file:
        head = [next(file) for _ in range(8_000)]
    source = TalkingData(write_files(tmp_path / "set", {"train_sample.csv": "".join(head)}))
    data = prepared_as_usual(source, tmp_path / "data")
    labels = np.concatenate([columns_of(data, split, "@label.install")[0] for split in ("train", "valid", "test")])
    assert Counter(labels.tolist())[1.0] == sum(line.rstrip().endswith(",1") for line in head)


def test_real_auctions():
    source = IPinYouBidding(real("ipinyou_2997_bidding"))
    assert counts(source, "click") == ({"": 156_063}, {"": 530})
    assert sum(int(price) for c in source.chunks() for price in c.records["market_price"].to_pylist()) == 8_617_148
    known = source.statistics()
    assert (known.impressions, known.clicks, known.cost) == (312_437, 1_386, 19_689_072)
    assert known.price_counts.sum() == 312_437 and len(known.price_counts) == 301
