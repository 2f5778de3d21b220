"""Times in every form are one instant; what is none is named."""

import datetime as dt

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fullrank.data.columns import NEVER, DataError
from fullrank.data.normalise import Origin, normalise
from fullrank.data.normalise_cells import Cells
from fullrank.data.normalise_time import times
from fullrank.schema import Roles, Schema

INSTANT = dt.datetime(2024, 2, 29, 13, 14, 15, 250_000, tzinfo=dt.UTC)
MICROS = 1_709_212_455_250_000


def read(values, unit="s", **options):
    array = values if isinstance(values, pa.Array) else pa.array(values)
    if pa.types.is_string(array.type):
        array = array.cast(pa.large_string())
    return times(Cells(Origin("f.csv"), "t", array), unit, **options).tolist()


def message(values, unit="s"):
    with pytest.raises(DataError) as caught:
        read(values, unit)
    return str(caught.value)


@pytest.mark.parametrize(
    ("values", "unit"),
    [
        ([1_709_212_455.25], "s"),
        (pa.array([1_709_212_455_250], pa.uint64()), "ms"),
        ([1_709_212_455_250.0], "ms"),
        ([MICROS], "us"),
        (["1709212455.25"], "s"),
        (["1709212455250"], "ms"),
        (pa.array([INSTANT], pa.timestamp("us", "Asia/Tokyo")), "ms"),
        (pa.array([INSTANT.replace(tzinfo=None)], pa.timestamp("ms")), "s"),
        (pa.array([MICROS * 1000], pa.timestamp("ns")), "s"),
        (["2024-02-29T13:14:15.25Z"], "s"),
        (["2024-02-29 13:14:15.250000999"], "s"),
        (["2024-02-29T15:14:15.25+02:00"], "s"),
        ([" 2024-02-29T08:14:15.25-0500 "], "us"),
    ],
)
def test_one_instant(values, unit):
    assert read(values, unit) == [MICROS]


def test_dates():
    day = dt.date(2024, 2, 29)
    midnight = 1_709_164_800_000_000
    assert (
        read(pa.array([day], pa.date32()))
        == read(pa.array([day], pa.date64()))
        == read(["2024-02-29"])
        == [midnight]
    )


@given(st.lists(st.datetimes(dt.datetime(1, 1, 2), dt.datetime(9999, 12, 30)), min_size=1, max_size=8))
@settings(max_examples=40, deadline=None)
def test_iso_texts_are_what_the_standard_library_says(moments):
    texts = [m.isoformat() if i % 2 else m.isoformat(" ") + "+00:00" for i, m in enumerate(moments)]
    epoch = dt.datetime(1970, 1, 1)
    assert read(texts) == [(m - epoch) // dt.timedelta(microseconds=1) for m in moments]


def test_texts_of_several_forms_in_one_column():
    assert read(["0", "1970-01-01", "1970-01-01T01:00:01+01:00", "1.5"]) == [0, 0, 1_000_000, 1_500_000]


def test_positions_are_left_as_they_are():
    assert read([2**62, -5], "position") == [2**62, -5]
    assert read([3.0], "position") == [3] and read(["7"], "position") == [7]
    for bad in ([1.5], ["2024-01-01"]):
        assert "expected an integer position" in message(bad, "position")
    assert "expected an integer position" in message(pa.array([INSTANT]), "position")


def test_a_missing_time_is_an_error_unless_it_may_be():
    for values in ([1, None], [1.0, np.nan], ["1", ""], pa.array([INSTANT, None])):
        assert "f.csv: row 2, column 't': expected a time (a number in 's', a date, a timestamp" in message(
            values
        )
        assert read(values, missing=True)[1] == NEVER
    assert "row 1" in message(pa.nulls(1))


def test_bad_times():
    assert "row 2, column 't'" in message(["2024-01-01", "29.02.2024"])
    assert "'29.02.2024'" in message(["2024-01-01", "29.02.2024"])
    assert "has type bool" in message([True])
    text = message([1_709_212_455_250])  # milliseconds taken for seconds
    assert (
        "expected a time in the years 1 to 9999" in text
        and "read in 's': is that the log's time_unit?" in text
    )
    for value in (2**63 - 1, -(2**63), 10.0**30):
        assert "row 1" in message([value])
    assert "row 1" in message(pa.array([2**64 - 1], pa.uint64()), "us")


def test_the_promise_of_order_within_a_batch():
    schema = Schema(roles=Roles(time="t"), time_sorted=True)

    def made(values):
        return normalise(schema, pa.RecordBatch.from_pydict({"t": values}), Origin("f.csv", 10))

    same = made([1, 1, 2])
    assert (same.first_time, same.last_time) == (1_000_000, 2_000_000)
    with pytest.raises(
        DataError, match=r"f.csv: row 13, column 't': expected a time not before the row before \(5\)"
    ):
        made([1, 5, 4])
