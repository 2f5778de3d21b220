"""What a model asks of a batch: the names it wants, in the order it wants them.

An `Inputs` is resolved once against a schema. The loader packs exactly these columns, in this order, and a model built
from the same `Inputs` indexes them by position: no name is looked up per batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fullrank.schema import Feature, Schema, TaskKind, did_you_mean

FieldKind = Literal["categorical", "multi", "numeric", "vector"]
FieldOwner = Literal["user", "context", "item", "pair", "event", "outcome"]


@dataclass(frozen=True, kw_only=True)
class Field:
    """One input of a model. `key_space` is set for categorical and multi, `dim` for vector. `of` says whose it is
    (as in `Feature`; in a history "outcome" of what became known after the event, "event" of all else), so that a model
    of users or of items alone can take its own, and one of every position need not see what it predicts."""

    name: str
    kind: FieldKind
    key_space: str = ""
    dim: int = 0
    of: FieldOwner = "event"


@dataclass(frozen=True, kw_only=True)
class HistoryInputs:
    """The newest `last_n` events of one history. The first field is always the event's `item`; then event features,
    outcomes (numeric, NaN while not yet known), `age` (numeric: log10(1 + seconds before the request), where the log
    has a clock) and item attributes (`item.genres` is feature `genres` of the event's item)."""

    name: str
    last_n: int
    fields: tuple[Field, ...]


@dataclass(frozen=True, kw_only=True)
class TaskInput:
    """A label column of a batch. What its values are follows from `kind`: 0/1, a real number, or the number of one of
    `classes` classes. `parent`: the funnel's step before, empty for a first one."""

    name: str
    kind: TaskKind = "binary"
    classes: int = 0
    parent: str = ""


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """Fields of the request part, of the candidate part, histories and tasks of a model. A parent that is not among
    the tasks is left out."""

    request: tuple[Field, ...]
    candidate: tuple[Field, ...]
    histories: tuple[HistoryInputs, ...]
    tasks: tuple[TaskInput, ...]

    @staticmethod
    def of(schema: Schema, *, last_n: int | None = None, exclude: tuple[str, ...] = ()) -> Inputs:
        """Everything the schema offers a model, less the features, histories and tasks named in `exclude`.

        `last_n` shortens every history (the schema's `max_length` if None). Text is never an input.
        """
        known = [named.name for named in (*schema.all_features(), *schema.histories, *schema.tasks)]
        for name in exclude:
            if name not in known:
                near = did_you_mean(name, known)
                raise ValueError(f"Expected exclude to name one of {', '.join(known)}, got {name!r}.{near}")
        if last_n is not None and last_n < 1:
            raise ValueError(f"Expected last_n >= 1, got {last_n}. To leave a history out, exclude it by its name.")

        def field(name: str, feature: Feature, of: FieldOwner) -> Field:
            kind = feature.kind
            if kind == "categorical" and schema.key_space(feature.key_space).hashes > 1:
                kind = "multi"  # one key takes several rows of a hashed space: a bag of them
            assert kind != "text"
            return Field(name=name, kind=kind, key_space=feature.key_space, dim=feature.dim, of=of)

        def usable(owners: tuple[str, ...]) -> tuple[Field, ...]:
            every = schema.all_features()
            return tuple(
                field(f.name, f, f.of) for f in every if f.of in owners and f.kind != "text" and f.name not in exclude
            )

        attributes = tuple(
            field(f"item.{f.name}", f, "event")
            for f in schema.features
            if f.of == "item" and f.kind in ("categorical", "multi") and f.name not in exclude
        )
        histories = []
        for history in schema.histories:
            if history.name in exclude:
                continue
            event = [Field(name="item", kind="categorical", key_space=history.key_space)]
            event += [Field(name=f.name, kind=f.kind, key_space=f.key_space) for f in history.features]
            event += [Field(name=outcome.name, kind="numeric", of="outcome") for outcome in history.outcomes]
            if history.time_is_known(schema):
                event.append(Field(name="age", kind="numeric"))
            if history.key_space == "item":
                event += attributes
            length = min(last_n or history.max_length, history.max_length)
            histories.append(HistoryInputs(name=history.name, last_n=length, fields=tuple(event)))
        return Inputs(
            request=usable(("user", "context")),
            candidate=usable(("item", "pair")),
            histories=tuple(histories),
            tasks=tuple(
                TaskInput(
                    name=task.name,
                    kind=task.kind,
                    classes=task.classes,
                    parent="" if task.parent in exclude else task.parent,
                )
                for task in schema.tasks
                if task.name not in exclude
            ),
        )

    @property
    def task_names(self) -> tuple[str, ...]:
        """The names of the label columns, in their order."""
        return tuple(task.name for task in self.tasks)

    def key_spaces(self) -> tuple[str, ...]:
        """Every key space a model of these inputs needs a table for, in order of first use."""
        every = [*self.request, *self.candidate, *(f for h in self.histories for f in h.fields)]
        return tuple(dict.fromkeys(f.key_space for f in every if f.key_space))
