"""`fullrank predict RUN rows.parquet`."""

from __future__ import annotations

import json as json_text
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import tyro

from fullrank.commands.arguments import OptionalPath, call, write_json
from fullrank.data.keys import read_hash_key
from fullrank.data.normalise import Origin
from fullrank.data.partitions import PreparedData
from fullrank.data.rows_file import read_rows
from fullrank.recipes.predict_rows import RowPredictor, answers
from fullrank.serving.tables import Storage, load_for_serving
from fullrank.training.run import Run

FORMATS = (".parquet", ".csv", ".jsonl")


def main(args: Sequence[str], prog: str) -> int:
    return call(predict, args, prog)


def predict(
    run: tyro.conf.Positional[Path],
    rows: tyro.conf.Positional[Path],
    data: OptionalPath = None,
    out: Path = Path("scores.parquet"),
    keep: tuple[str, ...] = (),
    tables: Storage = "float32",
    hash_ids: OptionalPath = None,
    json: OptionalPath = None,
) -> None:
    """The probabilities of rows in the log's own columns: a number a task for every row, in the order of the rows.

    Labels need not be there, nor any other column: what is missing, and what training never met, goes through the same
    model, and is counted and said. Rows of one request should stand together.

    Args:
        run: a run's folder.
        rows: .parquet, .csv or .tsv (also .gz).
        data: prepared data, where histories are the log's own events: what the run was trained on, or a later version.
        out: where to write: .parquet, .csv or .jsonl.
        keep: columns of the rows to write beside the answers.
        tables: how embedding tables are kept in memory: bfloat16 takes half, int8 about a third of the bytes
            (`fullrank evaluate --tables` says what that changes).
        hash_ids: the key file that the data was prepared with, if it was.
        json: where to write what was found in the rows for programs: `run`, `rows`, `absent`, `missing` and `unknown`
            (rows by input), `events` and `source` (by history), `out`.
    """
    if out.suffix not in FORMATS:
        raise ValueError(f"Expected --out to end in one of {', '.join(FORMATS)}, got {str(out)!r}.")
    opened = Run.open(run)
    predictor = RowPredictor(
        opened,
        load_for_serving(opened, tables),
        PreparedData.open(data) if data is not None else None,
        hash_key=read_hash_key(hash_ids) if hash_ids else None,
    )
    clash = [name for name in keep if name in predictor.inputs.task_names]
    if clash:
        raise ValueError(f"Expected --keep without {clash[0]!r}: the answers of that task are called so.")
    from tqdm import tqdm

    with _writer(out) as write, tqdm(unit="row", unit_scale=True, disable=None, file=sys.stderr) as bar:
        for chunk in read_rows(rows, predictor.schema, keep=keep):
            logits = predictor.logits(chunk.records, Origin(chunk.file, chunk.first_row))
            columns: dict[str, Any] = {name: chunk.records.column(name) for name in keep}
            columns |= {task: pa.array(values) for task, values in answers(logits, predictor.inputs.tasks).items()}
            write(pa.RecordBatch.from_pydict(columns))
            bar.update(chunk.records.num_rows)
        if not predictor.seen.rows:
            raise ValueError(f"Expected {rows} to have rows, got none: {out} was not written.")
    for sentence in predictor.seen.words():
        print(sentence, file=sys.stderr)
    print(f"{out}: {predictor.seen.rows:,} rows, {', '.join(predictor.inputs.task_names)}")
    write_json(json, {"run": run, **asdict(predictor.seen), "out": out})


@contextmanager
def _writer(out: Path) -> Iterator[Any]:
    """A function that writes batches of rows; the file appears, whole, when all is written."""
    out.parent.mkdir(parents=True, exist_ok=True)
    draft = out.with_name(f".{out.name}.{os.getpid()}.partial")
    sink: Any = None
    try:
        with draft.open("wb") as stream:

            def write(batch: pa.RecordBatch) -> None:
                nonlocal sink
                if out.suffix == ".jsonl":
                    _write_lines(stream, batch)
                    return
                sink = sink or _sink(stream, batch.schema, out.suffix)
                sink.write_batch(batch)

            yield write
            if sink is not None:
                sink.close()
        draft.replace(out)
    finally:
        draft.unlink(missing_ok=True)


def _sink(stream: IO[bytes], schema: pa.Schema, suffix: str) -> Any:
    if suffix == ".csv":
        import pyarrow.csv as csv

        return csv.CSVWriter(stream, schema)
    import pyarrow.parquet as pq

    return pq.ParquetWriter(stream, schema)


def _write_lines(stream: IO[bytes], batch: pa.RecordBatch) -> None:
    lines = (json_text.dumps(row, ensure_ascii=False, default=str) for row in batch.to_pylist())
    stream.write("".join(f"{line}\n" for line in lines).encode())
