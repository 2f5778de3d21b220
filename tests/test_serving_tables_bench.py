"""The benchmark of compact tables: its lines are there, and what it compares with is what it says."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import serving_tables


def test_look_ups_have_a_line_a_storage(capsys: pytest.CaptureFixture[str]) -> None:
    serving_tables.look_ups(500, 16, seconds=0.05)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["table_bytes"] for line in lines] == [500 * 64, 500 * 32, 500 * 20]
    assert [line["label"].split(", ")[2] for line in lines] == ["float32", "bfloat16", "int8"]
    for line in lines:
        assert line["least"] <= line["ours"] <= line["most"] and line["theirs"] == lines[0]["ours"]
        assert line["ok"] == (line["ratio"] <= line["threshold"])


def test_an_offset_is_within_half_a_step_of_the_rows_range() -> None:
    table_RD = torch.rand(50, 10, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 3
    table_RD[0] = 0
    found_RD = serving_tables.with_offset(table_RD)
    step_R1 = (table_RD.amax(1, keepdim=True) - table_RD.amin(1, keepdim=True)) / 255
    assert ((found_RD - table_RD).abs() <= step_R1 / 2 + 1e-12).all() and not found_RD[0].any()
    assert len(found_RD[1].sub(table_RD[1]).unique()) > 2  # it is rounded
