"""`fullrank demo`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fullrank.commands.arguments import OptionalPath, call, table, write_json, write_text
from fullrank.recipes.demo import DemoConfig, run_demo
from fullrank.recipes.demo_page import HEADER, as_json, next_commands, table_cells, write_page

_DEFAULT = DemoConfig()


def main(args: Sequence[str], prog: str) -> int:
    return call(demo, args, prog)


def demo(
    quick: bool = False,
    data: str = _DEFAULT.data,
    out: Path = _DEFAULT.out,
    seed: int = _DEFAULT.seed,
    json: OptionalPath = None,
) -> None:
    """Prepare real ratings, train two rankers beside popularity, compare them, and recommend.

    The set is obtained once (its terms are its makers'); a second run needs no network and takes up what is there.
    Where no real data can be had, a simulated log takes its place, and the first line and the JSON say so.

    Args:
        quick: fewer passes over the data: a minute instead of a few.
        data: `movielens-100k`, another public set (`fullrank data list`), `simulated`, or the path of a log.
        out: the folder for prepared data, runs, the table (metrics.txt) and the page (index.html).
        seed: of first weights and the order of rows.
        json: where to write the results for programs (keys: docs/cli.md).
    """
    result = run_demo(DemoConfig(data=data, out=out, quick=quick, seed=seed))
    text = table(HEADER, table_cells(result), words=3)
    print(f"\n{text}\n")
    for item in result.recommendations.items:
        chances = ", ".join(f"{task} {chance:.1%}" for task, chance in item.probability.items())
        print(f"For user {result.user}: {item.text or item.key} ({chances})")
    page = write_page(result, out / "index.html")
    write_text(out, "metrics.txt", text)
    write_json(json, as_json(result, page))
    print(f"\nPage: {page}   ({result.seconds:.0f} s)\nNext:")
    for command in next_commands(result):
        print(f"  {command}")
