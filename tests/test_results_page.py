"""The page of results says what the stored runs say, and every result names its threshold and has runs."""

from __future__ import annotations

import json
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))

import render  # noqa: E402


def test_the_page_is_that_of_the_stored_runs() -> None:
    assert render.PAGE.read_text(encoding="utf-8") == render.rendered(), "run: python benchmarks/render.py"


def test_every_result_can_be_judged() -> None:
    for path in (ROOT / "benchmarks" / "results").glob("*.json"):
        stored = json.loads(path.read_text(encoding="utf-8"))
        assert stored["label"] == path.stem and stored["threshold"] and stored["runs"], path
        assert set(stored["environment"]) >= {"cpu", "threads", "python", "torch"}, path
