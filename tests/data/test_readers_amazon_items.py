"""Item numbers and ASINs of two copies of the same reviews: matched by their graph alone."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from public_files import real, rows_of, write_files

from fullrank.data.columns import DataError
from fullrank.data.readers import AmazonBeauty
from fullrank.data.readers.amazon_items import write_items


def copies(lines: list[list[int]], order: np.ndarray) -> dict[str, str]:
    """The same reviews by number and by name (`A<number>`), the second with its users in another order."""
    named = [(f"R{user}", [f"A{item}" for item in lines[user]]) for user in order]
    items = {item for line in lines for item in line}
    return {
        "Beauty.txt": "".join(f"{user + 1} " + " ".join(map(str, line)) + "\n" for user, line in enumerate(lines)),
        "Beauty_item2attributes.json": "{}",
        "user_sequence.txt": "".join(f"{user} " + " ".join(line) + "\n" for user, line in named),
        "words.txt": "".join(f"A{item} about {item}\n" for item in items if item != 3),
    }


def match(folder, lines: list[list[int]], order: np.ndarray):
    write_files(folder, copies(lines, order))
    names = ("Beauty.txt", "user_sequence.txt", "words.txt")
    done = write_items(*(folder / name for name in names), folder / "amazon-beauty.items.tsv")
    return done, [line.split("\t") for line in done.path.read_text().splitlines() if line]


@given(data=st.data())
def test_what_is_matched_is_right(tmp_path_factory, data):
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    num_users, num_items = data.draw(st.integers(2, 12)), data.draw(st.integers(3, 15))
    lines = [rng.permutation(num_items)[: rng.integers(2, num_items + 1)].tolist() for _ in range(num_users)]
    done, table = match(tmp_path_factory.mktemp("items"), lines, rng.permutation(num_users))
    assert all(asin == f"A{item}" for item, asin, _ in table)
    assert done.matched == len(table) <= done.items == len({item for line in lines for item in line})


def test_twins_are_told_by_their_places_and_left_out_where_they_cannot_be(tmp_path):
    lines = [[1, 2, 3], [3, 4, 1, 2], [5, 3]]  # 1 and 2: the same users, told apart by their order
    done, table = match(tmp_path / "a", lines, np.array([2, 0, 1]))
    assert {item: words for item, _, words in table} == {str(i): "" if i == 3 else f"about {i}" for i in range(1, 6)}
    assert (done.items, done.matched) == (5, 5)
    lines = [[1, 2, 3], [2, 1, 3], [3, 4]]  # 1 and 2 change places: nothing tells them apart
    done, table = match(tmp_path / "b", lines, np.array([2, 0, 1]))
    assert {item for item, _, _ in table} == {"3", "4"} and done.matched == 2
    rows = {row["item"]: row for row in rows_of(AmazonBeauty(tmp_path / "b", negatives=0))}
    assert (rows[4]["words"], rows[4]["asin"], rows[1]["words"]) == ("about 4", "A4", None)


def test_other_reviews_are_refused(tmp_path):
    files = copies([[1, 2, 3], [3, 4]], np.array([0, 1]))
    write_files(tmp_path, files | {"user_sequence.txt": "R0 A1 A2\nR1 A3 A4\n"})
    names = ("Beauty.txt", "user_sequence.txt", "words.txt")
    with pytest.raises(DataError, match=r"user_sequence\.txt: expected the reviews of .*others \(4 and 5 reviews\)"):
        write_items(*(tmp_path / name for name in names), tmp_path / "out.tsv")
    with pytest.raises(DataError, match=r"none\.txt: cannot be read"):
        write_items(tmp_path / "Beauty.txt", tmp_path / "none.txt", tmp_path / "words.txt", tmp_path / "out.tsv")


@pytest.mark.parametrize(("stem", "folder"), [("Beauty", "Beauty"), ("Toys_and_Games", "Toys")])
def test_real_items_are_all_matched(tmp_path, stem, folder):
    source = real(f"idgenrec_amazon/{folder}")
    done = write_items(
        real("s3rec_amazon_yelp_lastfm") / f"{stem}.txt",
        source / "user_sequence.txt",
        source / "item_generative_indexing_phase_0.txt",
        tmp_path / "items.tsv",
    )
    assert done.matched == done.items
    expected = (source / "s3rec_item_id_to_asin.tsv").read_text().splitlines()
    assert sorted(done.path.read_text().splitlines()) == sorted(expected)
