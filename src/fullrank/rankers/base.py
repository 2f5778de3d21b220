"""What every ranker is: two steps, one output, and nothing hidden in the random state."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fullrank.data.batch import Batch, Candidates, Requests
from fullrank.data.inputs import Inputs
from fullrank.features.tables import EmbeddingTables
from fullrank.layers.mlp import MLP
from fullrank.schema import did_you_mean

Taps = dict[str, Tensor]


@dataclass(frozen=True)
class Output:
    """`logits`: one `[B]` per task, before any sigmoid. `aux`: losses of the model's own, scalars. `taps`: the named
    points inside the model that were asked for, as they are in the autograd graph (detach what is kept)."""

    logits: dict[str, Tensor]
    aux: dict[str, Tensor]
    taps: Taps


class Ranker(nn.Module, ABC):
    """Scores candidates of requests.

    `encode_request` does once what depends on the request alone; `score` does the rest for rows, each of which names
    its request; `forward` is one after the other. When `taps` is a dict the model writes its named points into it
    and `Output.taps` is that dict; otherwise nothing is kept. Names are the model's; rows are always the first axis.

    A subclass sets `config`, `inputs` and `tables`, and holds a frozen keyword-only `Config` with
    `build(inputs, num_rows, seed) -> Ranker`: `num_rows` is rows per key space, and everything drawn is a function of
    the seed (see `seeded`).
    """

    inputs: Inputs
    tables: EmbeddingTables
    config: Any

    @abstractmethod
    def encode_request(self, requests: Requests) -> Any:
        """A frozen dataclass of tensors: embedded fields and histories of R requests."""

    @abstractmethod
    def score(self, state: Any, candidates: Candidates, *, taps: Taps | None = None) -> Output:
        """Logits of B rows; row b reads what `state` holds of request `candidates.request_of_row_B[b]`."""

    def forward(self, batch: Batch, *, taps: Taps | None = None) -> Output:
        return self.score(self.encode_request(batch.requests), batch.candidates, taps=taps)

    def dense_parameters(self) -> list[nn.Parameter]:
        """Every parameter that is not an arena: what an ordinary optimizer takes (arenas have their own)."""
        arenas = {id(parameter) for parameter in self.tables.parameters()}
        return [parameter for parameter in self.parameters() if id(parameter) not in arenas]

    def frozen_for(self, task: str) -> set[str]:
        """Names of the parameters that the loss of `task` alone legitimately leaves without a gradient."""
        return set()


class TaskTowers(nn.Module):
    """One MLP per task over a shared vector: `[B, D] -> {task: [B]}`; without hidden layers each is one Linear.

    Towers are kept in the order of `tasks`, so a task may have any name.
    """

    def __init__(self, tasks: tuple[str, ...], width: int, hidden: tuple[int, ...], dropout: float = 0.0) -> None:
        super().__init__()
        self.tasks, self.hidden = tasks, hidden
        self.of_task = nn.ModuleList(MLP(width, hidden, 1, dropout) for _ in tasks)

    def forward(self, *parts_BD: Tensor) -> dict[str, Tensor]:
        """Of the parts side by side; a tower of one Linear multiplies each by weights of its own instead of copying."""
        named = zip(self.tasks, self.of_task, strict=True)
        if len(parts_BD) == 1 or self.hidden:
            x_BD = torch.cat(parts_BD, dim=1)
            return {task: tower(x_BD).squeeze(-1) for task, tower in named}
        return {task: _linear_of_parts(next(tower.children()), parts_BD).squeeze(-1) for task, tower in named}

    def names_of_others(self, task: str, prefix: str) -> set[str]:
        """Parameter names, below `prefix`, of every other task's tower."""
        own = self.tasks.index(task)
        others = (tower for i, tower in enumerate(self.of_task) if i != own)
        theirs = {id(parameter) for tower in others for parameter in tower.parameters()}
        return {f"{prefix}.{name}" for name, parameter in self.named_parameters() if id(parameter) in theirs}


def _linear_of_parts(steps: nn.Module, parts_BD: tuple[Tensor, ...]) -> Tensor:
    (linear,) = steps.children()
    assert isinstance(linear, nn.Linear)
    weights = linear.weight.split([part_BD.shape[1] for part_BD in parts_BD], dim=1)
    first, *others = (F.linear(part_BD, weight) for part_BD, weight in zip(parts_BD, weights, strict=True))
    return sum(others, start=first) + linear.bias


def by_task(inputs: Inputs, logits_BK: Tensor) -> dict[str, Tensor]:
    """The columns of `logits_BK` by the names of the tasks, each `[B]`."""
    return dict(zip(inputs.task_names, logits_BK.unbind(1), strict=True))


def added(one: dict[str, Tensor], other: dict[str, Tensor]) -> dict[str, Tensor]:
    """Task by task, so that a task's loss reaches no other task's tower."""
    return {task: one[task] + other[task] for task in one}


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Inside, the CPU generator starts at `seed`; afterwards it is as it was before. Models are built on the CPU and
    moved, so their first weights are the same on every device."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


def tap(taps: Taps | None, name: str, value: Tensor) -> Tensor:
    """Keep `value` under `name` if somebody asked; returns it either way."""
    if taps is not None:
        taps[name] = value
    return value


def check_choice(what: str, value: str, choices: Any) -> None:
    """An error unless `value` is one of a Literal's values; it names the nearest."""
    allowed = get_args(choices)
    if value not in allowed:
        raise ValueError(f"Expected {what} to be one of {allowed}, got {value!r}.{did_you_mean(value, allowed)}")
