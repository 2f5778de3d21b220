import gzip
import os
import zipfile
from pathlib import Path

import pytest

from fullrank.data.bundle import Bundle
from fullrank.data.columns import DataError
from fullrank.data.datasets import CATALOGUE, find_set
from fullrank.data.readers import READERS, Criteo, MovieLens1M, MovieLens100K, MovieLensLatestSmall, open_public
from fullrank.data.readers.criteo import CATEGORIES, NUMBERS, criteo_schema
from fullrank.data.readers.movielens import split_title
from fullrank.data.readers.tabular import columns_read

HUNDRED = {
    "u.data": "1\t2\t5\t300\n1\t267\t3\t100\n2\t9\t4\t100\n2\t2\t1\t50\n",
    "u.item": "2|GoldenEye (1995)|01-Jan-1995||x|0|1|1\n267|unknown||||1|0|0\n1412|L\xe9nd III (1995) (V)||||0|0|1\n",
    "u.user": "1|24|M|technician|85711\n2|53|F|other|V3N4P\n",
    "u.genre": "unknown|0\nAction|1\nSci-Fi|2\n\n",
}
ATOMIC = {
    "ml-100k.inter": "user_id:token\titem_id:token\trating:float\ttimestamp:float\n" + HUNDRED["u.data"],
    "ml-100k.item": "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n"
    "2\tGoldenEye\t1995\tAction Sci-Fi\n267\tunkonwn\tunkonwn\tunknown\n1412\tLénd III (1995)\tV\tSci-Fi\n",
    "ml-100k.user": "user_id:token\tage:token\tgender:token\toccupation:token\tzip_code:token\n"
    + HUNDRED["u.user"].replace("|", "\t"),
}
ORDERED = {
    "ratings.csv.gz": "user,movie,rating,fold\n70,901,5,1\n70,902,3,2\n71,902,4,1\n70,903,1,1\n",
    "movies.tsv": "901\tA (1990)\tDrama\n902\tÉ (1991)\tDrama|War\n903\tC (1992)\tWar\n",
    "users.tsv": "70\tF\t1\t10\t00001\n71\tM\t56\t16\t70072\n",
    "ml-1m.sasrec.txt.gz": "1 1\n2 2\n2 1\n",
    "sas_to_original_users.txt": "1 71\n2 70\n",
    "sas_to_original_items.txt": "1 902\n2 901\n",
}


def write_files(folder: Path, files: dict[str, str], encoding: str = "utf-8") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        data = text.encode(encoding)
        (folder / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return folder


def write_zip(path: Path, files: dict[str, str], inside: str, encoding: str = "utf-8") -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in files.items():
            archive.writestr(f"{inside}/{name}", text.encode(encoding))
    return path


def rows_of(source) -> list[dict]:
    return [row for chunk in source.chunks() for row in chunk.records.to_pylist()]


def assert_schema_can_be_read(source):
    for chunk in source.chunks():
        assert set(columns_read(source.schema)) <= set(chunk.records.schema.names)


def test_100k_official_folder_zip_and_recbole_wheel_are_one(tmp_path):
    folder = MovieLens100K(write_files(tmp_path / "f", HUNDRED, "latin-1"))
    archive = MovieLens100K(write_zip(tmp_path / "ml-100k.zip", HUNDRED, "ml-100k", "latin-1"))
    wheel = MovieLens100K(write_zip(tmp_path / "r.whl", ATOMIC, "recbole/dataset_example/ml-100k"))
    rows = rows_of(folder)
    assert rows == rows_of(archive) == rows_of(wheel) == rows_of(folder)
    assert folder.schema == wheel.schema
    assert folder.fingerprint() == archive.fingerprint() != wheel.fingerprint()
    assert rows[0] == {
        "user": 1, "item": 2, "rating": 5, "time": 300, "liked": 1, "loved": 1, "title": "GoldenEye", "year": 1995,
        "genres": ["Action", "Sci-Fi"], "age": 24, "gender": "M", "occupation": "technician", "zip": "85711",
    }  # fmt: skip
    assert rows[1]["title"] == "unknown" and rows[1]["year"] is None and rows[1]["genres"] == ["unknown"]
    assert [(row["liked"], row["loved"]) for row in rows] == [(1, 1), (0, 0), (1, 0), (0, 0)]
    assert rows[2]["title"] is rows[2]["year"] is rows[2]["genres"] is None  # item 9 is not in the table of items
    assert rows[3]["zip"] == "V3N4P"
    assert_schema_can_be_read(folder)


def test_titles_lose_their_year():
    assert split_title("Toy Story (1995)") == ("Toy Story", 1995)
    assert split_title("Land (1995) (V)") == ("Land", 1995)
    assert split_title("Two Friends (1986) ") == ("Two Friends", 1986)
    assert split_title("Fawlty Towers (1975–1979)") == ("Fawlty Towers", 1975)
    assert split_title("2001: A Space Odyssey") == ("2001: A Space Odyssey", None)


def test_latest_small_has_half_stars_and_quoted_titles(tmp_path):
    files = {
        "ratings.csv": "userId,movieId,rating,timestamp\n1,5,4.5,77\n2,6,4.0,78\n2,5,0.5,79\n",
        "movies.csv": 'movieId,title,genres\n5,"Misérables, Les (1995)",Drama|War\n6,Cosmos,(no genres listed)\n',
    }
    source = MovieLensLatestSmall(write_files(tmp_path, files))
    rows = rows_of(source)
    assert rows[0] == {
        "user": 1, "item": 5, "rating": 4.5, "half_stars": 9, "time": 77, "liked": 1, "loved": 0,
        "title": "Misérables, Les", "year": 1995, "genres": ["Drama", "War"],
    }  # fmt: skip
    assert rows[1]["genres"] == [] and rows[1]["year"] is None and rows[2]["half_stars"] == 1
    assert source.schema.history("rated").features[0].column == "half_stars"
    assert_schema_can_be_read(source)


def test_1m_official_zip(tmp_path):
    files = {
        "ratings.dat": "1::901::5::978300760\n2::902::3::978302109\n",
        "movies.dat": "901::Mis\xe9rables: X (1995)::Drama|War\n902::B (1990)::Children's\n",
        "users.dat": "1::F::1::10::48067\n2::M::56::16::70072\n",
    }
    source = MovieLens1M(write_zip(tmp_path / "ml-1m.zip", files, "ml-1m", "latin-1"))
    rows = rows_of(source)
    assert rows[0] == {
        "user": 1, "item": 901, "rating": 5, "time": 978300760, "liked": 1, "loved": 1, "title": "Misérables: X",
        "year": 1995, "genres": ["Drama", "War"], "gender": "F", "age": 1, "occupation": 10, "zip": "48067",
    }  # fmt: skip
    assert source.schema.roles.time == "time" and source.notes == ()
    assert_schema_can_be_read(source)


def test_1m_order_file_gives_positions_and_counts_what_it_drops(tmp_path):
    source = MovieLens1M(write_files(tmp_path, ORDERED))
    seen = [(row["user"], row["item"], row["rating"], row["position"], row["title"]) for row in rows_of(source)]
    assert seen == [(70, 901, 5, 0, "A"), (70, 902, 3, 1, "É"), (71, 902, 4, 0, "É")]
    assert source.notes == ("1 of 4 ratings have no place in the order file and were dropped",)
    assert source.schema.roles.order == "position" and source.schema.time_unit == "position"
    assert not source.schema.history("rated").time_is_known(source.schema)
    assert_schema_can_be_read(source)


def test_1m_places_without_a_rating_are_counted(tmp_path):
    source = MovieLens1M(write_files(tmp_path, ORDERED | {"ml-1m.sasrec.txt.gz": "1 1\n1 2\n2 2\n2 1\n"}))
    assert "1 of 4 places in the order file have no rating and were dropped" in source.notes
    assert [row["position"] for row in rows_of(source)] == [0, 1, 0]


def test_1m_order_that_cannot_be_joined_is_named(tmp_path):
    for name, text, expected in (
        ("sas_to_original_items.txt", "1 902\n", "expected a line for id 2 of the order file"),
        ("ml-1m.sasrec.txt.gz", "1 1\n1 1\n", "every user and item together once"),
        ("users.tsv", "70\tF\n", r"expected the columns \['user', 'gender', 'age'"),
    ):
        folder = write_files(tmp_path / name, ORDERED | {name: text})
        with pytest.raises(DataError, match=expected):
            MovieLens1M(folder)


def criteo_line(label: str, **known: str) -> str:
    return "\t".join([label, *(known.get(name, "") for name in (*NUMBERS, *CATEGORIES))])


def test_criteo_fields_missing_values_and_row_numbers(tmp_path):
    first, second = tmp_path / "train.txt", tmp_path / "more.txt"
    first.write_text(criteo_line("0", I1="-2", C1="00000012") + "\n" + criteo_line("1", C26="68fd1e64") + "\n")
    second.write_text(criteo_line("1", I13="7"))
    source = Criteo(first, second, splits=["train", "test"])
    chunks = list(source.chunks())
    assert [chunk.split for chunk in chunks] == ["train", "test"]
    assert [chunk.first_row for chunk in chunks] == [0, 0]
    rows = [row for chunk in chunks for row in chunk.records.to_pylist()]
    assert [row["row"] for row in rows] == [0, 1, 2]
    assert [row["click"] for row in rows] == ["0", "1", "1"]
    assert (rows[0]["I1"], rows[0]["C1"], rows[0]["C26"], rows[1]["C26"]) == ("-2", "00000012", None, "68fd1e64")
    assert rows[2]["I13"] == "7" and rows[2]["I1"] is None
    assert {f.name for f in source.schema.features} <= set(rows[0])
    assert source.schema.key_space("C3").min_count == 10
    assert criteo_schema(min_count=2).key_space("C3").min_count == 2


def test_criteo_line_with_too_few_fields_is_named(tmp_path):
    (tmp_path / "train.txt").write_text(criteo_line("0") + "\n" + "1\t2\n")
    with pytest.raises(DataError, match=r"train\.txt, line 2: expected 40 fields, got 2"):
        rows_of(Criteo(tmp_path))


def test_a_bundle_that_is_none_is_named(tmp_path):
    (tmp_path / "ml-100k.zip").write_bytes(b"PK not a zip")
    with pytest.raises(DataError, match="whole zip archive"):
        Bundle(tmp_path / "ml-100k.zip")
    with pytest.raises(DataError, match=r"expected a file 'u\.data', found \['ml-100k\.zip'\]"):
        MovieLens100K(tmp_path)


def test_readers_and_catalogue_name_the_same_sets():
    assert [reader.NAME for reader in READERS] == [public.name for public in CATALOGUE]
    with pytest.raises(ValueError, match="Did you mean 'movielens-100k'"):
        find_set("movielens100k")
    with pytest.raises(ValueError, match="Did you mean 'movielens-1m'"):
        open_public("movielens1m", Path())


def real(folder: str) -> Path:
    path = Path(os.environ.get("FULLRANK_DATA") or "nowhere") / folder
    if not path.is_dir():
        pytest.skip(f"{folder} is not in $FULLRANK_DATA")
    return path


def test_real_100k():
    rows = rows_of(source := MovieLens100K(real("movielens_100k")))
    assert len(rows) == 100_000 and len({row["user"] for row in rows}) == 943
    assert len({row["item"] for row in rows}) == 1682
    assert all(row["age"] and row["gender"] and row["genres"] and row["title"] for row in rows)
    assert {row["item"] for row in rows if row["year"] is None} == {267}
    assert source.name == "movielens-100k"


def test_real_latest_small():
    rows = rows_of(MovieLensLatestSmall(real("ml_latest_small")))
    assert len(rows) == 100_836 and {row["half_stars"] for row in rows} == set(range(1, 11))
    assert all(row["title"] for row in rows)


def test_real_1m_order_joins_through_the_id_maps():
    source = MovieLens1M(real("movielens_1m"))
    chunks = [chunk.records for chunk in source.chunks()]
    assert sum(chunk.num_rows for chunk in chunks) == 999_611
    assert source.notes == ("598 of 1,000,209 ratings have no place in the order file and were dropped",)
    first = chunks[0].slice(0, 2000).to_pylist()
    user = [row for row in first if row["user"] == first[0]["user"]]
    assert [row["position"] for row in user] == list(range(len(user)))
    assert {row["title"] for row in first if row["item"] == 1} == {"Toy Story"}
    assert all(column.null_count == 0 for chunk in chunks for column in (chunk["rating"], chunk["title"], chunk["age"]))


def test_real_criteo():
    chunks = [chunk.records for chunk in Criteo(real("criteo_10k")).chunks()]
    assert sum(chunk.num_rows for chunk in chunks) == 10_000
    assert sum(chunk["click"].to_pylist().count("1") for chunk in chunks) == 2_182
