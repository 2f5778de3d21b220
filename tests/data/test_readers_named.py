"""Public sets by name: what the command line lists, prepares and refuses."""

from dataclasses import replace
from pathlib import Path

import pytest
from public_files import ADULT_FILES, write_files

from fullrank.cli import main
from fullrank.data import fetch
from fullrank.data.datasets import CATALOGUE
from fullrank.data.partitions import PreparedData
from fullrank.data.readers import READERS


@pytest.fixture
def sets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder of public sets with one in it, and a cache without any."""
    monkeypatch.setenv("FULLRANK_DATA", str(tmp_path / "sets"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    write_files(tmp_path / "sets/adult", ADULT_FILES)
    return tmp_path / "sets"


def test_names_are_each_one_set_s() -> None:
    names = [reader.NAME for reader in READERS]
    assert len(set(names)) == len(names) == len(CATALOGUE) == 18


def test_list_says_title_terms_home_and_place_of_every_set(sets, capsys):
    write_files(sets / "avazu_9k", {"train.csv": "id\n"})
    assert main(["data", "list"]) == 0
    said = capsys.readouterr().out
    for public in CATALOGUE:
        for part in (public.title, public.terms, public.page):
            assert part in said
    assert f"\n  {sets / 'avazu_9k'}\n" in said
    assert "not here: fullrank data get frappe\n" in said
    assert "not here: fullrank data get criteo says what to download" in said


def test_a_public_set_is_prepared_by_its_name(sets, tmp_path, monkeypatch, capsys):
    find = fetch.find_set  # hand-made files pass for the set
    monkeypatch.setattr(fetch, "find_set", lambda name: replace(find(name), checksums=()))
    assert main(["prepare", "adult", "--out", "data"]) == 0
    assert "Split: GivenFiles()" in capsys.readouterr().out
    assert rows_of_splits(tmp_path / "data") == {"train": 2, "valid": 1, "test": 2}
    assert main(["prepare", "adult", "--out", "all", "--split", "train"]) == 0
    assert rows_of_splits(tmp_path / "all")["train"] == 5


def rows_of_splits(folder: Path) -> dict[str, int]:
    data = PreparedData.open(folder)
    return {split: data.num_rows(split) for split in ("train", "valid", "test")}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["prepare", "adlt", "--out", "x"], "no public set (`fullrank data list`). Did you mean 'adult'"),
        (["prepare", "frappe", "--out", "x"], "frappe could not be had:"),
        (["prepare", "adult", "--out", "x", "--schema", "s.toml"], "Expected no --schema with the public set adult"),
        (["prepare", "adult", "--out", "x"], "expected sha256 5b002646"),
    ],
)
def test_what_cannot_be_is_said(sets, words, said, capsys):
    assert main(words) == 2
    assert said in capsys.readouterr().err


def test_a_file_of_that_name_comes_before_the_set(sets, tmp_path, capsys):
    write_files(tmp_path, {"adult": "a,b\n"})
    assert main(["prepare", "adult", "--out", "x"]) == 2
    assert "Expected --schema FILE" in capsys.readouterr().err
