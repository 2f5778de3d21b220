"""One step of everything a ranker learns: AdamW for dense parameters, the tables' own rules for rows."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.utils import get_total_norm

from fullrank.features.table_updates import RowGrads, TableUpdater
from fullrank.training.config import TrainConfig
from fullrank.training.weights import tables_of


class RankerOptimizer:
    """Sums the gradients of a step's micro-batches and applies their mean, dense parameters and rows alike.

    After each micro-batch's backward call `collect`; then `apply(max_norm)` once. g = (1/A) Σ_a g_a over the A
    micro-batches collected, scaled by min(1, max_norm / |g|), where |g| covers dense parameters and table rows
    together (duplicate rows summed first, as the norm of the true gradient wants).
    """

    def __init__(self, ranker: nn.Module, config: TrainConfig) -> None:
        tables = tables_of(ranker)
        self._updater = TableUpdater(tables)
        arenas = {id(arena) for arena in tables.parameters()}
        self._dense = {
            name: parameter
            for name, parameter in ranker.named_parameters()
            if parameter.requires_grad and id(parameter) not in arenas
        }
        self._adam = torch.optim.AdamW(
            self._dense.values(), lr=config.lr, weight_decay=config.weight_decay, fused=True
        )
        self._lr = config.lr
        self._rows: tuple[RowGrads, ...] = ()
        self._collected = 0

    def set_lr_factor(self, factor: float) -> None:
        """Multiply the dense learning rate and every table's by `factor` from now on. It is not part of the state."""
        for group in self._adam.param_groups:
            group["lr"] = self._lr * factor
        self._updater.set_lr_scale(factor)

    def collect(self) -> None:
        """After a backward: dense gradients stay summed where they are, row gradients are merged and summed here."""
        new = self._updater.merge()
        self._rows = tuple(a + b for a, b in zip(self._rows, new, strict=True)) if self._collected else new
        self._collected += 1

    def apply(self, max_norm: float | None) -> float:
        """One step; the norm of its gradient before clipping. A norm that is not finite changes nothing."""
        grads = [parameter.grad for parameter in self._dense.values() if parameter.grad is not None]
        squares = [get_total_norm(grads).square(), *(rows.sq_norm for rows in self._rows)]
        norm = float(torch.stack(squares).sum().sqrt()) / self._collected
        if norm - norm == 0:  # neither nan nor infinite
            clip = min(1.0, max_norm / norm) if max_norm is not None and norm > 0 else 1.0
            scale = clip / self._collected
            if scale != 1:
                for grad in grads:
                    grad.mul_(scale)
            self._adam.step()
            self._updater.accumulate(self._rows)
            self._updater.apply(scale)
        self._adam.zero_grad()
        self._rows, self._collected = (), 0
        return norm

    def grow(self, num_rows: Mapping[str, int]) -> None:
        """Make the tables of each named key space longer, with their state; see `TableUpdater.grow`."""
        self._updater.grow(num_rows)

    def watch_rows(self) -> None:
        """Note from now on which rows of tables are touched; see `TableUpdater.watch`."""
        self._updater.watch()

    def touched_rows(self) -> dict[str, Tensor]:
        """Table → the rows touched since `watch_rows`; see `TableUpdater.touched`."""
        return self._updater.touched()

    def state_tensors(self) -> dict[str, Tensor]:
        """`adam/PARAMETER/KEY` and `tables/…` (see `TableUpdater.state_tensors`); only between steps."""
        if self._collected:
            raise RuntimeError("Gradients were collected and not applied: store between steps.")
        names = {id(parameter): name for name, parameter in self._dense.items()}
        state = {
            f"adam/{names[id(parameter)]}/{key}": value
            for parameter, values in self._adam.state.items()
            for key, value in values.items()
        }
        return state | {f"tables/{name}": value for name, value in self._updater.state_tensors().items()}

    def load_state_tensors(self, state: dict[str, Tensor]) -> None:
        """Exactly what `state_tensors` gave, of the same ranker. A parameter that never had a gradient has no state."""
        self._updater.load_state_tensors(_below("tables/", state))
        for name, value in _below("adam/", state).items():
            parameter_name, _, key = name.rpartition("/")
            if parameter_name not in self._dense:
                raise ValueError(f"Expected optimizer state of this ranker's parameters, got {parameter_name!r}.")
            parameter = self._dense[parameter_name]
            self._adam.state[parameter][key] = value.to(parameter.device)


def _below(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
