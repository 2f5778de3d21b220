"""The moving average of a ranker's dense weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from fullrank.features.tables import copy_named
from fullrank.training.weights import dense_tensors


class DenseAverage:
    """``a_t = d_t a_{t-1} + (1 - d_t) w_t`` with ``d_t = min(decay, (t - 1) / t)`` after step t: the plain mean of the
    first 1 / (1 - decay) steps and an exponential average from then on (Polyak & Juditsky 1992 average alike), so that
    the first weights, which are noise, leave no trace. The start is our choice.

    Averaged is every floating dense tensor, buffers (running statistics) too. Tables are not (our choice): a second
    copy of all rows and a pass over them a step cost more than the step; and a row that is seldom touched has hardly
    moved since it was, so its average would only be late.

    decay None: nothing is averaged, and every method does nothing. Price: one copy of the dense weights.
    """

    def __init__(self, ranker: nn.Module, decay: float | None) -> None:
        self._decay = decay
        live = dense_tensors(ranker) if decay is not None else {}
        self._live = {name: tensor for name, tensor in live.items() if tensor.is_floating_point()}
        self._mean = {name: tensor.clone() for name, tensor in self._live.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """After step number `step` (from 1)."""
        if self._decay is None:
            return
        share = 1 - min(self._decay, (step - 1) / step)
        for name, tensor in self._live.items():
            self._mean[name].lerp_(tensor, share)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Inside, the ranker has the average; afterwards its own weights again, bit for bit."""
        own = {name: tensor.clone() for name, tensor in self._live.items()}
        self.put()
        try:
            yield
        finally:
            _copy(own, self._live)

    def put(self) -> None:
        """Give the ranker the average for good."""
        _copy(self._mean, self._live)

    def parts(self) -> dict[str, dict[str, Tensor]]:
        """The part `average` of a checkpoint; no part where nothing is averaged."""
        return {"average": self._mean} if self._decay is not None else {}

    @torch.no_grad()
    def load(self, tensors: dict[str, Tensor]) -> None:
        """Exactly what `parts` gave."""
        copy_named(self._mean, tensors, what="averaged weight")


@torch.no_grad()
def _copy(source: dict[str, Tensor], target: dict[str, Tensor]) -> None:
    for name, tensor in source.items():
        target[name].copy_(tensor)
