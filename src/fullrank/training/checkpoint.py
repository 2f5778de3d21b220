"""Checkpoints that are there whole or not at all.

``checkpoints/STEP/`` holds safetensors files and `state.json` with every file's size and SHA-256. It is written as
``.tmp-STEP``, flushed to the disk, renamed, and then named by the file `latest`, by rename too: a kill at any moment
leaves the checkpoint before in force. What is damaged later is noticed when it is read, and the one before is taken.
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

FORMAT = 1
LATEST = "latest"
_DTYPES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16",
    torch.int64: "I64", torch.int32: "I32", torch.int16: "I16", torch.int8: "I8",
    torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip


class CheckpointError(ValueError):
    """A checkpoint is not as it was written. The message names the file."""


@dataclass(frozen=True, kw_only=True)
class Position:
    """Where a run is, between two steps: what has to be known, besides tensors, to go on as if nothing had happened.

    `row` rows of epoch `epoch` are consumed (a whole epoch is the next one's row 0); `rows` in all. `epoch_rows` is
    the loader's length, to notice that the data changed. `window` sums each loss over the `window_steps` steps since
    the last line of metrics.jsonl, which was `metrics_bytes` long. `valid` is the last validation, made at
    `validated_step`. `loss` is the last step's.
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


@dataclass(frozen=True, kw_only=True)
class FileEntry:
    size: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class State:
    """`state.json`."""

    format: int
    position: Position
    files: dict[str, FileEntry]


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint whose files were found to be as written."""

    path: Path
    position: Position

    def tensors(self, part: str) -> dict[str, Tensor]:
        """The tensors of one part (`dense`, `tables`, `optimizer`), by name."""
        from safetensors.torch import load_file

        return load_file(self.path / f"{part}.safetensors")


def save_checkpoint(
    folder: Path, position: Position, parts: Mapping[str, Mapping[str, Tensor]], *, keep: int
) -> Checkpoint:
    """Write `folder/STEP` with one safetensors file a part, make it the latest, and keep the newest `keep` in all."""
    folder.mkdir(parents=True, exist_ok=True)
    for leftover in folder.glob(".tmp-*"):
        shutil.rmtree(leftover)
    name = str(position.step)
    draft, final = folder / f".tmp-{name}", folder / name
    draft.mkdir()
    files = {}
    for part, tensors in parts.items():
        file = f"{part}.safetensors"
        files[file] = _write_tensors(draft / file, tensors)
    _write_synced(draft / "state.json", dumps(State(format=FORMAT, position=position, files=files)))
    _sync_folder(draft)
    if final.exists():  # damaged, or never named by `latest`: this run came here again from an earlier one
        shutil.rmtree(final)
    draft.rename(final)
    _sync_folder(folder)
    pointer = folder / f".{LATEST}"
    _write_synced(pointer, name + "\n")
    pointer.replace(folder / LATEST)
    _sync_folder(folder)
    steps = sorted(_steps(folder), reverse=True)
    kept = [step for step in steps if step <= position.step][:keep]
    for step in set(steps) - set(kept):
        shutil.rmtree(folder / str(step))
    return Checkpoint(final, position)


def latest_checkpoint(folder: Path) -> Checkpoint | None:
    """The newest whole checkpoint, or None where there is none.

    Every file is read and compared with its stored hash. One that is damaged is passed over with a warning that names
    the file. If all are damaged that is an error: to start anew silently would throw a run away.
    """
    damaged = []
    for step in _in_order(folder):
        try:
            checkpoint = Checkpoint(folder / str(step), _verified(folder / str(step)))
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


def _in_order(folder: Path) -> list[int]:
    """Steps, the one that `latest` names first, then what came before it; all, newest first, without a `latest`."""
    steps = sorted(_steps(folder), reverse=True)
    pointer = folder / LATEST
    named = pointer.read_text().strip() if pointer.exists() else ""
    return [step for step in steps if step <= int(named)] if named.isdecimal() else steps


def _steps(folder: Path) -> Iterator[int]:
    if folder.exists():
        yield from (int(path.name) for path in folder.iterdir() if path.is_dir() and path.name.isdecimal())


def _verified(path: Path) -> Position:
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
        with part.open("rb") as stream:
            found = hashlib.file_digest(stream, "sha256").hexdigest()
        if found != entry.sha256:
            raise CheckpointError(f"{part} is damaged: expected SHA-256 {entry.sha256[:12]}…, got {found[:12]}….")
    return state.position


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
