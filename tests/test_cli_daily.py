"""The daily loop on the command line: train, append, `train --continue`; and `train --warm-from`."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch

from fullrank.cli import main
from fullrank.data.simulate import SimulatedLog, SimulatorConfig
from fullrank.schema_toml import to_toml

LOG = SimulatedLog(SimulatorConfig(rows=900, users=50, ads=80, campaigns=20, days=3, seed=2))
SMALL = "--training.batch-size 64 --ranker.embedding.width 4 --ranker.hidden 8"


def run(folder: Path, line: str) -> int:
    return main([word.replace("{0}", str(folder)) for word in line.split()])


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("daily")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    (folder / "schema.toml").write_text(to_toml(LOG.schema))
    for day in range(3):
        (chunk,) = LOG.day(day).chunks()
        with pq.ParquetWriter(folder / f"day{day}.parquet", chunk.records.schema) as writer:
            writer.write_batch(chunk.records)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        assert run(folder, "prepare {0}/day0.parquet --schema {0}/schema.toml --out {0}/data --split hash:user") == 0
        assert run(folder, f"train dcnv2 --data {{0}}/data --out {{0}}/first {SMALL}") == 0
        for day in (1, 2):
            assert run(folder, f"prepare {{0}}/day{day}.parquet --append {{0}}/data") == 0
        yield folder
    torch.set_num_threads(threads)


def test_a_run_goes_on_with_the_days_that_came(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = "train --continue {0}/first --data {0}/data --out {0}/on --json {0}/on.json"
    assert run(world, line) == 0
    out = capsys.readouterr().out
    assert "2 new partitions; " in out and "measured before it was learned" in out
    table = [words.split() for words in out.splitlines() if words.startswith("2025-01-")]
    assert [row[:4] for row in table] == [
        [day, task, "300", known]
        for day, conversions in (("2025-01-02", "0"), ("2025-01-03", "0"))
        for task, known in (("click", "300"), ("conversion", conversions))
    ]
    assert table[1][4:] == ["–"] * 4  # nothing is known of conversions yet: dashes, no zeros
    told = json.loads((world / "on.json").read_text())
    assert told["run"].endswith("on") and len(told["days"]) == 4 and told["days"][0]["day"] == "2025-01-02"
    assert run(world, line) == 0 and capsys.readouterr().out == out  # finished: told again
    assert run(world, "evaluate {0}/on --data {0}/data --split test") == 0


def test_the_ranker_may_be_said_and_must_be_its_own(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(world, "train dcnv2 --continue={0}/first --data {0}/data --out {0}/same") == 0
    assert run(world, "train rankmixer --continue {0}/first --data {0}/data --out {0}/other") == 2
    assert "first, dcnv2, got rankmixer" in (error := capsys.readouterr().err) and "--warm-from" in error
    assert run(world, "train --continue {0}/same --data {0}/data --out {0}/more") == 2
    assert "it has none. Append the next day first: fullrank prepare" in capsys.readouterr().err


def test_continue_has_help_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["train", "--continue", "x", "--help"])
    out = capsys.readouterr().out
    assert "--continue RUN" in out and "Each day is measured" in out.replace("\n", " ").replace("│ ", "")
    assert main(["train", "--help"]) == 0 and "--continue RUN" in capsys.readouterr().out


def test_another_ranker_begins_with_the_tables(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = "--training.batch-size 64 --ranker.embedding.width 4 --ranker.num-layers 1"
    assert run(world, f"train rankmixer --data {{0}}/data --out {{0}}/warm --warm-from {{0}}/first {options}") == 0
    out = capsys.readouterr().out
    assert "Warm start from " in out and "table user.main: " in out and " rows taken by key, " in out
    assert json.loads((world / "warm" / "warm_start.json").read_text())["tables"]["user.main"]["matched"] > 20
