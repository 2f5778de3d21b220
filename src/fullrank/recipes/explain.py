"""How an answer changes when something is hidden from the model: occlusion, and nothing more."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import pyarrow as pa
import torch

from fullrank.data.batch import Batch, to_device
from fullrank.data.columns import DataError
from fullrank.data.inputs import Field, Inputs
from fullrank.data.keys import code_of_key
from fullrank.data.partitions import PreparedData
from fullrank.rankers import Ranker
from fullrank.recipes.asker import Asked, Asker
from fullrank.recipes.catalogue import Catalogue, best
from fullrank.recipes.context import context_columns
from fullrank.recipes.occlusion import CANDIDATE, REQUEST, Hidden, occluded
from fullrank.recipes.predict_rows import answers
from fullrank.schema import did_you_mean
from fullrank.training.run import Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NOTE = (
    "Each line is the model's answer with that one thing hidden, less its answer with everything there. It says what "
    "this model's answer rests on here. It does not say what would cause the user to act, and the lines do not add up: "
    "what two inputs both tell is missed only when both are hidden."
)
What = Literal["field", "key space", "history", "event"]


@dataclass(frozen=True)
class Effect:
    """`hidden`: the name of what was hidden. `what`: a `field` in its one place · a `key space`: every field of it, in
    the request, the item and the events · a `history`, all of it · one `event` of it. A change is the answer with it
    hidden less the answer with everything there."""

    hidden: str
    what: What
    logit_change: float
    answer_change: float


@dataclass(frozen=True)
class Explanation:
    """Why one item got its answer from a run, for one user and task; `effects` have the largest logit changes first.

    `answer`: the probability (of a regression task: the number, and then changes of logit and answer are the same).
    `kind`: the task's.
    """

    user: str
    item: str
    task: str
    kind: str
    logit: float
    answer: float
    effects: tuple[Effect, ...]
    note: str = NOTE


def explain(
    run: Run,
    ranker: Ranker,
    data: PreparedData,
    user: str | int,
    item: str | int | None = None,
    *,
    task: str | None = None,
    context: Mapping[str, str | Sequence[str]] | None = None,
    hash_key: bytes | None = None,
) -> Explanation:
    """Hide every field, every key space that several fields share, every history and every event, one at a time.

    The request is the one `recommend` makes for the user. What is missing already is not hidden again.

    Args:
        item: an item's key; the best one not in the user's past if None.
        task: whose answer; the run's first task if None.
        context: what is so in this request, as for `recommend`.

    One pass of the ranker over as many rows as there are things to hide (inputs and events). Not for saying what a
    model relies on in general: that is a mean over many requests.
    """
    asker = Asker(run, data, hash_key=hash_key)
    catalogue = Catalogue(asker)
    inputs, column = asker.inputs, asker.schema.roles.user
    if not column:
        raise DataError("The log has no role `user`: there is nobody to explain an answer for.")
    name = task or inputs.task_names[0]
    if name not in inputs.task_names:
        near = did_you_mean(name, inputs.task_names)
        raise ValueError(f"Expected a task of the run, one of {list(inputs.task_names)}, got {name!r}.{near}")
    place = inputs.task_names.index(name)
    columns = {column: pa.array([str(user)])}
    columns |= context_columns(asker.schema, data.schema, context or {}, 1)
    records = pa.RecordBatch.from_pydict(columns)
    asked = asker.ask(records, asker.newest(records))
    row = _row_of(catalogue, item) if item is not None else _best(catalogue, ranker, asked, place)
    batch = Batch(asked.requests, catalogue.candidates(asked, np.array([row])))
    named = list(_things(batch, inputs, asker))
    variants = occluded(batch, inputs, [Hidden(), *(hidden for _, _, hidden in named)])
    device = next((parameter.device for parameter in ranker.parameters()), torch.device("cpu"))
    with torch.inference_mode():
        logit_V = ranker.eval()(to_device(variants, device)).logits[name].float().cpu().numpy()
    of_task = inputs.tasks[place]
    answer_V = answers(logit_V[:, None], (of_task,))[name].astype(np.float64)
    effects = [
        Effect(label, what, float(logit_V[v] - logit_V[0]), float(answer_V[v] - answer_V[0]))
        for v, (label, what, _) in enumerate(named, start=1)
    ]
    return Explanation(
        user=str(user),
        item=catalogue.items.key[row].as_py(),
        task=name,
        kind=of_task.kind,
        logit=float(logit_V[0]),
        answer=float(answer_V[0]),
        effects=tuple(sorted(effects, key=lambda effect: -abs(effect.logit_change))),
    )


def _row_of(catalogue: Catalogue, item: str | int) -> int:
    at = np.flatnonzero(catalogue.items.code == np.uint64(code_of_key(item)))
    if not len(at):
        raise DataError(
            f"Expected an item of the catalogue ({len(catalogue):,} items), got {item!r}. "
            "`fullrank recommend` lists some."
        )
    return int(at[0])


def _best(catalogue: Catalogue, ranker: Ranker, asked: Asked, place: int) -> int:
    score = catalogue.logits(ranker.eval(), asked)[place, 0].astype(np.float64)
    unseen = np.where(np.isin(catalogue.items.code, asked.past[0]), -np.inf, score)
    found = best(unseen, 1)
    return int(found[0] if len(found) else np.argmax(score))


def _things(batch: Batch, inputs: Inputs, asker: Asker) -> Iterator[tuple[str, What, Hidden]]:
    """Everything that can be hidden, with a name for a person."""
    missing = {
        (part, name)
        for part, block, fields in (
            (REQUEST, batch.requests.features, inputs.request),
            (CANDIDATE, batch.candidates.features, inputs.candidate),
        )
        for name, state in asker.states(block, fields).items()
        if state.missing_n[0]
    }
    places: list[tuple[str, Field]] = [(REQUEST, field) for field in inputs.request]
    places += [(CANDIDATE, field) for field in inputs.candidate]
    places = [(part, field) for part, field in places if (part, field.name) not in missing]
    for part, field in places:
        yield field.name, "field", Hidden(fields=frozenset({(part, field.name)}))
    filled = {h.name for h, read in zip(inputs.histories, batch.requests.histories, strict=True) if read.num_events}
    for history in inputs.histories:
        if history.name in filled:
            places += [(history.name, field) for field in history.fields]
            for field in history.fields:
                label = f"{history.name}: {field.name} of its events"
                yield label, "field", Hidden(fields=frozenset({(history.name, field.name)}))
    for space in inputs.key_spaces():
        members = frozenset((part, field.name) for part, field in places if field.key_space == space)
        if len(members) > 1:
            yield f"all of {space}", "key space", Hidden(fields=members)
    for history, read in zip(inputs.histories, batch.requests.histories, strict=True):
        if history.name not in filled:
            continue
        yield history.name, "history", Hidden(histories=frozenset({history.name}))
        id_map = asker.id_maps[history.fields[0].key_space]
        items = read.events.ids_nF[:, 0].tolist()
        for number, item in enumerate(items):
            back = len(items) - number
            key = id_map.key_of_id(item)
            hidden = Hidden(events=frozenset({(history.name, number)}))
            yield f"{history.name}[-{back}]: {key}", "event", hidden


def plot_explanation(explanation: Explanation, ax: Axes | None = None, *, most: int = 20) -> Axes:
    """The `most` largest logit changes as bars, the largest on top."""
    from matplotlib.figure import Figure

    shown = explanation.effects[:most][::-1]
    if ax is None:
        ax = Figure(figsize=(8, 1.2 + 0.28 * len(shown)), layout="constrained").add_subplot()
    colours = ["#b3443c" if effect.logit_change < 0 else "#2f6fa7" for effect in shown]
    ax.barh([effect.hidden for effect in shown], [effect.logit_change for effect in shown], color=colours)
    ax.axvline(0.0, color="black", linewidth=0.8)
    ax.set_xlabel("change of the logit when hidden")
    ax.set_title(f"{explanation.task} of item {explanation.item}: {explanation.answer:.4f}")
    return ax
