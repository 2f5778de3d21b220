"""`fullrank explain RUN --data DIR --user KEY`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import tyro

from fullrank.commands.arguments import OptionalPath, call, table, write_json
from fullrank.data.keys import read_hash_key
from fullrank.data.partitions import PreparedData
from fullrank.recipes.context import parse_context
from fullrank.recipes.explain import explain as explain_answer
from fullrank.recipes.explain import plot_explanation
from fullrank.recipes.train import load_ranker
from fullrank.training.run import Run

FIGURES = (".png", ".svg", ".pdf")
OptionalText = Annotated[str | None, tyro.conf.arg(metavar="TEXT")]


def main(args: Sequence[str], prog: str) -> int:
    return call(explain, args, prog)


def explain(
    run: tyro.conf.Positional[Path],
    data: Path,
    user: str,
    item: OptionalText = None,
    task: OptionalText = None,
    context: tuple[str, ...] = (),
    most: int = 20,
    hash_ids: OptionalPath = None,
    out: OptionalPath = None,
    json: OptionalPath = None,
) -> None:
    """How a run's answer for a user and an item changes when something is hidden from it.

    Hidden, one at a time: every input, every key space that several inputs share, every history, every event of it.
    This is occlusion: it says what the answer rests on, not what causes what, and the lines do not add up.

    Args:
        run: a run's folder.
        data: prepared data: what the run was trained on, or a later version of it.
        user: the user's key, as the log holds it.
        item: the item's key; the best one for the user if not given.
        task: whose answer; the run's first task if not given.
        context: COLUMN=VALUE, as often as needed: what is so in this request.
        most: how many lines to print.
        hash_ids: the key file that the data was prepared with, if it was.
        out: where to draw the changes: .png, .svg or .pdf.
        json: where to write all of them for programs: `user`, `item`, `task`, `kind`, `logit`, `answer`, `effects`
            (each with `hidden`, `what`, `logit_change`, `answer_change`), `note`.
    """
    if out is not None and out.suffix not in FIGURES:
        raise ValueError(f"Expected --out to end in one of {', '.join(FIGURES)}, got {str(out)!r}.")
    opened = Run.open(run)
    found = explain_answer(
        opened,
        load_ranker(opened),
        PreparedData.open(data),
        user,
        item,
        task=task,
        context=parse_context(context),
        hash_key=read_hash_key(hash_ids) if hash_ids else None,
    )
    rows = [[effect.hidden, effect.what, effect.logit_change, effect.answer_change] for effect in found.effects[:most]]
    print(f"User {found.user}, item {found.item}: {found.task} {found.answer:.4f} (logit {found.logit:.4f})")
    print(table(["hidden", "what", "logit", "answer"], rows, words=2))
    if len(found.effects) > most:
        print(f"and {len(found.effects) - most} smaller changes")
    print(found.note)
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        figure = plot_explanation(found, most=most).get_figure(root=True)
        assert figure is not None
        figure.savefig(out)
    write_json(json, asdict(found))
