"""`fullrank prepare FILES`: a new folder of prepared data, one more partition, or late labels."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import tyro

from fullrank.commands.arguments import OptionalInt, OptionalPath, call, read_schema, write_json
from fullrank.data.columns import DataError
from fullrank.data.corrections import append_labels
from fullrank.data.fetch import locate
from fullrank.data.keys import read_hash_key
from fullrank.data.prepare import PrepareReport, prepare
from fullrank.data.readers import READERS, open_public
from fullrank.data.readers.tabular import TabularSource
from fullrank.data.splits import SPLITS, AllTrain, ByHash, ByTime, GivenFiles, PerUserOrder, Split
from fullrank.schema import Feature, Roles, Schema, Task, did_you_mean

SPLIT_NAMES = ("time", "per-user", "hash:KEY", "files", "train")


def main(args: Sequence[str], prog: str) -> int:
    return call(prepare_command, args, prog)


def prepare_command(
    files: tyro.conf.Positional[tuple[Path, ...]],
    schema: OptionalPath = None,
    out: OptionalPath = None,
    append: OptionalPath = None,
    labels: bool = False,
    split: str = "",
    valid: str = "0.1",
    test: str = "0.1",
    hash_ids: OptionalPath = None,
    as_of: OptionalInt = None,
    json: OptionalPath = None,
) -> None:
    """Turn logs into prepared data.

    A new folder:  fullrank prepare logs.parquet --schema schema.toml --out data/mine

    A public set:  fullrank prepare movielens-100k --out data/ml (`fullrank data list`; it has a schema and a split)

    The next day:  fullrank prepare day2.parquet --append data/mine

    Late labels:  fullrank prepare labels.csv --append data/mine --labels

    The same input again changes nothing. Late labels are a table with the log's impression column, `label`, `time`
    (when it became known) and, where there are several tasks, `task`.

    Args:
        files: .parquet, .csv or .tsv files (also .gz), or folders of them, in the order of time; or the name of a
            public set that is on this machine.
        schema: what the columns mean; `fullrank schema infer` writes a first one.
        out: the folder to make.
        append: a folder of prepared data to add to, instead of `out`; it has its schema.
        labels: the files hold late labels of rows that are prepared already.
        split: which rows validate and test. `time`: the latest (the default where the log has a time or order) ·
            `per-user`: every user's last (for a closed log) · `hash:KEY`: a share of the keys of a role or feature,
            as `hash:user` · `files`: by file names that say train, valid or test · `train`: none.
        valid: the share of rows that validate; with `--split time` also the date or time where validation begins.
        test: likewise for the test.
        hash_ids: a file of 16 to 64 secret bytes; user, request and impression keys are stored only as hashes by it.
        as_of: the moment of the data's knowledge (µs since 1970, or a position): labels known later are masked.
        json: where to write the report for programs: `folder`, `partition`, `is_new` and counts.
    """
    if not files:
        raise DataError("Expected at least one file to prepare, got none.")
    if (out is None) == (append is None):
        raise DataError("Expected either `--out DIR` for a new folder or `--append DIR` for one that is prepared.")
    hash_key = read_hash_key(hash_ids) if hash_ids else None
    if append is not None:
        if schema is not None or split:
            raise DataError(f"Expected no --schema and no --split with --append: {append} has its own.")
        meaning = read_schema(append / "schema.toml")
        if labels:
            source = TabularSource(files, _of_labels(meaning))
            report: Any = append_labels(source, append, hash_key=hash_key, as_of=as_of)
        else:
            report = prepare(
                _source(files, meaning, _stored_split(append)),
                append,
                append=True,
                hash_key=hash_key,
                as_of=as_of,
                progress=_is_terminal(),
            )
    else:
        assert out is not None
        if labels:
            raise DataError("Expected --append DIR with --labels: late labels belong to rows that are prepared.")
        if public := _public_name(files):
            report = _prepare_public(public, schema, out, split, valid, test, hash_key, as_of)
        elif schema is None:
            if not files[0].suffix and not files[0].exists():
                near = did_you_mean(str(files[0]), [reader.NAME for reader in READERS])
                raise DataError(f"{files[0]}: no such file, and no public set (`fullrank data list`).{near}")
            raise DataError("Expected --schema FILE. `fullrank schema infer LOG --out schema.toml` writes a first one.")
        else:
            meaning = read_schema(schema)
            chosen = split_named(split, valid, test, meaning)
            source = _source(files, meaning, chosen)
            report = prepare(source, out, split=chosen, hash_key=hash_key, as_of=as_of, progress=_is_terminal())
            print(f"Split: {chosen}")
    print(report)
    write_json(json, asdict(report))


def _public_name(files: tuple[Path, ...]) -> str:
    """The public set that the one word names, "" if it is a file's."""
    name = str(files[0])
    return name if len(files) == 1 and name in {reader.NAME for reader in READERS} and not files[0].exists() else ""


def _prepare_public(
    name: str,
    schema: Path | None,
    out: Path,
    split: str,
    valid: str,
    test: str,
    hash_key: bytes | None,
    as_of: int | None,
) -> PrepareReport:
    """A public set, with the schema, split and moment of its reader where none is given."""
    if schema is not None:
        raise DataError(f"Expected no --schema with the public set {name}: its reader has its own.")
    source = open_public(name, locate(name))
    chosen = split_named(split, valid, test, source.schema) if split else source.split
    report = prepare(
        source,
        out,
        split=chosen,
        hash_key=hash_key,
        as_of=source.as_of if as_of is None else as_of,
        progress=_is_terminal(),
    )
    print(f"Split: {chosen}")
    return report


def split_named(name: str, valid: str, test: str, schema: Schema) -> Split:
    """The split of a command line; "" is the latest rows, or a share of the users where nothing orders the log."""
    if not name:
        ordered = bool(schema.roles.time or schema.roles.order)
        if not ordered and not schema.roles.user:
            raise DataError(
                f"Expected --split {'|'.join(SPLIT_NAMES)}: the log has neither a time nor a user to go by."
            )
        name = "time" if ordered else "hash:user"
    if name == "time":
        return ByTime(valid=_share_or_moment(valid), test=_share_or_moment(test))
    if name == "per-user":
        return PerUserOrder(valid=_share(valid), test=_share(test))
    if name.startswith("hash:"):
        return ByHash(key=name.removeprefix("hash:"), valid=_share(valid), test=_share(test))
    if name == "files":
        return GivenFiles()
    if name == "train":
        return AllTrain()
    near = did_you_mean(name, SPLIT_NAMES)
    raise DataError(f"Expected --split {'|'.join(SPLIT_NAMES)}, got {name!r}.{near}")


def _share(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise DataError(f"Expected a share such as 0.1, got {text!r}: moments go with --split time.") from None


def _share_or_moment(text: str) -> float | int | str:
    if re.fullmatch(r"-?[0-9]+", text) and len(text) > 1:
        return int(text)
    return float(text) if re.fullmatch(r"[0-9]*\.?[0-9]+", text) else text


def _source(files: tuple[Path, ...], schema: Schema, split: Split | None) -> TabularSource:
    return TabularSource(files, schema, [_split_of(file) for file in files] if isinstance(split, GivenFiles) else None)


def _split_of(file: Path) -> str:
    """The split that a file's name says."""
    said = [split for split in SPLITS if re.search(rf"(?<![a-z]){split}", file.name.lower())]
    if len(said) != 1:
        raise DataError(f"{file}: expected a name with one of {', '.join(SPLITS)} in it (--split files), got {said}.")
    return said[0]


def _stored_split(folder: Path) -> Split:
    from fullrank.data import splits
    from fullrank.data.manifest import Manifest

    return splits.from_json(Manifest.load(folder).split)


def _of_labels(schema: Schema) -> Schema:
    """How a table of late labels is read: every column as text, so that `normalise` judges it."""
    if not schema.roles.impression:
        raise DataError("Late labels are joined by impression: prepare with a schema that has the role impression.")
    time = {"order": "time"} if schema.time_unit == "position" else {"time": "time"}
    several = len(schema.tasks) > 1
    return Schema(
        name="late labels",
        roles=Roles(impression=schema.roles.impression, **time),
        time_unit=schema.time_unit,
        features=(Feature(name="task", kind="categorical"),) if several else (),
        tasks=(Task(name="label"),),
    )


def _is_terminal() -> bool:
    return sys.stderr.isatty()
