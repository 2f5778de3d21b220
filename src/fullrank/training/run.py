"""A run: a folder that holds all a trained ranker is, and loads alone.

```
run.json           what it is: type, config, inputs, rows a key space, seed, lineage, training config, objective
schema.toml        what its rows mean
transform/         id maps, scalers, items: from a record to a batch without the prepared data
environment.json   with what it was made
metrics.jsonl      losses and validations, a JSON object a line
checkpoints/STEP/  weights and all a resumed run needs; checkpoints/best/ the weights that early stopping kept
result.json        how it ended; there when it is finished
```
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

import fullrank
from fullrank.config_json import dumps, encode, loads
from fullrank.data.inputs import Inputs
from fullrank.data.lineage import Pin
from fullrank.data.partitions import DataState
from fullrank.features.disk_rows import WriteFile
from fullrank.schema import Schema
from fullrank.schema_toml import from_toml, to_toml
from fullrank.training.callbacks import Result
from fullrank.training.checkpoint import (
    Changes,
    Checkpoint,
    Position,
    best_checkpoint,
    latest_checkpoint,
    save_best,
    save_checkpoint,
)
from fullrank.training.config import TrainConfig
from fullrank.training.environment import environment
from fullrank.training.origins import Continued, Origin
from fullrank.training.weights import load_weights

if TYPE_CHECKING:
    from fullrank.data.transform import Transform

FORMAT = 2


class RunError(ValueError):
    """A folder is not the run that was expected. The message says what is wrong and what to do."""


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """`run.json`. `config` is the ranker's own configuration and `objective` the objective's, as JSON: who knows their
    classes decodes them (`config_json.decode`). `num_rows`: rows of each key space's tables. `seed`: what the ranker
    was built with. `lineage`: the version of the id lineage that the run pins. `data`: the partitions it learns from
    and what was known of their labels; a resumed run reads no more than that (None: not of prepared data).
    `continues`: the run it began with all of, and the stages it goes through since. `warm_from`: the run its first
    weights were taken from, where keys and names match."""

    format: int
    fullrank: str
    type_tag: str
    config: Any
    inputs: Inputs
    num_rows: dict[str, int]
    seed: int
    lineage: Pin
    train: TrainConfig
    objective: Any
    data: DataState | None = None
    continues: Continued | None = None
    warm_from: Origin | None = None


@dataclass(frozen=True)
class Run:
    """An opened run. `path` is its folder."""

    path: Path
    record: RunRecord
    schema: Schema

    @staticmethod
    def create(
        path: Path | str,
        *,
        type_tag: str,
        config: Any,
        inputs: Inputs,
        num_rows: Mapping[str, int],
        seed: int,
        schema: Schema,
        transform: Transform,
        lineage: Pin,
        train: TrainConfig,
        objective: Any,
        data: DataState | None = None,
        continues: Continued | None = None,
        warm_from: Origin | None = None,
    ) -> Run:
        """Make the folder, whole or not at all; or open the one that is there if it is the same run.

        Args:
            type_tag: names the ranker's class to whoever loads it.
            config, objective: frozen dataclasses.

        Raises RunError where `path` holds anything else: another run (the first difference is named) or other files.
        """
        path = Path(path)
        record = RunRecord(
            format=FORMAT,
            fullrank=fullrank.__version__,
            type_tag=type_tag,
            config=encode(config),
            inputs=inputs,
            num_rows=dict(num_rows),
            seed=seed,
            lineage=lineage,
            train=train,
            objective=encode(objective),
            data=data,
            continues=continues,
            warm_from=warm_from,
        )
        if (path / "run.json").exists():
            there = Run.open(path)
            difference = _difference(encode(there.record), encode(record)) or _difference(
                encode(there.schema), encode(schema), "schema"
            )
            if difference:
                raise RunError(f"{path} holds another run: {difference}. Give the new run a folder of its own.")
            return there
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise RunError(f"Expected {path} to be a run, an empty folder or not there; it holds other files.")
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f".tmp-{path.name}")
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir()
        (draft / "run.json").write_text(dumps(record), encoding="utf-8")
        (draft / "schema.toml").write_text(to_toml(schema), encoding="utf-8")
        (draft / "environment.json").write_text(dumps(environment()), encoding="utf-8")
        (draft / "metrics.jsonl").touch()
        transform.save(draft / "transform")
        if path.exists():
            path.rmdir()
        draft.replace(path)
        return Run(path, record, schema)

    @staticmethod
    def open(path: Path | str) -> Run:
        """The run in a folder. Reads the folder and nothing outside of it."""
        path = Path(path)
        for name in ("run.json", "schema.toml", "transform"):
            if not (path / name).exists():
                what = "a run, with" if path.is_dir() else "a run's folder: there is no"
                raise RunError(f"Expected {path} to be {what} {name}.")
        text = (path / "run.json").read_text(encoding="utf-8")
        _check_format(text, path / "run.json")
        record = loads(RunRecord, text, str(path / "run.json"))
        schema = from_toml((path / "schema.toml").read_text(encoding="utf-8"), str(path / "schema.toml"))
        return Run(path, record, schema)

    def transform(self, hash_key: bytes | None = None) -> Transform:
        """What turns records into batches of this run; `hash_key` where its data were prepared with one."""
        from fullrank.data.transform import Transform

        return Transform.load(self.path / "transform", self.schema, hash_key=hash_key)

    def latest_checkpoint(self) -> Checkpoint | None:
        """The newest whole checkpoint; see `checkpoint.latest_checkpoint`."""
        return latest_checkpoint(self.path / "checkpoints")

    def save(
        self,
        position: Position,
        parts: Mapping[str, Mapping[str, Tensor]],
        keep: int,
        changes: Changes | None = None,
        files: Mapping[str, WriteFile] | None = None,
    ) -> Checkpoint:
        """Write a checkpoint; see `checkpoint.save_checkpoint`."""
        return save_checkpoint(self.path / "checkpoints", position, parts, keep=keep, changes=changes, files=files)

    def save_best(
        self, position: Position, parts: Mapping[str, Mapping[str, Tensor]], files: Mapping[str, WriteFile]
    ) -> None:
        """Keep weights as the best so far; see `checkpoint.save_best`."""
        save_best(self.path / "checkpoints", position, parts, files)

    def best_checkpoint(self) -> Checkpoint:
        """The weights that early stopping kept; see `checkpoint.best_checkpoint`."""
        return best_checkpoint(self.path / "checkpoints")

    def weights(self) -> Checkpoint:
        """The checkpoint of the run's weights: a finished run's are those it ended with (the best where it went by a
        metric), another's those of its newest checkpoint."""
        result = self.result()
        if result is None and self.record.continues is not None:
            raise RunError(f"{self.path} has not gone through all its stages yet: run the same command again first.")
        checkpoint = self.best_checkpoint() if result is not None and result.best else self.latest_checkpoint()
        if checkpoint is None:
            raise RunError(f"{self.path} has no checkpoint yet: train it first.")
        return checkpoint

    def load_weights(self, ranker: nn.Module) -> Position:
        """Copy the run's `weights` into a ranker built from `record`; where they were in training."""
        checkpoint = self.weights()
        load_weights(ranker, checkpoint, averaged=True)
        return checkpoint.position

    def result(self) -> Result | None:
        """How the run ended, or None while it has not."""
        file = self.path / "result.json"
        return loads(Result, file.read_text(encoding="utf-8"), str(file)) if file.exists() else None

    def finish(self, result: Result) -> None:
        """Write `result.json`, whole or not at all."""
        draft = self.path / ".result.json"
        draft.write_text(dumps(result), encoding="utf-8")
        draft.replace(self.path / "result.json")


def _check_format(text: str, file: Path) -> None:
    """Before anything else is read: another format has other fields."""
    import json

    try:
        found = json.loads(text)
    except json.JSONDecodeError as error:
        raise RunError(f"{file} is damaged: {error}.") from error
    version = found.get("format") if isinstance(found, dict) else None
    if version != FORMAT:
        by = f" (written by fullrank {found['fullrank']})" if isinstance(found, dict) and "fullrank" in found else ""
        raise RunError(f"Expected {file} of format {FORMAT}, got {version!r}{by}: use the release that wrote it.")


def _difference(there: Any, new: Any, where: str = "") -> str:
    """The first place where two JSON values differ, in words; empty if they are equal. Releases may differ."""
    if isinstance(there, dict) and isinstance(new, dict):
        for key in {**there, **new}:
            if not where and key == "fullrank":
                continue
            found = _difference(there.get(key), new.get(key), f"{where}.{key}" if where else key)
            if found:
                return found
        return ""
    return "" if there == new else f"its {where} is {there!r}, not {new!r}"
