"""The comparison of backbones: a run has all its line needs, claims are judged as they say, the page is current."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "benchmarks"), str(ROOT / "benchmarks" / "backbones")]

import beside  # noqa: E402
import claims  # noqa: E402
import grid  # noqa: E402
import oscillation  # noqa: E402
import page  # noqa: E402
import published  # noqa: E402
import smoke  # noqa: E402
from cells import cells  # noqa: E402
from stored import Lines  # noqa: E402
from worlds import SMALL  # noqa: E402

import recipes  # noqa: E402
from fullrank.data.inputs import Field, Inputs, TaskInput  # noqa: E402
from fullrank.rankers.field_front import EmbeddingConfig  # noqa: E402


@pytest.mark.filterwarnings("ignore::UserWarning")  # of torch's counter of FLOPs
@pytest.mark.parametrize("name", ["dcnv2", "tokenformer"])
def test_a_cell_becomes_a_line(name: str, tmp_path: Path) -> None:
    config = replace(recipes.SUITES["small"].core()[name], embedding=EmbeddingConfig(width=4))
    cell = grid.Cell(figure="small", recipe=name, config=config, world=SMALL, seed=0)
    line = json.loads(json.dumps(grid.run(cell, SMALL.data(tmp_path, tmp_path), tmp_path, "commit")))
    assert (line["data"], line["digest"], line["seed"]) == cell.key and line["recipe"] == name
    assert 0.4 < line["click.auc"] < line["oracle_auc"] < 1 and line["gap"] < 1
    assert line["dense_parameters"] > 1000 and line["mflop_a_row"] > 0 and line["rows_a_second"] > 0
    for effect in ("additive", "fm", "three_way", "gated", "sequence"):
        assert abs(line[f"slope {effect}"]) < 1.5 and -0.2 < line[f"lost {effect}"] <= 1
    points = line["ranks"]
    assert all(0 < mean <= most for forms in points.values() for mean, most in forms.values())
    assert ("events.1" in points) == (name == "tokenformer")
    assert not any((tmp_path / "runs").iterdir())


def stored(tmp_path: Path, auc: dict[tuple[str, str, str], list[float]]) -> Lines:
    """Lines of the cells with these AUCs, by (recipe, figure, data)."""
    path = tmp_path / "lines.jsonl"
    lines = [
        {
            "recipe": cell.recipe,
            "data": cell.world.name,
            "digest": cell.digest,
            "seed": cell.seed,
            "liked.auc": auc[name][cell.seed],
            "liked.log_loss": 0.5,
            "dense_parameters": 9000,
            "mflop_a_row": 1.5,
            "rows_a_second": 100,
            "ranks": {"layers.0.ffn": {"sample": [3.0, 4]}},
            "cpu_seconds": 36,
        }
        for cell in cells()
        if (name := (cell.recipe, cell.figure, cell.world.name)) in auc and cell.seed < len(auc[name])
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return Lines(path)


def judged(lines: Lines) -> dict[tuple[str, str], str]:
    every = [*claims.of_auc(lines), *claims.of_permutations(lines), *claims.of_histories(lines)]
    assert {line["label"] for line in every} == {"R10", "E8", "T10", "NLIR", "U8", "T11"}
    return {(line["label"], line["claim"]): line["verdict"] for line in every if line["data"] != "simulated"}


def test_claims_are_shown_not_shown_or_against(tmp_path: Path) -> None:
    whole, quarter = "movielens-1m", "movielens-1m/4"
    found = judged(
        stored(
            tmp_path,
            {
                ("permute, glu", "ffn", whole): [0.80, 0.81, 0.805],
                ("none, glu", "mixing", whole): [0.79, 0.80, 0.794],
                ("permute, gelu", "ffn", whole): [0.80, 0.79, 0.80],
                ("none, gelu", "mixing", whole): [0.79, 0.80, 0.80],
                ("permute, relu", "ffn", whole): [0.85, 0.841, 0.85],
                ("4 full", "streams", quarter): [0.80, 0.80, 0.80],
                ("2 full, 2 windows", "streams", quarter): [0.80, 0.81, 0.79],
                ("4 windows", "streams", quarter): [0.70],
            },
        )
    )
    blocks = "networks (RankElastor's blocks)"
    assert found["R10", f"RankMixer's mixing above none, glu {blocks}"] == "shown"
    assert found["R10", f"RankMixer's mixing above none, gelu {blocks}"] == "not shown"
    assert found["E8", "gelu above relu, permute mixing"] == "against"
    assert found["E8", "gelu above relu, full mixing"] == "not run"
    assert found["T10", "2 full layers and 2 windows not below 4 full"] == "no worse within the noise"
    assert found["T10", "full layers above windows alone, which no field reaches"] == "not run"  # one seed says nothing


def test_a_gain_within_the_spread_of_permutations_is_not_shown(tmp_path: Path) -> None:
    data = "movielens-1m"

    def of(spread: float) -> str:
        auc = {(f"permuted {n + 2}", "tokens", data): [0.80 + spread * n, 0.801 + spread * n] for n in range(-2, 3)}
        lines = stored(tmp_path, {**auc, ("chunk", "tokens", data): [0.79, 0.791]})
        return judged(lines)["U8", "RankMixer: fields by lot above chunk, by more than permutations differ"]

    assert of(0.0001) == "shown" and of(0.02) == "not shown"


def test_the_page_says_what_was_run_and_what_was_not(tmp_path: Path) -> None:
    data = "movielens-1m/4"
    lines = stored(tmp_path, {("dcnv2", "core", data): [0.8, 0.81], ("din", "core", data): [0.82] * 5})
    text = page.rendered(lines)
    assert "| dcnv2 | 2 of 5 | 9,000 | 1.5 | 0.8050 ± 0.0071 | 0.5000 ± 0.0000 | 100 | 0.75 |" in text
    assert "din +0.0150" in text and "7 runs, 0.1 hours" in text and "| rankmixer | 0 of 5 |" in text


def test_a_line_of_a_recipe_as_it_was_once_is_left_out(tmp_path: Path) -> None:
    data = "movielens-1m/4"
    path = stored(tmp_path, {("dcnv2", "core", data): [0.8, 0.81]}).of(data, "dcnv2", "core")
    assert len(path) == 2
    (tmp_path / "lines.jsonl").write_text(json.dumps(path[0] | {"digest": "another"}) + "\n")
    assert not Lines(tmp_path / "lines.jsonl").of(data, "dcnv2", "core")


def test_a_run_of_two_figures_is_one() -> None:
    every = list(cells())
    assert len({cell.key for cell in every}) < len(every) < 450
    assert {cell.figure for cell in every} == set(page.FIGURES)


def test_the_page_is_that_of_the_stored_lines() -> None:
    assert page.PAGE.read_text(encoding="utf-8") == page.rendered(), "run: python benchmarks/backbones/page.py"


@pytest.mark.parametrize("system", beside.SYSTEMS)
def test_the_pages_of_systems_have_the_stored_figures(system: str) -> None:
    text = (page.SYSTEMS / f"{system}.md").read_text(encoding="utf-8")
    assert text == page.with_figures(text, system), "run: python benchmarks/backbones/page.py"


def test_a_table_of_a_system_has_differences_of_what_was_run(tmp_path: Path) -> None:
    data = "movielens-1m"
    auc = {("full, glu", "ffn", data): [0.81, 0.82], ("permute, gelu", "ffn", data): [0.80, 0.811]}
    first, second, *_ = beside.rows(stored(tmp_path, auc), "rankelastor")
    assert first["MovieLens-1M"].startswith("+0.0095 [") and first["MovieLens-1M"].endswith("better, 2 seeds")
    assert second["MovieLens-1M"] == first["simulated"] == "not run"


def test_e7_configurations_have_the_published_sizes() -> None:
    for name, fields, expected in (("criteo", 39, 1_484_093), ("avazu", 24, 1_870_209)):
        names = [f"c{at}" for at in range(fields)]
        categorical = tuple(Field(name=one, kind="categorical", key_space=one) for one in names)
        inputs = Inputs(request=(), candidate=categorical, histories=(), tasks=(TaskInput(name="click"),))
        ranker = published.E7[name].ranker.build(inputs, dict.fromkeys(names, 3), 0)
        assert sum(parameter.numel() for parameter in ranker.dense_parameters()) == expected


@pytest.mark.skipif("FULLRANK_DATA" not in os.environ, reason="FULLRANK_DATA names no folder of public data")
def test_the_smoke_has_a_line_a_recipe(tmp_path: Path) -> None:
    line = next(smoke.lines("criteo", tmp_path))
    assert (line["set"], line["recipe"], line["task"]) == ("criteo", recipes.OF_FIELDS[0], "click")
    assert 0 < line["auc"] < 1 and line["log_loss"] < 2 and line["test_rows"] > 100


def test_an_oscillation_is_told_from_a_fall() -> None:
    def line(of_layers: list[tuple[float, float]]) -> dict[str, object]:
        points = {"tokens": 2.0} | {
            f"layers.{n}.{name}": rank
            for n, both in enumerate(of_layers)
            for name, rank in zip(("mix", "ffn"), both, strict=True)
        }
        return {"ranks": {"pooled": {"flat": [1.0, 4]}} | {name: {"token": [rank, 4]} for name, rank in points.items()}}

    damped = oscillation.of_run(line([(4, 2), (3.6, 2), (3.2, 2), (2.8, 2)]), "token")
    assert list(damped.values()) == pytest.approx([4, 4, 40, 25, 0.5, 0.5])
    assert list(damped) == [
        "mixing raises, of 4",
        "network lowers, of 4",
        "swing, layers 2–2",
        "swing, 3–4",
        "rank, layers 2–3",
        "rank, last",
    ]
    fall = oscillation.of_run(line([(1.8, 1.6), (1.5, 1.4), (1.2, 1.2), (1.1, 1.0)]), "token")
    assert fall["mixing raises, of 4"] == 0 and fall["network lowers, of 4"] == 3
    assert fall["swing, 3–4"] == pytest.approx(-100 * (0.2 + 0.1 - 0.1) / 4 / 4)
