"""`fullrank recommend RUN --data DIR --user KEY`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import tyro

from fullrank.commands.arguments import OptionalPath, call, table, write_json, write_text
from fullrank.data.keys import read_hash_key
from fullrank.data.partitions import PreparedData
from fullrank.recipes.recommend import recommend as recommend_items
from fullrank.recipes.train import load_ranker
from fullrank.training.run import Run


def main(args: Sequence[str], prog: str) -> int:
    return call(recommend, args, prog)


def recommend(
    run: tyro.conf.Positional[Path],
    data: Path,
    user: str,
    k: int = 10,
    hash_ids: OptionalPath = None,
    out: OptionalPath = None,
    json: OptionalPath = None,
) -> None:
    """The best items for a user, of those not in the user's history; also for a user never seen.

    Args:
        run: a run's folder.
        data: prepared data: what the run was trained on, or a later version of it.
        user: the user's key, as the log holds it.
        k: how many items.
        hash_ids: the key file that the data was prepared with, if it was.
        out: a folder to write the table to, as recommendations.txt.
        json: where to write them for programs: `user`, `known`, `events`, and `items`, each with `key`, `text` and
            `probability` by task.
    """
    opened = Run.open(run)
    found = recommend_items(
        opened,
        load_ranker(opened),
        PreparedData.open(data),
        user,
        k=k,
        hash_key=read_hash_key(hash_ids) if hash_ids else None,
    )
    tasks = opened.record.inputs.task_names
    rows = [[item.key, *(item.probability[task] for task in tasks), item.text] for item in found.items]
    text = table(["item", *tasks, "text"], rows)
    seen = f"{found.events} past events read" if found.known else "never seen: unknown rows and no history"
    print(f"User {user} ({seen})\n{text}")
    write_text(out, "recommendations.txt", text)
    write_json(json, {"user": user, **asdict(found)})
