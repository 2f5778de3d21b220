"""The doctor sees what is whole and what is not, says what to type, and never mends."""

from __future__ import annotations

import json
import shutil
from collections import namedtuple
from importlib import metadata
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fullrank.cli import main
from fullrank.data.partitions import PreparedData
from fullrank.data.prepare import prepare
from fullrank.data.readers.tabular import TabularSource
from fullrank.data.splits import ByTime
from fullrank.rankers import DCNv2
from fullrank.rankers.field_front import EmbeddingConfig
from fullrank.recipes import doctor as doctors
from fullrank.recipes.doctor import KNOWN_BAD, doctor, look, version_key, within
from fullrank.recipes.train import train_ranker
from fullrank.schema import Roles, Schema, Task
from fullrank.training.config import TrainConfig

SCHEMA = Schema(roles=Roles(user="user", item="item", time="time"), tasks=(Task(name="click"),))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("doctor")
    rng = np.random.default_rng(0)
    columns = {name: rng.integers(0, 9, 120) for name in ("user", "item")}
    columns |= {"time": np.arange(120) + 1_700_000_000, "click": rng.integers(0, 2, 120)}
    pq.write_table(pa.table(columns), folder / "log.parquet")
    prepare(TabularSource([folder / "log.parquet"], SCHEMA), folder / "all" / "data", split=ByTime(valid=0.1, test=0.1))
    training = TrainConfig(epochs=1, batch_size=30, checkpoint_every_steps=1)
    config = DCNv2.Config(embedding=EmbeddingConfig(width=2), num_cross_layers=1, hidden=(4,))
    train_ranker(config, PreparedData.open(folder / "all" / "data"), folder / "all" / "run", training)
    return folder


@pytest.fixture
def folders(made: Path, tmp_path: Path) -> Path:
    """A copy to damage: `all/data` and `all/run`."""
    shutil.copytree(made, tmp_path / "copy")
    return tmp_path / "copy"


def test_what_is_whole_is_ok_and_says_what_comes_next(folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, run = look(folders / "all")
    assert data.state == "ok" and "prepared data, whole: 1 partitions; train: 96 rows, valid: 12 rows" in data.found
    assert data.todo == f"fullrank train dcnv2 --data {folders / 'all' / 'data'} --out RUN"
    assert run.state == "ok" and "a run of dcnv2, step 4, its checkpoint as it was written; finished" in run.found
    assert run.todo == f"fullrank evaluate {folders / 'all' / 'run'} --data DIR"
    before = sorted(str(path) for path in folders.rglob("*"))
    assert main(["doctor", str(folders / "all"), "--json", str(folders.parent / "found.json")]) == 0
    text = capsys.readouterr().out
    assert "PROBLEM" not in text and "prepared data, whole" in text and "\nNext:\n" in text
    found = json.loads((folders.parent / "found.json").read_text())
    assert found["ok"] and {"python", "fullrank", "torch", "numpy", "pyarrow", "threads", "cache"} <= {
        finding["what"] for finding in found["findings"]
    }
    assert sorted(str(path) for path in folders.rglob("*")) == before


def test_a_file_that_was_cut_is_named_and_the_code_is_2(folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = next((folders / "all" / "data").rglob("train/rows.arrow"))
    rows.write_bytes(rows.read_bytes()[:-8])
    assert main(["doctor", str(folders / "all" / "data")]) == 2
    text = capsys.readouterr().out
    assert "PROBLEM" in text and str(rows) in text and "restore the file from a copy, or prepare the log anew" in text


def test_a_checkpoint_whose_bytes_changed_is_noticed(folders: Path) -> None:
    run = folders / "all" / "run"
    steps = sorted((path for path in (run / "checkpoints").iterdir() if path.is_dir()), key=lambda path: int(path.name))
    tables = steps[-1] / "tables.safetensors"
    content = bytearray(tables.read_bytes())
    content[-1] ^= 1
    tables.write_bytes(content)
    problem, rest = look(run)
    assert problem.state == "problem" and str(tables) in problem.found and "SHA-256" in problem.found
    assert rest.state == "ok" and f"step {steps[-2].name}" in rest.found
    for step in steps:
        (step / "dense.safetensors").unlink()
    (problem,) = look(run)
    assert problem.state == "problem" and "No checkpoint" in problem.found


def test_what_is_not_finished_goes_on_by_the_same_command(folders: Path) -> None:
    run = folders / "all" / "run"
    (run / "result.json").unlink()
    (found,) = look(run)
    assert found.state == "note" and found.found.endswith("not finished") and "the same `fullrank train`" in found.todo
    shutil.rmtree(run / "checkpoints")
    (found,) = look(run)
    assert found.state == "note" and "without a checkpoint yet" in found.found
    (run / "run.json").write_text("{")
    (found,) = look(run)
    assert found.state == "problem" and "run.json is damaged" in found.found


def test_paths_that_are_neither(folders: Path) -> None:
    (empty := folders / "empty").mkdir()
    (stopped := folders / "stopped").mkdir()
    (stopped / ".fullrank.lock").touch()
    states = {path: look(path)[0] for path in (empty, stopped, folders / "log.parquet", folders / "nothing")}
    assert states[empty].state == "note" and "fullrank prepare LOG" in states[empty].todo
    assert states[stopped].state == "problem" and "was stopped" in states[stopped].found
    assert states[folders / "log.parquet"].todo.startswith("fullrank schema infer ")
    assert states[folders / "nothing"] == doctors.Finding(str(folders / "nothing"), "problem", "not there")


def test_packages_that_lack_or_are_of_a_wrong_version(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = ["torch<2.14,>=2.11", "numpy>=1.26", "nosuch>=3"]
    wanted += ['nosuch-too>=1; extra == "odd"', 'numpy; extra == "easy"']
    monkeypatch.setattr(metadata, "requires", lambda name: wanted)
    monkeypatch.setattr(doctors, "installed", lambda: {"torch": "2.15.0+cpu", "numpy": "2.1.0"})
    found = {finding.what: finding for finding in doctor()}
    assert found["torch"].state == "problem" and found["torch"].found == "2.15.0+cpu, expected <2.14,>=2.11"
    assert found["torch"].todo == 'pip install "torch<2.14,>=2.11"' and found["numpy"].state == "ok"
    assert found["nosuch"].found == "not installed" and found["nosuch"].todo == 'pip install "nosuch>=3"'
    assert found["extra odd"].state == "note" and 'pip install "fullrank[odd]"' in found["extra odd"].todo
    assert found["extra easy"].state == "ok"


def test_this_installation_has_what_it_needs() -> None:
    """The real metadata: every requirement of the project is found and judged."""
    found = {finding.what: finding for finding in doctor()}
    for name in ("torch", "numpy", "pyarrow", "safetensors", "tqdm", "tyro", "matplotlib"):
        assert found[name].state == "ok" and version_key(found[name].found)


@pytest.mark.parametrize(
    ("version", "bounds", "expected"),
    [
        ("2.13.0+cpu", ">=2.11,<2.14", True),
        ("2.14.0", ">=2.11,<2.14", False),
        ("2.9", ">=2.11", False),
        ("2.11", ">=2.11", True),
        ("1", "", True),
        ("0.4.5rc1", ">=0.4.5", True),
    ],
)
def test_versions_against_bounds(version: str, bounds: str, expected: bool) -> None:
    assert within(version, bounds) == expected


def test_known_bad_combinations(monkeypatch: pytest.MonkeyPatch) -> None:
    def bad(**versions: str) -> list[str]:
        named = {name.replace("_", "-"): version for name, version in versions.items()}
        return [known.what for known in KNOWN_BAD if known.applies(named)]

    assert bad(lightning="2.6.3") == ["lightning"] and bad(lightning="2.6.1") == []
    assert bad(tensorboard="2.20.0", setuptools="82.0.1") == ["tensorboard"]
    assert bad(tensorboard="2.21.0", setuptools="82.0.1") == bad(tensorboard="2.20.0", setuptools="75") == []
    monkeypatch.setattr("sys.platform", "darwin")
    assert bad(faiss_cpu="1.15.1") == ["faiss"]
    monkeypatch.setattr("sys.platform", "linux")
    assert bad(faiss_cpu="1.15.1") == []


def test_a_full_disk_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10, 10, 1000))
    found = {finding.what: finding for finding in doctor()}
    assert found["working folder"].state == "problem" and "0.0 GiB free" in found["working folder"].found
    assert found["cache"].todo == "set XDG_CACHE_HOME"
