"""The command line as its users meet it: words in, text, files and exit codes out."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fullrank import __version__, cli
from fullrank.cli import VERBS, main
from fullrank.schema_toml import from_toml

START, DAY = 1_700_000_000, 86_400


def write_day(path: Path, day: int, rows: int = 600) -> Path:
    rng = np.random.default_rng(day)
    log = {
        "impression_id": np.arange(rows) + 10_000 * day,
        "user_id": rng.integers(0, 40, rows),
        "item_id": rng.integers(0, 30, rows),
        "timestamp": START + DAY * day + np.sort(rng.integers(0, DAY, rows)),
        "device": rng.choice(["phone", "desktop", "tablet"], rows),
        "click": (rng.random(rows) < 0.3).astype(int),
    }
    pq.write_table(pa.table(log), path)
    return path


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a log, its schema, prepared data and a run, each made by the command that makes it."""
    folder = tmp_path_factory.mktemp("world")
    log = write_day(folder / "day1.parquet", 0)
    assert main(["schema", "infer", str(log), "--out", str(folder / "schema.toml")]) == 0
    assert run(folder, "prepare {0}/day1.parquet --schema {0}/schema.toml --out {0}/data") == 0
    options = "--training.batch-size 128 --ranker.embedding.width 4 --ranker.hidden 8"
    assert run(folder, f"train dcnv2 --data {{0}}/data --out {{0}}/run {options}") == 0
    return folder


def run(folder: Path, command: str) -> int:
    return main([word.format(folder) for word in command.split()])


def test_help_lists_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["--help"], ["-h"], []):
        assert main(words) == 0
        text = capsys.readouterr().out
        assert all(f"  {name} " in text and verb.help in text for name, verb in VERBS.items())
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"fullrank {__version__}\n"
    assert main(["data"]) == 0
    assert capsys.readouterr().out.split()[:2] == ["data", "get"]


@pytest.mark.parametrize("name", VERBS)
def test_every_verb_explains_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    module = import_module(f"fullrank.commands.{VERBS[name].module}")
    assert module.main.__module__ == module.__name__
    try:
        assert main([*name.split(), "--help"]) == 0
    except SystemExit as end:
        assert end.code == 0
    assert f"usage: fullrank {name}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["prepar"], "error: expected one of demo, schema infer, prepare, .*; got 'prepar'. Did you mean 'prepare'?"),
        (["schema", "infr"], "got 'schema infr'. Did you mean 'schema infer'?"),
        (["data", "got", "x"], "expected one of data get, data list; got 'data got'. Did you mean 'data get'?"),
        (["prepare", "--out", "x"], "error: Expected at least one file to prepare, got none."),
        (["prepare", "a.csv"], "either `--out DIR` for a new folder or `--append DIR`"),
        (["prepare", "a.csv", "--out", "x"], "Expected --schema FILE. `fullrank schema infer"),
        (["prepare", "a.csv", "--out", "x", "--schema", "no.toml"], "no.toml: expected a schema, found no such file"),
        (["prepare", "a.csv", "--append", "x"], "schema.toml: expected a schema, found no such file"),
        (["prepare", "a.csv", "--append", "x", "--split", "time"], "no --schema and no --split with --append"),
        (["train", "dcn", "--data", "x"], "No ranker 'dcn'; .* Did you mean 'dcnv2'?"),
        (["data", "get", "movielens-100"], "Did you mean 'movielens-100k'?"),
        (["evaluate", "norun", "--data", "x"], "norun"),
    ],
)
def test_an_error_is_one_line_and_code_2(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    captured = capsys.readouterr()
    first, *rest = captured.err.splitlines()
    assert first.startswith("error: ") and not rest and captured.out == ""
    head, _, tail = message.partition(" .* ")
    assert head.split(".*")[0] in first and tail in first


def test_debug_shows_where_an_error_came_from() -> None:
    with pytest.raises(ValueError, match="movielens-100k"):
        main(["data", "get", "movielens-100", "--debug"])


def test_a_fault_of_the_program_is_not_passed_off_as_the_user_s(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(words: list[str]) -> int:
        return [][0]

    monkeypatch.setattr(cli, "_run", broken)
    with pytest.raises(IndexError):
        main(["prepare"])

    def of_a_library(words: list[str]) -> int:
        return json.loads("{")

    monkeypatch.setattr(cli, "_run", of_a_library)
    with pytest.raises(ValueError, match="Expecting property name"):
        main(["prepare"])


def test_ctrl_c_is_quiet(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(words: list[str]) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "_run", interrupted)
    assert main(["prepare"]) == 130
    assert capsys.readouterr() == ("", "")


def test_a_reader_that_goes_away_is_no_error() -> None:
    program = "import sys; from fullrank.cli import main; input(); sys.exit(main(['--help']))"
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdin and process.stdout and process.stderr
    process.stdout.close()
    process.stdin.write(b"\n")
    process.stdin.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait() == 0


def test_the_module_is_the_command() -> None:
    command = [sys.executable, "-m", "fullrank", "--version"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == f"fullrank {__version__}\n"


def test_infer_prints_a_schema_and_overwrites_nothing(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(world, "schema infer {0}/day1.parquet") == 0
    captured = capsys.readouterr()
    assert captured.out == (world / "schema.toml").read_text(encoding="utf-8")
    assert captured.err == ""
    schema = from_toml(captured.out)
    assert [task.name for task in schema.tasks] == ["click"]
    assert run(world, "schema infer {0}/day1.parquet --out {0}/schema.toml") == 2
    assert "is there already, and may hold your edits" in capsys.readouterr().err


def test_infer_says_on_standard_error_what_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pq.write_table(pa.table({"user_id": [1, 1, 2], "item_id": [1, 2, 1]}), tmp_path / "log.parquet")
    assert run(tmp_path, "schema infer {0}/log.parquet") == 0
    captured = capsys.readouterr()
    assert "note: No column looks like a label" in captured.err
    assert from_toml(captured.out).tasks == ()


def test_prepare_append_and_late_labels(tmp_path: Path, world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_day(tmp_path / "day1.parquet", 0)
    write_day(tmp_path / "day2.parquet", 1)
    schema = (world / "schema.toml").read_text(encoding="utf-8")
    (tmp_path / "schema.toml").write_text(schema, encoding="utf-8")
    first = "prepare {0}/day1.parquet --schema {0}/schema.toml --out {0}/data --json {0}/report.json"
    assert run(tmp_path, first) == 0
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["is_new"] and report["rows"] == {"train": 480, "valid": 60, "test": 60}
    assert "train: 480 rows" in capsys.readouterr().out
    assert run(tmp_path, first) == 0
    assert not json.loads((tmp_path / "report.json").read_text())["is_new"]
    append = "prepare {0}/day2.parquet --append {0}/data --json {0}/report.json"
    assert run(tmp_path, append) == 0
    assert json.loads((tmp_path / "report.json").read_text())["rows"]["train"] == 600
    late = START + 3 * DAY
    (tmp_path / "late.csv").write_text(f"impression_id,label,time\n10001,true,{late}\n77,1,{late}\n")
    assert run(tmp_path, "prepare {0}/late.csv --append {0}/data --labels --json {0}/report.json") == 0
    report = json.loads((tmp_path / "report.json").read_text())
    assert (report["labels"], report["unknown"]) == ({"click": 2}, {"click": 0})
    capsys.readouterr()
    (tmp_path / "late.csv").write_text("impression_id,label,time\n10001,perhaps,1\n")
    assert run(tmp_path, "prepare {0}/late.csv --append {0}/data --labels") == 2
    assert "late.csv: row 1, column 'label': expected 0 or 1" in capsys.readouterr().err


def test_forget_removes_a_user_once(tmp_path: Path, world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(world / "data", tmp_path / "data")
    shutil.copytree(world / "run", tmp_path / "run")
    command = "forget 7 --data {0}/data --runs {0}/run --json {0}/report.json"
    assert run(tmp_path, command) == 0
    assert "removed" in capsys.readouterr().out
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["found"] and report["rows"] > 0 and report["runs"] == 1
    assert run(tmp_path, command) == 0
    assert not json.loads((tmp_path / "report.json").read_text())["found"]
    assert run(tmp_path, "recommend {0}/run --data {0}/data --user 7 --k 1") == 0
    assert "never seen" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("asked", "split"),
    [
        ("", "ByTime(valid=0.1, test=0.1)"),
        ("--split time --valid 0.2 --test .1", "ByTime(valid=0.2, test=0.1)"),
        ("--split time --valid 2023-11-15 --test 2023-11-16T12", "ByTime(valid='2023-11-15', test='2023-11-16T12')"),
        ("--split time --valid 1700000001 --test 1700000002", "ByTime(valid=1700000001, test=1700000002)"),
        ("--split per-user", "PerUserOrder(valid=0.1, test=0.1)"),
        ("--split hash:device --valid 0.3", "ByHash(key='device', valid=0.3, test=0.1)"),
        ("--split train", "AllTrain()"),
    ],
)
def test_the_splits_have_short_names(world: Path, asked: str, split: str) -> None:
    from fullrank.commands.prepare import split_named

    schema = from_toml((world / "schema.toml").read_text(encoding="utf-8"))
    words = asked.split()
    named = dict(zip(words[::2], words[1::2], strict=True))
    found = split_named(named.get("--split", ""), named.get("--valid", "0.1"), named.get("--test", "0.1"), schema)
    assert str(found) == split


def test_a_split_by_files_goes_by_their_names(tmp_path: Path, world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for day, name in enumerate(("train_1", "my-valid", "test")):
        write_day(tmp_path / f"{name}.parquet", day, rows=100)
    (tmp_path / "schema.toml").write_text((world / "schema.toml").read_text(encoding="utf-8"), encoding="utf-8")
    files = "{0}/train_1.parquet {0}/my-valid.parquet {0}/test.parquet"
    assert run(tmp_path, f"prepare {files} --schema {{0}}/schema.toml --out {{0}}/data --split files") == 0
    assert "valid: 100 rows" in capsys.readouterr().out
    (tmp_path / "test.parquet").rename(tmp_path / "latest.parquet")
    assert run(tmp_path, "prepare {0}/latest.parquet --schema {0}/schema.toml --out {0}/b --split files") == 2
    assert "latest.parquet: expected a name with one of train, valid, test in it" in capsys.readouterr().err
    assert run(tmp_path, "prepare {0}/latest.parquet --schema {0}/schema.toml --out {0}/b --split tim") == 2
    assert "Did you mean 'time'?" in capsys.readouterr().err


def test_evaluate_prints_a_table_and_writes_it(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(world, "evaluate {0}/run --data {0}/data --out {0}/report --json {0}/report/metrics.json") == 0
    text = capsys.readouterr().out
    assert (world / "report" / "metrics.txt").read_text() == text
    header, line = text.splitlines()
    assert header.split() == ["task", "rows", "positives", "auc", "user_auc", "log_loss", "pcoc"]
    found = json.loads((world / "report" / "metrics.json").read_text())
    assert set(found) == {"run", "data", "split", "tasks"}
    click = found["tasks"]["click"]
    assert line.split() == ["click", "60", str(click["positives"]), *(f"{click[k]:.4f}" for k in header.split()[3:])]


def test_recommend_knows_users_and_strangers(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(world, "recommend {0}/run --data {0}/data --user 7 --k 3 --json {0}/items.json") == 0
    assert "User 7 (" in capsys.readouterr().out
    found = json.loads((world / "items.json").read_text())
    assert found["known"] and len(found["items"]) == 3
    assert set(found["items"][0]) == {"key", "text", "probability"}
    assert run(world, "recommend {0}/run --data {0}/data --user nobody --k 3") == 0
    assert "never seen" in capsys.readouterr().out


def test_training_again_finds_the_finished_run(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = "--training.batch-size 128 --ranker.embedding.width 4 --ranker.hidden 8"
    assert run(world, f"train dcnv2 --data {{0}}/data --out {{0}}/run {options} --json {{0}}/run.json") == 0
    assert "4 steps, 480 rows" in capsys.readouterr().out
    told = json.loads((world / "run.json").read_text())
    assert (told["run"], told["step"], told["rows"], told["finished"]) == (str(world / "run"), 4, 480, True)
    assert run(world, "train dcnv2 --data {0}/data --out {0}/run") == 2
    assert "holds another run" in capsys.readouterr().err
    assert main(["train"]) == 2
    assert "RANKER is one of: dcnv2, rankmixer" in capsys.readouterr().out


PAGES = ("README.md", "docs/cli.md", "CHANGELOG.md")


def test_the_pages_name_verbs_that_exist() -> None:
    root = Path(__file__).parents[1]
    text = "\n".join((root / page).read_text(encoding="utf-8") for page in PAGES)
    found = re.findall(r"(?:^|`|&& )fullrank ((?:[a-z]+ )?[a-z]+)", text, re.M)
    assert len(found) > 10
    assert [words for words in found if words not in VERBS and words.split()[0] not in VERBS] == []


def test_the_python_of_the_readme_runs(world: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (program,) = re.findall(r"```python\n(.*?)```", (Path(__file__).parents[1] / "README.md").read_text(), re.S)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "mine").symlink_to(world / "data")
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(compile(program, "README.md", "exec"), names)  # the page's own code
    assert names["trained"].result.finished
