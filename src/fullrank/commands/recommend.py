"""`fullrank recommend RUN --data DIR --user KEY`."""

from __future__ import annotations

import json as json_text
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import tyro

from fullrank.commands.arguments import OptionalPath, call, table, write_json, write_text
from fullrank.data.columns import DataError
from fullrank.data.keys import read_hash_key
from fullrank.data.partitions import PreparedData
from fullrank.data.rows_file import read_rows
from fullrank.recipes.context import context_columns, parse_context
from fullrank.recipes.recommend import Recommendations, Recommender
from fullrank.serving.tables import Storage, load_for_serving
from fullrank.training.run import Run

ANSWER_FILES = (".jsonl", ".parquet")


def main(args: Sequence[str], prog: str) -> int:
    return call(recommend, args, prog)


def recommend(
    run: tyro.conf.Positional[Path],
    data: Path,
    user: tuple[str, ...] = (),
    users: OptionalPath = None,
    k: int = 10,
    context: tuple[str, ...] = (),
    include_seen: bool = False,
    tables: Storage = "float32",
    hash_ids: OptionalPath = None,
    out: OptionalPath = None,
    json: OptionalPath = None,
) -> None:
    """The best items for users, of those not in their history; also for a user never seen.

    Users and items the run never met go through the same model. Where nothing at all is known of a request, items come
    by popularity, and the answer says so.

    Args:
        run: a run's folder.
        data: prepared data: what the run was trained on, or a later version of it.
        user: the keys of users, as the log holds them.
        users: a file of users instead: .txt with a key a line, or .parquet, .csv or .tsv with the log's own columns,
            one request a row (the user's, and any that tell of user and context). Answers go to --out, or as JSON lines
            to standard output.
        k: how many items.
        context: COLUMN=VALUE, as often as needed: what is so in this request (`device=phone`, `tags=a|b`).
        include_seen: also items of the user's history, which are left out otherwise.
        tables: how embedding tables are kept in memory: bfloat16 takes half, int8 about a third of the bytes
            (`fullrank evaluate --tables` says what that changes).
        hash_ids: the key file that the data was prepared with, if it was.
        out: a folder to write the table to, as recommendations.txt; or a file: .jsonl has a line a user, .parquet a row
            a user and item.
        json: where to write them for programs: `user`, `method` (`model`, or `popularity` where nothing is known),
            `known`, `events`, `inputs`, `unknown`, and `items`, each with `key`, `text` and `probability` by task. Of
            several users: `users`, a list of these.
    """
    if bool(user) == (users is not None):
        raise DataError("Expected either --user KEY or --users FILE.")
    opened, told = Run.open(run), parse_context(context)
    recommender = Recommender(
        opened,
        load_for_serving(opened, tables),
        PreparedData.open(data),
        hash_key=read_hash_key(hash_ids) if hash_ids else None,
    )
    schema = recommender.asker.schema
    if users is None or users.suffix == ".txt":
        keys = list(user) if users is None else _lines(users)
        if not schema.roles.user:
            raise DataError("The log has no role `user`: there is nobody to name. Tell of the request with --users.")
        records = pa.RecordBatch.from_pydict({schema.roles.user: pa.array(keys, pa.string())})
    else:
        (records,) = pa.Table.from_batches([c.records for c in read_rows(users, schema)]).combine_chunks().to_batches()
    for name, column in context_columns(schema, opened.schema, told, records.num_rows).items():
        there = records.schema.get_field_index(name)
        records = records.append_column(name, column) if there < 0 else records.set_column(there, name, column)
    answers = recommender.recommend(records, k=k, include_seen=include_seen)
    tasks = opened.record.inputs.task_names
    if users is not None:
        _write_many(_shown(answers, records.num_rows), tasks, out)
        return
    found = list(answers)
    text = "\n\n".join(_text(one, tasks) for one in found)
    print(text)
    if out is not None and out.suffix in ANSWER_FILES:
        _write_many(found, tasks, out)
    else:
        write_text(out, "recommendations.txt", text)
    write_json(json, asdict(found[0]) if len(found) == 1 else {"users": [asdict(one) for one in found]})


def _text(found: Recommendations, tasks: tuple[str, ...]) -> str:
    rows = [[item.key, *(item.probability.get(task) for task in tasks), item.text] for item in found.items]
    return f"User {found.user} ({found.words()})\n{table(['item', *tasks, 'text'], rows)}"


def _lines(file: Path) -> list[str]:
    keys = [line.strip() for line in file.read_text(encoding="utf-8").splitlines()]
    if not any(keys):
        raise DataError(f"{file}: expected a user's key a line, got none.")
    return [key for key in keys if key]


def _shown(answers: Iterator[Recommendations], total: int) -> Iterator[Recommendations]:
    from tqdm import tqdm

    yield from tqdm(answers, total=total, desc="recommend", unit="user", disable=None, file=sys.stderr)


def _write_many(answers: Iterable[Recommendations], tasks: tuple[str, ...], out: Path | None) -> None:
    """Answers as they come: a line each, or rows of a Parquet file."""
    if out is None:
        for one in answers:
            print(json_text.dumps(asdict(one), ensure_ascii=False))
        return
    if out.suffix not in ANSWER_FILES:
        raise DataError(f"Expected --out to end in {' or '.join(ANSWER_FILES)} for a file of users, got {str(out)!r}.")
    out.parent.mkdir(parents=True, exist_ok=True)
    count = 0
    if out.suffix == ".jsonl":
        with out.open("w", encoding="utf-8") as stream:
            for count, one in enumerate(answers, start=1):  # noqa: B007  # counted for the last line
                stream.write(json_text.dumps(asdict(one), ensure_ascii=False) + "\n")
    else:
        import pyarrow.parquet as pq

        kinds = [("user", pa.string()), ("rank", pa.int32()), ("item", pa.string()), ("text", pa.string())]
        kinds += [(f"answer.{task}", pa.float32()) for task in tasks] + [("method", pa.string())]
        with pq.ParquetWriter(out, schema := pa.schema(kinds)) as writer:
            for count, one in enumerate(answers, start=1):  # noqa: B007
                writer.write_batch(pa.RecordBatch.from_pylist(_rows(one, tasks), schema=schema))
    print(f"{out}: {count:,} users")


def _rows(one: Recommendations, tasks: tuple[str, ...]) -> list[dict[str, Any]]:
    return [
        {"user": one.user, "rank": rank, "item": item.key, "text": item.text, "method": one.method}
        | {f"answer.{task}": item.probability.get(task) for task in tasks}
        for rank, item in enumerate(one.items, start=1)
    ]
