"""Sequences of S3-Rec's files: requests, negatives, leave-one-out, and what a test request sees of its past."""

import json
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from public_files import columns_of, counts, prepared_as_usual, real, rows_of, write_files

from fullrank.data.columns import DataError
from fullrank.data.readers import AmazonBeauty, AmazonSports, AmazonToys, LastFM
from fullrank.data.readers.sequences import NegativeSampler, Sequences

LINES = {7: [30, 10, 20, 40], 3: [10, 50], 9: [60, 20, 70, 80, 10]}
ITEMS = sorted({item for items in LINES.values() for item in items})
BEAUTY = {
    "Beauty.txt": "".join(f"{user} " + " ".join(map(str, items)) + "\n" for user, items in LINES.items()),
    "Beauty_item2attributes.json": json.dumps({str(item): [item, 1, item] for item in ITEMS if item != 50}),
}
TEXTS = "".join(f"{item}\tB00{item}\tword {item}\n" for item in ITEMS if item != 20)


def test_an_event_is_a_request_with_its_negatives(tmp_path):
    source = AmazonBeauty(write_files(tmp_path, BEAUTY), negatives=2)
    rows = rows_of(source)
    positives = [row for row in rows if row["used"] == 1]
    expected = {(user, place, item) for user, items in LINES.items() for place, item in enumerate(items)}
    assert {(row["user"], row["position"], row["item"]) for row in positives} == expected
    assert len(positives) == len(expected) == 11 and len(rows) == 33
    requests: dict[int, list[dict]] = {}
    for row in rows:
        requests.setdefault(row["request"], []).append(row)
    assert len(requests) == 11
    for of_one in requests.values():
        assert [row["used"] for row in of_one] == [1, 0, 0]
        assert len({(row["user"], row["position"], row["@split"]) for row in of_one}) == 1
        drawn = {row["item"] for row in of_one[1:]}
        assert len(drawn) == 2 and drawn <= set(ITEMS) - set(LINES[of_one[0]["user"]])


def test_the_last_event_tests_and_the_one_before_validates(tmp_path):
    rows = rows_of(AmazonBeauty(write_files(tmp_path, BEAUTY), negatives=0))
    split = {(row["user"], row["item"]): row["@split"] for row in rows}
    assert {pair for pair, name in split.items() if name == "test"} == {(7, 40), (9, 10)}
    assert {pair for pair, name in split.items() if name == "valid"} == {(7, 20), (9, 80)}
    assert split[3, 10] == split[3, 50] == "train"  # too few to take any away
    assert [row["@split"] for row in rows] == sorted((row["@split"] for row in rows), key=("train valid test").find)


def test_attributes_are_each_once_and_texts_are_there_if_given(tmp_path):
    plain = AmazonBeauty(write_files(tmp_path / "a", BEAUTY), negatives=0)
    by_item = {row["item"]: row for row in rows_of(plain)}
    assert by_item[30]["attributes"] == [30, 1] and by_item[50]["attributes"] == []
    assert "words" not in by_item[30] and [f.name for f in plain.schema.features] == ["attributes"]
    beside = AmazonBeauty(write_files(tmp_path / "b", BEAUTY | {"amazon-beauty.items.tsv": TEXTS}), negatives=0)
    given = AmazonBeauty(tmp_path / "a", negatives=0, items=tmp_path / "b/amazon-beauty.items.tsv")
    assert rows_of(beside) == rows_of(given) and beside.fingerprint() == given.fingerprint() != plain.fingerprint()
    by_item = {row["item"]: row for row in rows_of(given)}
    assert (by_item[30]["words"], by_item[30]["asin"], by_item[20]["words"]) == ("word 30", "B0030", None)


def test_the_past_of_a_test_request_is_all_that_came_before(tmp_path):
    source = AmazonBeauty(write_files(tmp_path / "set", BEAUTY), negatives=2)
    data = prepared_as_usual(source, tmp_path / "data")
    (lengths,) = columns_of(data, "test", "@history.used.length")
    assert sorted(lengths.tolist()) == [3, 4]  # positives alone: negatives are no events
    (lengths,) = columns_of(data, "valid", "@history.used.length")
    assert sorted(lengths.tolist()) == [2, 3]
    (lengths,) = columns_of(data, "train", "@history.used.length")
    assert Counter(lengths.tolist()) == Counter({0: 3, 1: 3, 2: 1})
    label, request = columns_of(data, "test", "@label.used", "@request")
    assert label.tolist() == [1, 0, 0, 1, 0, 0] and request.tolist()[:3] == [0, 0, 0]


def test_draws_are_a_function_of_the_seed_and_part_of_the_fingerprint(tmp_path):
    folder = write_files(tmp_path, BEAUTY)
    first, again = AmazonBeauty(folder, negatives=2), AmazonBeauty(folder, negatives=2)
    assert rows_of(first) == rows_of(first) == rows_of(again) and first.fingerprint() == again.fingerprint()
    others = [AmazonBeauty(folder, negatives=2, seed=1), AmazonBeauty(folder, negatives=1)]
    assert len({source.fingerprint() for source in (first, *others)}) == 3
    assert rows_of(others[0]) != rows_of(first)
    assert AmazonBeauty(folder, negatives=0).fingerprint() == AmazonBeauty(folder, negatives=0, seed=5).fingerprint()


@given(data=st.data())
def test_draws_are_different_unused_items_however_events_are_asked(data):
    num_items = data.draw(st.integers(4, 12))
    items = st.lists(st.integers(0, num_items - 1), min_size=1, max_size=num_items - 3)
    lines = data.draw(st.lists(items, min_size=1, max_size=5)) + [[place] for place in range(num_items)]
    offsets = np.cumsum([0, *(len(line) for line in lines)])
    sequences = Sequences(np.arange(len(lines)) + 100, offsets, 5 * np.concatenate(lines))
    sampler = NegativeSampler(sequences, 3, data.draw(st.integers(0, 2**63)))
    owner, position = sequences.owners(), sequences.positions()
    drawn = sampler.draw(owner, position)
    for user, row in zip(owner, drawn.tolist(), strict=True):
        assert len(set(row)) == 3 and not set(row) & {5 * item for item in lines[user]}
        assert set(row) <= {5 * item for item in range(num_items)}
    some = np.array(data.draw(st.lists(st.integers(0, len(owner) - 1), min_size=1)))
    assert sampler.draw(owner[some], position[some]).tolist() == drawn[some].tolist()


def test_every_unused_item_is_drawn_equally_often():
    num_items, events, k = 10, 20_000, 3
    sequences = Sequences(np.arange(2), np.array([0, 4, 4 + num_items]), np.array([0, 3, 4, 9, *range(num_items)]))
    with pytest.raises(DataError, match="Expected at least 3 items that user 1 never used, got 0"):
        NegativeSampler(sequences, k, seed=0)
    alone = Sequences(np.arange(6), np.array([0, 4, 5, 6, 7, 8, 10]), np.array([0, 3, 4, 9, 1, 2, 5, 6, 7, 8]))
    drawn = NegativeSampler(alone, k, seed=3).draw(np.zeros(events, dtype=np.int64), np.arange(events))
    times = np.bincount(drawn.ravel(), minlength=num_items)
    assert times[[0, 3, 4, 9]].tolist() == [0] * 4
    expected = events * k / 6  # six items; five standard deviations of a count without repeats
    assert np.abs(times[[1, 2, 5, 6, 7, 8]] - expected).max() < 5 * np.sqrt(expected * 0.5)
    pairs = np.bincount(drawn[:, 0] * num_items + drawn[:, 1], minlength=num_items**2)
    assert np.abs(pairs[pairs > 0] - events / 30).max() < 5 * np.sqrt(events / 30) and (pairs > 0).sum() == 30


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("Beauty.txt", "1 2 3\n2 x 4\n", r"Beauty\.txt, line 2: expected a user and items, .* got '2 x 4'"),
        ("Beauty.txt", "1 2 3\n2\n", r"line 2: .* got '2'"),
        ("Beauty.txt", "1 2 3\n\n", "line 2"),
        ("Beauty.txt", "1 2  3\n2 3\n", "line 1"),
        ("Beauty.txt", "1 2 3\n2 -3\n", "line 2"),
        ("Beauty.txt", "1 2 3\n2 5\n1 4\n", "line 3: expected every user on one line, got 1 again"),
        ("Beauty_item2attributes.json", "[1]", r'Beauty_item2attributes\.json: expected {"item"'),
        ("Beauty_item2attributes.json", '{"1": ["x"]}', "of numbers"),
        ("Beauty_item2attributes.json", "{", "Get the file again"),
    ],
)
def test_a_line_that_is_none_is_named(tmp_path, name, text, said):
    folder = write_files(tmp_path, BEAUTY | {name: text})
    with pytest.raises(DataError, match=said):
        AmazonBeauty(folder, negatives=0)


def test_fewer_than_no_negatives_are_refused(tmp_path):
    with pytest.raises(ValueError, match="Expected negatives >= 0, got -1"):
        AmazonBeauty(write_files(tmp_path, BEAUTY), negatives=-1)


@pytest.mark.parametrize(
    ("reader", "users", "items", "events"),
    [
        (AmazonBeauty, 22_363, 12_101, 198_502),
        (AmazonToys, 19_412, 11_924, 167_597),
        (AmazonSports, 35_598, 18_357, 296_337),
        (LastFM, 1_090, 3_646, 52_551),
    ],
)
def test_real_sequences(reader, users, items, events):
    source = reader(real("s3rec_amazon_yelp_lastfm"), negatives=1)
    rows, positives = counts(source, "used")
    assert positives == {"train": events - 2 * users, "valid": users, "test": users}
    assert rows == {name: 2 * n for name, n in positives.items()}
    chunks = [chunk.records for chunk in source.chunks()]
    assert len(np.unique(np.concatenate([chunk["item"].to_numpy() for chunk in chunks]))) == items
    assert len(np.unique(np.concatenate([chunk["user"].to_numpy() for chunk in chunks]))) == users
    assert all(chunk["attributes"].null_count == 0 for chunk in chunks)


def test_real_beauty_with_texts(tmp_path):
    texts = real("idgenrec_amazon/Beauty") / "s3rec_item_id_to_asin.tsv"
    source = AmazonBeauty(real("s3rec_amazon_yelp_lastfm"), negatives=0, items=texts)
    row = next(source.chunks()).records.slice(0, 1).to_pylist()[0]
    assert (row["item"], row["asin"]) == (1, "B004756YJA") and row["words"]
    assert all(chunk.records["words"].null_count == 0 for chunk in source.chunks())


def test_real_slice_prepares(tmp_path):
    folder = real("s3rec_amazon_yelp_lastfm")
    with (folder / "LastFM.txt").open() as file:
        lines = [next(file) for _ in range(40)]
    attributes = (folder / "LastFM_item2attributes.json").read_text()
    files = {"LastFM.txt": "".join(lines), "LastFM_item2attributes.json": attributes}
    data = prepared_as_usual(LastFM(write_files(tmp_path / "set", files)), tmp_path / "data")
    (label,) = columns_of(data, "test", "@label.used")
    assert (len(label), label.sum()) == (200, 40)
    (lengths,) = columns_of(data, "test", "@history.used.length")
    assert lengths.max() <= 50 and sorted(lengths) == sorted(min(len(line.split()) - 2, 50) for line in lines)
