"""Adult and Census-Income: values with spaces, missing ones, two labels, and halves of the test file."""

import pytest
from public_files import ADULT_FILES, adult_line, columns_of, counts, prepared_as_usual, real, rows_of, write_files

from fullrank.data.columns import DataError
from fullrank.data.readers import Adult, CensusIncome
from fullrank.data.readers.census import ADULT, CENSUS
from fullrank.data.splits import ByHash, GivenFiles


def test_adult_labels_missing_values_and_halves(tmp_path):
    source = Adult(write_files(tmp_path, ADULT_FILES))
    rows = rows_of(source)
    assert [(row["income"], row["never_married"], row["@split"]) for row in rows] == [
        (0, 1, "train"), (1, 0, "train"), (1, 0, "valid"), (0, 0, "test"), (0, 1, "test"),
    ]  # fmt: skip
    assert (rows[0]["workclass"], rows[1]["workclass"], rows[2]["age"]) == ("Private", None, "17")
    assert [row["row"] for row in rows] == list(range(5))
    features = {feature.name for feature in source.schema.features}
    assert features == set(ADULT) - {"marital_status", "income", "fnlwgt"}
    assert source.schema.feature("capital_gain").scale == "log" and source.schema.feature("race").kind == "categorical"


def test_adult_prepares_two_tasks(tmp_path):
    source = Adult(write_files(tmp_path / "set", ADULT_FILES))
    data = prepared_as_usual(source, tmp_path / "data")
    income, married = columns_of(data, "train", "@label.income", "@label.never_married")
    assert income.tolist() == [0.0, 1.0] and married.tolist() == [1.0, 0.0]
    assert len(columns_of(data, "valid", "@label.income")[0]) == 1


def test_errors_count_rows_of_the_whole_test_file(tmp_path):
    bad = ADULT_FILES["adult.test"] + adult_line("50K")
    with pytest.raises(DataError, match=r"adult\.test, column 'income', row 4: expected one of .* got '50K'"):
        rows_of(Adult(write_files(tmp_path / "a", ADULT_FILES | {"adult.test": bad})))
    with pytest.raises(DataError, match=r"adult\.data, row 1: expected a marital status, got none"):
        rows_of(Adult(write_files(tmp_path / "b", ADULT_FILES | {"adult.data": adult_line(">50K", "?")})))
    with pytest.raises(DataError, match=r"adult\.data, line 2: expected 15 fields, got 2"):
        rows_of(Adult(write_files(tmp_path / "c", ADULT_FILES | {"adult.data": adult_line(">50K") + "1, 2\n"})))
    wrong = ADULT_FILES | {"adult.test": ADULT_FILES["adult.test"] + adult_line(">50K", age="old")}
    with pytest.raises(DataError, match=r"adult\.test.*row 4.*age|age.*row 4"):
        prepared_as_usual(Adult(write_files(tmp_path / "d", wrong)), tmp_path / "data")


def census_line(income: str, married: str) -> str:
    given = {"income": income, "marital_status": married, "migration_msa": "?"}
    return ", ".join(given.get(column, "3") for column in CENSUS) + "\n"


CENSUS_TEST = census_line(" - 50000.", "Never married") + census_line(" 50000+.", "Widowed") * 2


def test_census_with_and_without_its_train_file(tmp_path):
    alone = CensusIncome(write_files(tmp_path / "a", {"census-income.test.gz": CENSUS_TEST}))
    rows = rows_of(alone)
    assert [(row["income"], row["never_married"]) for row in rows] == [(0, 1), (1, 0), (1, 0)]
    assert {row["@split"] for row in rows} == {""}
    assert rows[0]["migration_msa"] is None and alone.split == ByHash(key="impression")
    assert not {"instance_weight", "marital_status", "income"} & {f.name for f in alone.schema.features}
    files = {"census-income.data": CENSUS_TEST, "census-income.test": CENSUS_TEST}
    both = CensusIncome(write_files(tmp_path / "b", files))
    assert [row["@split"] for row in rows_of(both)] == ["train"] * 3 + ["valid"] + ["test"] * 2
    assert both.split == GivenFiles()


def test_neither_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"expected a file 'census-income\.data', found \[\]"):
        rows_of(CensusIncome(tmp_path))


def test_real_adult():
    source = Adult(real("adult_census"))
    rows, rich = counts(source, "income")
    assert rows == {"train": 32_561, "valid": 8_140, "test": 8_141}
    assert rich["train"] == 7_841 and rich["valid"] + rich["test"] == 3_846
    _, single = counts(source, "never_married")
    assert single["train"] == 10_683


def test_real_census():
    source = CensusIncome(real("adult_census"))
    assert counts(source, "income") == ({"": 99_762}, {"": 6_186})
    assert counts(source, "never_married") == ({"": 99_762}, {"": 43_143})


def test_real_slices_prepare(tmp_path):
    folder = real("adult_census")
    files = {}
    for name in ("adult.data", "adult.test"):
        with (folder / name).open() as file:
            files[name] = "".join(next(file) for _ in range(300))
    data = prepared_as_usual(Adult(write_files(tmp_path / "set", files)), tmp_path / "data")
    (income,) = columns_of(data, "train", "@label.income")
    assert income.tolist() == [float(">50K" in line) for line in files["adult.data"].splitlines()]
