"""How a run trains."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """What `train` does with a ranker and a loader. Tables have learning rules of their own (`TableOptimizer`).

    Args:
        epochs: passes over the training rows.
        batch_size: rows of a micro-batch; the loader's.
        lr, weight_decay: AdamW (Loshchilov & Hutter 2019, arXiv:1711.05101) of everything that is not a table;
            without decay it is Adam. The decay is decoupled and falls on every dense parameter (our choice).
        accumulate: micro-batches a step. The gradient of a step is the mean of its micro-batches' gradients, each the
            gradient of a mean over its own known labels: equal to one batch of `accumulate · batch_size` rows where
            the micro-batches weigh the same. The last step of an epoch takes what is left: no step spans two epochs.
        clip_norm: scales a step's gradient down to this norm, over dense parameters and table rows together, after
            micro-batches and duplicate rows are summed; None: never.
        seed: of the order of rows and of dropout.
        log_every_steps: steps between two lines of `metrics.jsonl`, each the mean since the line before; an epoch's
            end has a line too.
        validate_every_epochs, validate_every_steps: None: not by that clock.
        checkpoint_every_steps: besides every epoch's end; None: only there. What is lost by a kill is bounded by it.
        keep_checkpoints: the newest so many are kept.
        full_checkpoint_every: every so many checkpoints one is whole; those between store of large tables only the rows
            touched since (see `Increments`). Worth it where a checkpoint takes long beside the steps between two; a
            checkpoint that is not whole needs its base to be there and undamaged.
    """

    epochs: int = 1
    batch_size: int = 1024
    lr: float = 1e-3
    weight_decay: float = 0.0
    accumulate: int = 1
    clip_norm: float | None = None
    seed: int = 0
    log_every_steps: int = 10
    validate_every_epochs: int | None = 1
    validate_every_steps: int | None = None
    checkpoint_every_steps: int | None = 1000
    keep_checkpoints: int = 2
    full_checkpoint_every: int = 1

    def __post_init__(self) -> None:
        counts = ("epochs", "batch_size", "accumulate", "log_every_steps", "keep_checkpoints", "full_checkpoint_every")
        clocks = ("validate_every_epochs", "validate_every_steps", "checkpoint_every_steps")
        for name in (*counts, *clocks):
            value = getattr(self, name)
            if value is None:
                continue
            if value < 1:
                off = f" Set `{name}=None` to switch it off." if name in clocks else ""
                raise ValueError(f"Expected {name} >= 1, got {value}.{off}")
        if self.lr <= 0:
            raise ValueError(f"Expected lr > 0, got {self.lr}.")
        if self.weight_decay < 0:
            raise ValueError(f"Expected weight_decay >= 0, got {self.weight_decay}.")
        if self.clip_norm is not None and self.clip_norm <= 0:
            raise ValueError(f"Expected clip_norm > 0, got {self.clip_norm}. Set `clip_norm=None` to switch it off.")
