"""Inline lists, and rows and records as events."""

import numpy as np
import pyarrow as pa
import pytest

from fullrank.data.columns import NEVER, DataError
from fullrank.data.keys import code_of_key
from fullrank.data.normalise import Origin, normalise, normalise_events
from fullrank.schema import EventFeature, EventOutcome, History, Roles, Schema

SECOND = 1_000_000
ALWAYS = np.iinfo(np.int64).min
ORIGIN = Origin("log.parquet")
FEATURES = (EventFeature(name="rating", kind="numeric"), EventFeature(name="action", column="a"))
OUTCOMES = (
    EventOutcome(name="bought", column="b", time="bt", window=100, lag=5),
    EventOutcome(name="seen", lag=1),
)


def inline(**options):
    history = History(name="h", layout="inline", item="hi", time="ht", **options)
    return Schema(roles=Roles(time="t"), histories=(history,))


def run(schema, columns):
    return normalise(schema, pa.RecordBatch.from_pydict(columns), ORIGIN)


def message(schema, columns):
    with pytest.raises(DataError) as caught:
        run(schema, columns)
    return str(caught.value)


COLUMNS = {
    "t": [100, 100, 100],
    "hi": [["a", None, "c"], [], ["d"]],
    "ht": [[10, 20, 30], None, [90]],
    "rating": [[1.0, None, 3.0], [], [4.0]],
    "a": [[1, 2, 1], None, [None]],
    "b": [[1, 1, 0], [], [None]],
    "bt": [[15, None, None], [], [None]],
    "seen": [[1, 0, 1], [], [1]],
}


def test_inline_columns_and_when_outcomes_are_known():
    made = run(inline(features=FEATURES, outcomes=OUTCOMES, lag=2), COLUMNS)
    offsets = [made.ragged(name).offsets.tolist() for name in made.columns if name.startswith("@history.h.")]
    assert offsets == [[0, 3, 3, 4]] * len(offsets)
    values = {
        name: made.ragged(f"@history.h.{name}").values.tolist()
        for name in ("item", "action", "time", "available")
    }
    assert values["item"] == [code_of_key("a"), 0, code_of_key("c"), code_of_key("d")]
    assert values["action"] == [code_of_key(1), code_of_key(2), code_of_key(1), 0]
    assert values["time"] == [10 * SECOND, 20 * SECOND, 30 * SECOND, 90 * SECOND]
    assert values["available"] == [time + 2 * SECOND for time in values["time"]]
    assert made.ragged("@history.h.bought").values.tolist() == [1, 1, 0, 0]
    # dated + lag · undated: event + window + lag · negative likewise · not known
    assert made.ragged("@history.h.bought@known_at").values.tolist() == [
        20 * SECOND,
        125 * SECOND,
        135 * SECOND,
        NEVER,
    ]
    assert made.ragged("@history.h.seen@known_at").values.tolist() == [
        11 * SECOND,
        21 * SECOND,
        31 * SECOND,
        91 * SECOND,
    ]
    assert sorted(made.keys["@history.h.item"].unique_texts.to_pylist()) == ["a", "c", "d"]


def test_newest_first_lists_are_turned_round():
    turned = {
        name: [None if row is None else row[::-1] for row in column]
        for name, column in COLUMNS.items()
        if name != "t"
    }
    turned["t"] = COLUMNS["t"]
    straight = run(inline(features=FEATURES, outcomes=OUTCOMES), COLUMNS)
    back = run(inline(features=FEATURES, outcomes=OUTCOMES, order="newest_first"), turned)
    for name in straight.columns:
        if name != "@time":
            np.testing.assert_array_equal(straight.ragged(name).values, back.ragged(name).values)
    assert back.keys["@history.h.item"].codes is back.ragged("@history.h.item").values


def test_an_event_after_its_row():
    text = message(inline(), {"t": [100, 100], "hi": [[1], [1, 2]], "ht": [[100], [50, 101]]})
    assert text.startswith("log.parquet: row 2, column 'ht': expected no event after its row (")
    assert "got 101." in text and "cut the list at the row's time" in text


def test_lists_out_of_their_order():
    columns = {"t": [100, 100, 100], "hi": [[1, 2], [], [1, 2, 3]], "ht": [[50, 60], [], [10, 30, 20]]}
    text = message(inline(), columns)
    assert (
        "row 3, column 'ht': expected a time no earlier than the event before it in the list (30), got 20."
        in text
    )
    assert "promises oldest_first" in text
    text = message(inline(order="newest_first"), columns)
    assert "row 1, column 'ht': expected a time no later than" in text and "got 60" in text
    ties = {"t": [100], "hi": [[1, 2]], "ht": [[50, 50]]}
    assert len(run(inline(), ties).ragged("@history.h.item").values) == 2


def test_lists_of_different_lengths_or_no_lists():
    text = message(inline(), {"t": [100, 100], "hi": [[1], [1, 2]], "ht": [[1], [1]]})
    assert "row 2, column 'ht': expected as many values as column 'hi' has (2), not 1, got [1]" in text
    assert "has type int64; expected lists (history 'h')" in message(
        inline(), {"t": [1], "hi": [1], "ht": [[1]]}
    )
    assert "row 1, column 'ht': expected a time" in message(inline(), {"t": [1], "hi": [[1]], "ht": [[None]]})
    assert "row 1, column 'hi'" in message(inline(), {"t": [9], "hi": [[1.5]], "ht": [[1]]})


def test_lists_without_times_are_past():
    history = History(name="h", layout="inline", item="hi", outcomes=(EventOutcome(name="o"),))
    made = run(Schema(histories=(history,)), {"hi": [[1, 2]], "o": [[1, None]]})
    assert made.ragged("@history.h.available").values.tolist() == [ALWAYS, ALWAYS]
    assert made.ragged("@history.h.o@known_at").values.tolist() == [ALWAYS, NEVER]


def test_rows_of_the_log_as_events():
    history = History(name="h", where="click", features=FEATURES[:1], lag=3)
    schema = Schema(roles=Roles(user="u", item="i", time="t"), histories=(history,))
    columns = {"u": [1, 1], "i": [7, 8], "t": [10, 20], "click": [True, None], "rating": [5, 3]}
    made = run(schema, columns)
    assert made.array("@history.h.where").tolist() == [True, False]
    assert made.array("@history.h.available").tolist() == [13 * SECOND, 23 * SECOND]
    assert made.array("@history.h.rating").tolist() == [5, 3]
    assert made.array("@history.h.item").tolist() == made.array("@item").tolist()
    texts = run(schema, {**columns, "click": ["TRUE", "0"]})
    assert texts.array("@history.h.where").tolist() == [True, False]


def test_records_of_a_file_of_events():
    history = History(name="h", source="file", item="ad", time="when", features=FEATURES[1:], lag=1)
    schema = Schema(roles=Roles(user="u", item="i", time="t"), histories=(history,))
    records = pa.RecordBatch.from_pydict({"u": ["x", None], "ad": [1, 2], "when": [5, 6], "a": ["l", "r"]})
    made = normalise_events(schema, history, records, ORIGIN)
    assert sorted(made.columns) == ["@user", "action", "available", "item", "time"]
    assert made.array("@user").tolist() == [code_of_key("x"), 0]
    assert made.array("available").tolist() == [6 * SECOND, 7 * SECOND]
    hidden = normalise_events(schema, history, records, ORIGIN, hash_key=b"0123456789abcdef")
    assert hidden.array("@user")[0] == code_of_key("x", b"0123456789abcdef")
    assert hidden.array("item").tolist() == made.array("item").tolist()
    with pytest.raises(DataError, match="expected column 'when' \\(history 'h'\\), found"):
        normalise_events(schema, history, records.drop_columns(["when"]), ORIGIN)
