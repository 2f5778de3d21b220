"""What an id map is made of, and its files: immutable, named by their content, verified when read.

    000-1f2e….arrow          segment 0: code, key, count of the keys it admitted, in order of their ids
    000-9a8b….state.arrow    what the next append needs to know: counts of keys not admitted, last-seen times, evictions

The name holds the version and the hash, so a file left behind by an append that never finished is in nobody's way, and
two lineages can lie in one folder. A file is written under another name, flushed to disk and renamed.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import pyarrow as pa

from fullrank.data.columns import Ragged, from_arrow, to_arrow
from fullrank.schema import KeySpace

_NAME_DIGITS = 16  # of the hash's 32, in a file name
_SEGMENT_SCHEMA = pa.schema({"code": pa.uint64(), "key": pa.large_string(), "count": pa.int64()})
_STATE_SCHEMA = pa.schema(
    {
        "pending_codes": pa.large_list(pa.uint64()),
        "pending_counts": pa.large_list(pa.int64()),
        "pending_last_seen": pa.large_list(pa.int64()),
        "last_seen": pa.large_list(pa.int64()),
        "evicted": pa.large_list(pa.int64()),
    }
)


class IdMapError(ValueError):
    """Ids that cannot be what is asked for: a damaged file, another key space, a run of another lineage."""


def digest(*parts: str | np.ndarray | pa.Array) -> str:
    """blake2b-16 of the parts, each after its length; hexadecimal."""
    hasher = hashlib.blake2b(digest_size=16)
    for part in parts:
        if isinstance(part, str):
            chunks = [part.encode()]
        elif isinstance(part, np.ndarray):
            chunks = [np.ascontiguousarray(part).astype(part.dtype.newbyteorder("<"), copy=False).data]
        else:
            chunks = list(_text_buffers(part))
        for chunk in chunks:
            hasher.update(len(chunk).to_bytes(8, "little"))
            hasher.update(chunk)
    return hasher.hexdigest()


def space_meaning(space: KeySpace) -> str:
    """What of a key space gives ids their meaning; `min_count` and `ttl` only say which keys get one."""
    return json.dumps({"unknown_rows": space.unknown_rows, "buckets": space.buckets, "hashes": space.hashes})


@dataclass(frozen=True, eq=False)
class Segment:
    """The keys one append admitted, in order of their ids. `codes` uint64 (0: forgotten), `texts` large_string (null:
    forgotten), `counts` int64 when admitted. `parent`: the hash of the segment before, or of the key space."""

    codes: np.ndarray
    texts: pa.Array
    counts: np.ndarray
    parent: str
    hash: str

    @staticmethod
    def of(codes: np.ndarray, texts: pa.Array, counts: np.ndarray, parent: str) -> Segment:
        return Segment(codes, texts, counts, parent, digest(parent, codes, texts, counts))


@dataclass(frozen=True, eq=False)
class State:
    """What an append needs beside the segments. `pending_*`: keys seen and not admitted, ascending by code.
    `last_seen`: int64 µs, one a slot (empty without a ttl). `evicted`: int64 slots, ascending."""

    pending_codes: np.ndarray
    pending_counts: np.ndarray
    pending_last_seen: np.ndarray
    last_seen: np.ndarray
    evicted: np.ndarray

    @staticmethod
    def empty() -> State:
        none = np.empty(0, dtype=np.int64)
        return State(none.view(np.uint64), none, none, none, none)

    def columns(self) -> dict[str, np.ndarray]:
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def hash(self, parent: str) -> str:
        """The hash of an id map whose last segment is `parent` and whose state is this."""
        return digest(parent, *self.columns().values())


def save_segment(folder: Path, version: int, segment: Segment, space: KeySpace) -> Path:
    columns = {"code": segment.codes, "key": segment.texts, "count": segment.counts}
    notes = {"parent": segment.parent, "hash": segment.hash, "space": space_meaning(space)}
    path = folder / f"{version:03d}-{segment.hash[:_NAME_DIGITS]}.arrow"
    return _write(path, pa.RecordBatch.from_pydict(columns), notes)


def save_state(folder: Path, version: int, state: State, parent: str) -> Path:
    """One row of list columns: they have different lengths."""
    columns = {name: Ragged(values, np.array([0, len(values)])) for name, values in state.columns().items()}
    hash = state.hash(parent)
    path = folder / f"{version:03d}-{hash[:_NAME_DIGITS]}.state.arrow"
    return _write(path, to_arrow(dict(columns)), {"parent": parent, "hash": hash})


def find_state(folder: Path, version: int | None, hash: str) -> Path:
    """The state file of that version and hash; the newest version if None, any hash if empty."""
    files = sorted(folder.glob("*.state.arrow"))
    versions = sorted({int(path.name.split("-")[0]) for path in files})
    wanted = [path for path in files if not hash or path.name.endswith(f"-{hash[:_NAME_DIGITS]}.state.arrow")]
    if version is not None:
        wanted = [path for path in wanted if int(path.name.split("-")[0]) == version]
    elif wanted and not hash:
        wanted = [path for path in wanted if int(path.name.split("-")[0]) == versions[-1]]
    if len(wanted) == 1:
        return wanted[0]
    asked = " ".join([*([f"version {version}"] if version is not None else []), *([f"hash {hash}"] if hash else [])])
    if not wanted:
        raise IdMapError(f"Expected an id map{' of ' + asked if asked else ''} in {folder}, found versions {versions}.")
    raise IdMapError(
        f"Expected one id map{' of ' + asked if asked else ''} in {folder}, found {[path.name for path in wanted]}. "
        "Give the hash that the manifest names."
    )


def load_state(path: Path) -> tuple[State, str, str]:
    """The state, the hash of its segment and its own."""
    batch, notes = _read(path, _STATE_SCHEMA, ("parent", "hash"))
    state = State(**{name: column.values for name, column in from_arrow(batch).items() if isinstance(column, Ragged)})
    if state.hash(notes["parent"]) != notes["hash"]:
        raise _damaged(path, "its content does not have the hash it names")
    return state, notes["parent"], notes["hash"]


def load_segments(folder: Path, version: int, hash: str, space: KeySpace) -> list[Segment]:
    """Segments 0 to `version`, where `hash` is the last one's."""
    segments = []
    for number in range(version, -1, -1):
        path = folder / f"{number:03d}-{hash[:_NAME_DIGITS]}.arrow"
        batch, notes = _read(path, _SEGMENT_SCHEMA, ("parent", "space"))
        codes, texts, counts = (batch.column(name) for name in _SEGMENT_SCHEMA.names)
        segment = Segment.of(codes.to_numpy(), texts, counts.to_numpy(), notes["parent"])
        if segment.hash != hash:
            raise _damaged(path, "its content does not have the hash that its name and its successors say")
        meaning = notes["space"]
        if meaning != space_meaning(space):
            raise IdMapError(
                f"Expected ids of key space {space.name!r} with {space_meaning(space)} in {path}, found {meaning}. "
                "These settings cannot change for data already prepared: prepare it anew."
            )
        segments.append(segment)
        hash = segment.parent
    return segments[::-1]


def _write(path: Path, batch: pa.RecordBatch, notes: dict[str, str]) -> Path:
    if path.exists():  # named by its content: it is the same
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    with open(unfinished, "wb") as file:
        batch = batch.replace_schema_metadata(notes)
        with pa.ipc.new_file(file, batch.schema) as writer:
            writer.write_batch(batch)
        file.flush()
        os.fsync(file.fileno())
    os.replace(unfinished, path)
    return path


def _read(path: Path, schema: pa.Schema, notes: tuple[str, ...]) -> tuple[pa.RecordBatch, dict[str, str]]:
    """The one record batch of a file, of that schema and without nulls but for texts, and the notes it must have."""
    if not path.exists():
        raise IdMapError(f"Expected id map file {path}, found none. Restore it from a copy or prepare the data anew.")
    try:
        batch = pa.ipc.open_file(pa.memory_map(str(path))).get_batch(0)
        batch.validate(full=True)
        if not batch.schema.equals(schema):
            raise ValueError(f"its columns are {batch.schema.names}")
        values = [column.values if pa.types.is_large_list(column.type) else column for column in batch.columns]
        if any(column.null_count for column in values if column.type != pa.large_string()):
            raise ValueError("it has null values")
        found = {name.decode(): value.decode() for name, value in (batch.schema.metadata or {}).items()}
        return batch, {name: found[name] for name in notes}
    except (pa.ArrowException, ValueError, KeyError, OSError) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, reason: object) -> IdMapError:
    return IdMapError(
        f"Expected a whole id map file, {path} is cut off or damaged ({reason}). "
        "Restore it from a copy or prepare the data anew."
    )


def _text_buffers(texts: pa.Array) -> tuple[memoryview, memoryview]:
    """Lengths and bytes of a large_string array, however it is sliced."""
    texts = texts.fill_null("") if texts.null_count else texts
    if len(texts) == 0:
        return memoryview(b""), memoryview(b"")
    offsets = np.frombuffer(texts.buffers()[1], np.int64, len(texts) + 1, texts.offset * 8)
    data = memoryview(texts.buffers()[2] or b"")[offsets[0] : offsets[-1]]
    return np.diff(offsets).view(np.uint8).data, data
