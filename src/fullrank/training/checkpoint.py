"""Checkpoints that are there whole or not at all.

``checkpoints/STEP/`` holds safetensors files and `state.json` with every file's size and SHA-256. It is written as
``.tmp-STEP``, flushed to the disk, renamed, and then named by the file `latest`, by rename too: a kill at any moment
leaves the checkpoint before in force. What is damaged later is noticed when it is read, and the one before is taken.

Tables that live on disk have files of their own in it (`features.disk_files`): what did not change since the checkpoint
before is the same file under two names.

A checkpoint may store of some tensors only the rows that changed since an earlier one, its base, which it names by
hash (`Changes`). Read, it is the same as if it had been stored whole. A base is whole, and kept while it is needed.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from fullrank.config_json import ConfigError, dumps, loads
from fullrank.features.disk_rows import WriteFile
from fullrank.training.watch import Watch

FORMAT = 1
LATEST = "latest"
BEST = "best"
ROWS = "rows"  # the part that says which rows of changed tensors are stored
_DTYPES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16",
    torch.int64: "I64", torch.int32: "I32", torch.int16: "I16", torch.int8: "I8",
    torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip


class CheckpointError(ValueError):
    """A checkpoint cannot be written, or is not as it was written. The message names the file."""


@dataclass(frozen=True, kw_only=True)
class Position:
    """Where a run is, between two steps: what has to be known, besides tensors, to go on as if nothing had happened.

    `row` rows of epoch `epoch` are consumed (a whole epoch is the next one's row 0); `rows` in all. `epoch_rows` is
    the loader's length, to notice that the data changed. `window` sums each loss over the `window_steps` steps since
    the last line of metrics.jsonl, which was `metrics_bytes` long. `valid` is the last validation, made at
    `validated_step`. `loss` is the last step's. `early` is what early stopping has seen, `plateau` and `lr_factor` what
    the schedule's plateau has seen and done.
    """

    step: int = 0
    epoch: int = 0
    row: int = 0
    rows: int = 0
    epoch_rows: int = 0
    loss: float = 0.0
    window: dict[str, float] = field(default_factory=dict)
    window_steps: int = 0
    window_norm: float = 0.0
    metrics_bytes: int = 0
    validated_step: int = 0
    valid: dict[str, dict[str, int | float | None]] = field(default_factory=dict)
    seconds: float = 0.0
    early: Watch = field(default_factory=Watch)
    plateau: Watch = field(default_factory=Watch)
    lr_factor: float = 1.0


@dataclass(frozen=True, kw_only=True)
class FileEntry:
    size: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Base:
    """The whole checkpoint that another builds on: its step, and the SHA-256 of its `state.json` (which has those of
    its files). `rows`: part → tensor → which rows of it are stored, a name in `rows.safetensors`."""

    step: int
    sha256: str
    rows: dict[str, dict[str, str]]


@dataclass(frozen=True, kw_only=True)
class State:
    """`state.json`."""

    format: int
    position: Position
    files: dict[str, FileEntry]
    base: Base | None = None


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint whose files were found to be as written. `grows`: tables that live on disk may be longer than they
    are in it."""

    path: Path
    position: Position
    base: Base | None = None
    files: Mapping[str, FileEntry] = field(default_factory=dict)
    grows: bool = False

    @property
    def sha256(self) -> str:
        """What tells it from any other: the hash of `state.json`, which holds the hashes of all its files."""
        return _sha256(self.path / "state.json")

    def has(self, part: str) -> bool:
        return (self.path / f"{part}.safetensors").exists()

    def tensors(self, part: str) -> dict[str, Tensor]:
        """The tensors of one part (`dense`, `tables`, `optimizer`), by name, each whole."""
        from safetensors import safe_open
        from safetensors.torch import load_file

        tensors = load_file(self.path / f"{part}.safetensors")
        changed = self.base.rows.get(part) if self.base else None
        if self.base and changed:
            rows = load_file(self.path / f"{ROWS}.safetensors")
            with safe_open(self.path.with_name(str(self.base.step)) / f"{part}.safetensors", "pt") as whole:
                for name, rows_name in changed.items():
                    tensors[name] = whole.get_tensor(name).index_copy_(0, rows[rows_name].long(), tensors[name])
        return tensors


@dataclass(frozen=True, kw_only=True)
class Changes:
    """What differs from the whole checkpoint `base`. `rows`: name → the changed rows (ascending, each once). `of`: part
    → tensor → the name of its rows; a tensor that is not in it is stored whole."""

    base: Checkpoint
    rows: Mapping[str, Tensor]
    of: Mapping[str, Mapping[str, str]]


def save_checkpoint(
    folder: Path,
    position: Position,
    parts: Mapping[str, Mapping[str, Tensor]],
    *,
    keep: int,
    changes: Changes | None = None,
    files: Mapping[str, WriteFile] | None = None,
) -> Checkpoint:
    """Write `folder/STEP` with one safetensors file a part, make it the latest, and keep the newest `keep` in all (and
    what these build on). `changes`: store the changed rows alone where it names them. `files`: what writes (or links)
    each other file, by name."""
    base = None
    if changes is not None:
        base = Base(
            step=changes.base.position.step,
            sha256=changes.base.sha256,
            rows={part: dict(rows) for part, rows in changes.of.items()},
        )
        parts = {part: _changed(tensors, changes, part) for part, tensors in parts.items()}
        parts[ROWS] = {name: rows.int() for name, rows in changes.rows.items()}
    made = _write_checkpoint(folder, str(position.step), position, parts, base, files or {})
    pointer = folder / f".{LATEST}"
    _write_synced(pointer, f"{position.step}\n")
    pointer.replace(folder / LATEST)
    _sync_folder(folder)
    keep_newest(folder, position.step, keep)
    return made


def keep_newest(folder: Path, latest: int, keep: int) -> None:
    """Remove all checkpoints but the newest `keep` up to step `latest`, and what these build on."""
    steps = sorted(_steps(folder), reverse=True)
    kept = [step for step in steps if step <= latest][:keep]
    kept += [base for base in (_base_step(folder / str(step)) for step in kept) if base is not None]
    for step in set(steps) - set(kept):
        shutil.rmtree(folder / str(step))


def save_best(
    folder: Path,
    position: Position,
    parts: Mapping[str, Mapping[str, Tensor]],
    files: Mapping[str, WriteFile] | None = None,
) -> None:
    """Write `folder/best` in place of the one that is there. A kill in between may leave none: the run then resumes
    from a checkpoint before the validation that found it, and finds it again."""
    _write_checkpoint(folder, BEST, position, parts, None, files or {})


def best_checkpoint(folder: Path) -> Checkpoint:
    """The weights that early stopping kept. Raises CheckpointError where they are not whole."""
    return _verified(folder / BEST)


def latest_checkpoint(folder: Path) -> Checkpoint | None:
    """The newest whole checkpoint, or None where there is none.

    Every file is read and compared with its stored hash. One that is damaged is passed over with a warning that names
    the file. If all are damaged that is an error: to start anew silently would throw a run away.
    """
    damaged = []
    for step in _in_order(folder):
        try:
            checkpoint = _verified(folder / str(step))
        except CheckpointError as error:
            damaged.append(str(error))
            continue
        for message in damaged:
            warnings.warn(f"{message} Taking {checkpoint.path} instead.", RuntimeWarning, stacklevel=2)
        return checkpoint
    if damaged:
        found = " ".join(damaged)
        raise CheckpointError(f"No checkpoint in {folder} is whole: {found} Delete the folder to start anew.")
    return None


def _write_checkpoint(
    folder: Path,
    name: str,
    position: Position,
    parts: Mapping[str, Mapping[str, Tensor]],
    base: Base | None,
    others: Mapping[str, WriteFile],
) -> Checkpoint:
    """`folder/NAME`, whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    for leftover in folder.glob(".tmp-*"):
        shutil.rmtree(leftover)
    draft, final = folder / f".tmp-{name}", folder / name
    try:
        draft.mkdir()
        files = {}
        for part, tensors in parts.items():
            file = f"{part}.safetensors"
            files[file] = _write_tensors(draft / file, tensors)
        for file, write in others.items():
            written = write(draft / file)
            files[file] = FileEntry(size=written.size, sha256=written.sha256)
        for within in sorted({folder for file in others for folder in Path(file).parents}, reverse=True):
            _sync_folder(draft / within)
        _write_synced(draft / "state.json", dumps(State(format=FORMAT, position=position, files=files, base=base)))
        _sync_folder(draft)
    except OSError as error:
        shutil.rmtree(draft, ignore_errors=True)  # on a full disk, what was written of it is in the way
        raise CheckpointError(
            f"Cannot write checkpoint {final}: {error}. What was saved before is whole: make room on the disk if it is "
            "full, and run the same command again."
        ) from error
    if final.exists():  # damaged, or never named by `latest`: this run came here again from an earlier one
        shutil.rmtree(final)
    draft.rename(final)
    _sync_folder(folder)
    return Checkpoint(final, position, base, files)


def _in_order(folder: Path) -> list[int]:
    """Steps, the one that `latest` names first, then what came before it; all, newest first, without a `latest`."""
    steps = sorted(_steps(folder), reverse=True)
    pointer = folder / LATEST
    named = pointer.read_text().strip() if pointer.exists() else ""
    return [step for step in steps if step <= int(named)] if named.isdecimal() else steps


def _steps(folder: Path) -> Iterator[int]:
    if folder.exists():
        yield from (int(path.name) for path in folder.iterdir() if path.is_dir() and path.name.isdecimal())


def _base_step(path: Path) -> int | None:
    """The step that a checkpoint builds on; None for a whole one, and for one that cannot be read any more."""
    try:
        state = loads(State, (path / "state.json").read_text(encoding="utf-8"))
    except (OSError, ConfigError, UnicodeDecodeError):
        return None
    return state.base.step if state.base else None


def _verified(path: Path) -> Checkpoint:
    file = path / "state.json"
    if not file.exists():
        raise CheckpointError(f"Expected {file}, found nothing there.")
    try:
        state = loads(State, file.read_text(encoding="utf-8"), str(file))
    except (ConfigError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{file} is damaged: {error}") from error
    if state.format != FORMAT:
        raise CheckpointError(f"Expected {file} of format {FORMAT}, got {state.format}: use the release that wrote it.")
    for name, entry in state.files.items():
        part = path / name
        if not part.exists():
            raise CheckpointError(f"Expected {part}, found nothing there.")
        if part.stat().st_size != entry.size:
            raise CheckpointError(f"Expected {part} of {entry.size} bytes, got {part.stat().st_size}: it was cut.")
        found = _sha256(part)
        if found != entry.sha256:
            raise CheckpointError(f"{part} is damaged: expected SHA-256 {entry.sha256[:12]}…, got {found[:12]}….")
    if state.base is not None:
        whole = path.with_name(str(state.base.step))
        _verified(whole)
        if _sha256(whole / "state.json") != state.base.sha256:
            raise CheckpointError(f"{path} builds on {whole}, and that is another checkpoint by now.")
    return Checkpoint(path, state.position, state.base, state.files)


def _changed(tensors: Mapping[str, Tensor], changes: Changes, part: str) -> dict[str, Tensor]:
    """The tensors of a part, of those that `changes` names the changed rows alone."""
    of = changes.of.get(part, {})
    return {
        name: tensor.detach().index_select(0, changes.rows[of[name]].to(tensor.device)) if name in of else tensor
        for name, tensor in tensors.items()
    }


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> FileEntry:
    """A safetensors file, written and hashed tensor by tensor: never a second copy of all tables in memory."""
    tensors = dict(sorted(tensors.items(), key=lambda item: -item[1].element_size()))  # so that each is aligned
    header, end = {}, 0
    for name, tensor in tensors.items():
        start, end = end, end + tensor.numel() * tensor.element_size()
        header[name] = {"dtype": _DTYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # data begins at a multiple of 8 bytes
    digest, size = hashlib.sha256(), 0
    with path.open("wb") as stream:
        for piece in (len(text).to_bytes(8, "little"), text, *map(_bytes, tensors.values())):
            stream.write(piece)
            digest.update(piece)
            size += len(piece)
        stream.flush()
        os.fsync(stream.fileno())
    return FileEntry(size=size, sha256=digest.hexdigest())


def _bytes(tensor: Tensor) -> memoryview:
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data


def _write_synced(path: Path, text: str) -> None:
    with path.open("w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":
        return  # Windows cannot open a folder, and flushes renames by itself
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
