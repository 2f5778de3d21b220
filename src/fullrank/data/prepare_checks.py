"""Whether an input belongs into a folder, and which split it gets: everything that can be refused before reading."""

from __future__ import annotations

import difflib
import hashlib
from pathlib import Path

from fullrank.data import splits
from fullrank.data.columns import DataError
from fullrank.data.id_segments import digest
from fullrank.data.manifest import Manifest
from fullrank.data.splits import AllTrain, ByHash, ByTime, GivenFiles, PerUserOrder, Split
from fullrank.schema import Schema


def check_hash_key(manifest: Manifest, hash_key: bytes | None) -> None:
    """Raise unless the keys were hashed (or not) the same way."""
    if manifest.key_check == key_check(hash_key):
        return
    if not manifest.key_check:
        raise DataError(
            "Expected no hash key: the keys of this data are not hashed. Leave it out, or prepare anew."
        )
    got = "none: its keys are hashed" if hash_key is None else "another: no key would be found again"
    raise DataError(f"Expected the hash key that this data was prepared with, got {got}.")


def key_check(hash_key: bytes | None) -> str:
    """What tells one hash key from another and none, and does not give it away."""
    if hash_key is None:
        return ""
    return hashlib.blake2b(b"fullrank key check", key=hash_key, digest_size=16).hexdigest()


def check_schema(folder: Path, manifest: Manifest, toml: str) -> None:
    """Raise where the schema is not the stored one; the message holds the difference."""
    if manifest.schema_hash == digest(toml):
        return
    stored = (folder / "schema.toml").read_text(encoding="utf-8")
    lines = list(difflib.unified_diff(stored.splitlines(), toml.splitlines(), n=0, lineterm=""))
    changed = "; ".join(line for line in lines[2:] if not line.startswith("@@"))
    raise DataError(
        f"Expected the schema that {folder} was prepared with, got another (- there, + here): {changed}. "
        "Use its schema.toml, or prepare into another folder."
    )


def partition_with(
    folder: Path,
    manifest: Manifest | None,
    contents: str,
    asked: Split | None,
    as_of: int | None,
    append: bool,
) -> str:
    """The partition that holds this input already, or "" if it is to be prepared. Raises where it must not be."""
    if manifest is None:
        if append:
            raise DataError(f"Expected prepared data in {folder} to append to, found none: prepare it first.")
        return ""
    first = manifest.partitions[0]
    if append:
        return next((entry.name for entry in manifest.partitions if entry.source == contents), "")
    same = asked is None or splits.to_json(asked) == manifest.split
    if first.source == contents and same and as_of in (None, manifest.as_of):
        return first.name
    what = "another input" if first.source != contents else "the same input with other options"
    raise DataError(
        f"{folder} holds prepared data, and this is {what}. To add it as one more partition, append; to start anew, "
        "choose another folder."
    )


def chosen_split(schema: Schema, manifest: Manifest | None, asked: Split | None) -> Split:
    """The split of this input. An append repeats `GivenFiles` and `ByHash` of the first, and otherwise trains."""
    if manifest is None:
        if asked is None:
            raise DataError(
                "Expected a split, got none: GivenFiles, ByTime, PerUserOrder, ByHash or AllTrain."
            )
        return _checked(schema, asked)
    first = splits.from_json(manifest.split)
    if isinstance(first, PerUserOrder) or isinstance(asked, PerUserOrder):
        raise DataError(
            "Expected a log that can grow, got a split by each user's order, which is for a closed log: an append "
            "would move the cuts of every user. Prepare the whole log anew, or split by time or by hash."
        )
    return _checked(schema, asked or (first if isinstance(first, (GivenFiles, ByHash)) else AllTrain()))


def _checked(schema: Schema, split: Split) -> Split:
    """The split, if the schema has what it goes by."""
    if isinstance(split, ByTime) and not (schema.roles.time or schema.roles.order):
        raise DataError(
            "Expected a time or an order in the log to split by time, and the schema names neither."
        )
    if isinstance(split, PerUserOrder) and not schema.roles.user:
        raise DataError(
            "Expected the role user to split by each user's order, and the schema does not name it."
        )
    if isinstance(split, ByHash):
        split.column(schema)
    return split
