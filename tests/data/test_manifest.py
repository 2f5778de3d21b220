"""The manifest round-trips, and a folder changes all at once or not at all."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from fullrank.data import commit as committing
from fullrank.data.columns import DataError
from fullrank.data.commit import LOCK, WORK, commit, files_under, sizes, undertaking
from fullrank.data.manifest import (
    MANIFEST,
    CorrectionEntry,
    Manifest,
    NotPrepared,
    PartitionEntry,
    SplitSize,
)


def manifest(files: dict[str, int] | None = None) -> Manifest:
    rows = PartitionEntry(
        name="0000-aa",
        kind="rows",
        source="s",
        fingerprint="f",
        lineage_version=0,
        splits={"train": SplitSize(rows=3, requests=2, blocks=1)},
        events={"clicks": 4},
        time_min=-5,
        time_max=2**62,
    )
    late = PartitionEntry(
        name="0001-bb",
        kind="corrections",
        source="s2",
        fingerprint="f2",
        lineage_version=0,
        splits={},
        events={},
        corrections=(CorrectionEntry(target="0000-aa", split="train", task="y", folder="000", rows=1),),
        late={"y": "late-0"},
    )
    return Manifest(
        schema_hash="h",
        split={"kind": "ByTime", "valid": 0.1, "test": 0.1},
        as_of=17,
        key_check="",
        lineage={"versions": [], "ancestors": []},
        fitted_at="0000-aa",
        partitions=(rows, late),
        files=files or {},
    )


def write(folder: Path, name: str, text: str) -> str:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)
    return name


def test_json_round_trip() -> None:
    assert Manifest.from_json(manifest().to_json()) == manifest()
    assert manifest().to_json() == manifest().to_json()


def test_what_is_committed_stays_and_all_else_of_ours_goes(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    with undertaking(folder) as work:
        assert work == folder / WORK
        kept = write(folder, "partitions/0000-aa/train/rows.arrow", "rows")
        write(folder, "partitions/0001-bb/train/rows.arrow", "left")
        write(folder, ".work/deep/down.npy", "scratch")
        write(folder, "notes.txt", "mine")
        write(folder, "partitions/readme.txt", "mine too")
        named = manifest(sizes(folder, [kept]))
        commit(folder, named)
    assert Manifest.load(folder) == named
    found = files_under(folder, folder)
    assert found == sorted([LOCK, MANIFEST, "notes.txt", kept, "partitions/readme.txt"])


def test_an_error_leaves_the_folder_as_it_was(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    with pytest.raises(KeyError), undertaking(folder):
        write(folder, "ids/user/000-1.arrow", "half")
        write(folder, "schema.toml", "half")
        raise KeyError
    assert files_under(folder, folder) == [LOCK]
    with pytest.raises(NotPrepared, match="Run `fullrank prepare LOG --out"):
        Manifest.load(folder)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_no_space_is_said_in_words(tmp_path: Path, number: int) -> None:
    with (
        pytest.raises(DataError, match=r"No space left while writing to .*Nothing was changed"),
        undertaking(tmp_path / "d"),
    ):
        raise OSError(number, "no space")
    with pytest.raises(PermissionError), undertaking(tmp_path / "d"):
        raise PermissionError(errno.EACCES, "not yours")


def test_a_manifest_is_in_place_only_after_its_rename(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "data"
    with undertaking(folder):
        commit(folder, manifest())

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr(committing.os, "replace", fail)
    with pytest.raises(DataError, match="Nothing was changed"), undertaking(folder):
        kept = write(folder, "partitions/0002-cc/train/rows.arrow", "rows")
        commit(folder, manifest(sizes(folder, [kept])))
    assert Manifest.load(folder) == manifest()
    assert files_under(folder, folder) == sorted([LOCK, MANIFEST])


def test_a_file_is_no_folder_of_prepared_data(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("user,item\n1,2\n", encoding="utf-8")
    with pytest.raises(NotPrepared, match=r"Expected a folder of prepared data, got the file .*log\.csv"):
        Manifest.load(tmp_path / "log.csv")


def test_the_lock_is_free_again_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(KeyError), undertaking(tmp_path / "d"):
        raise KeyError
    message = "Someone else is writing"
    with undertaking(tmp_path / "d"), pytest.raises(DataError, match=message), undertaking(tmp_path / "d"):
        pass
