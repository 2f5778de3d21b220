"""How a run trains."""

from __future__ import annotations

from dataclasses import dataclass, field

from fullrank.training.schedule import Schedule


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
        schedule: a factor on `lr` and on every table's own learning rate.
        ema_decay: average the dense weights over steps with this decay (see `DenseAverage`), e.g. 0.999; validation,
            early stopping and the final weights are the average's, and a checkpoint read for use gives it. None: no.
        bf16: compute the ranker's forward and backward in bfloat16 where torch's autocast holds it safe; weights,
            losses, gradients of weights, and validation stay in float32. Only faster on hardware that has bfloat16.
        early_stop: TASK.METRIC, such as `click.auc`: keep the weights of its best validation, stop when it has not
            improved for `patience` validations in a row, and end with the kept weights. Where no clock struck before,
            the end of the last epoch is validated. Empty: go through all epochs and end with the last.
        patience: of `early_stop`.
        min_improvement: what is no more than this better than the best so far is no improvement, for `early_stop` and
            for the plateau of `schedule`.
        seed: of the order of rows and of dropout; 0 or more.
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
    schedule: Schedule = field(default_factory=Schedule)
    ema_decay: float | None = None
    bf16: bool = False
    early_stop: str = ""
    patience: int = 2
    min_improvement: float = 0.0
    seed: int = 0
    log_every_steps: int = 10
    validate_every_epochs: int | None = 1
    validate_every_steps: int | None = None
    checkpoint_every_steps: int | None = 1000
    keep_checkpoints: int = 2
    full_checkpoint_every: int = 1

    def __post_init__(self) -> None:
        counts = ("epochs", "batch_size", "accumulate", "patience", "log_every_steps")
        counts += ("keep_checkpoints", "full_checkpoint_every")
        clocks = ("validate_every_epochs", "validate_every_steps", "checkpoint_every_steps")
        for name in (*counts, *clocks):
            value = getattr(self, name)
            if value is None:
                continue
            if value < 1:
                off = f" Set `{name}=None` to switch it off." if name in clocks else ""
                raise ValueError(f"Expected {name} >= 1, got {value}.{off}")
        if not 0 <= self.seed < 1 << 64:
            raise ValueError(f"Expected a seed of 64 bits, 0 or more, got {self.seed}.")
        if self.lr <= 0:
            raise ValueError(f"Expected lr > 0, got {self.lr}.")
        if self.weight_decay < 0:
            raise ValueError(f"Expected weight_decay >= 0, got {self.weight_decay}.")
        if self.min_improvement < 0:
            raise ValueError(f"Expected min_improvement >= 0, got {self.min_improvement}.")
        if self.ema_decay is not None and not 0 < self.ema_decay < 1:
            raise ValueError(f"Expected ema_decay in (0, 1), got {self.ema_decay}. Set `ema_decay=None` for none.")
        if self.clip_norm is not None and self.clip_norm <= 0:
            raise ValueError(f"Expected clip_norm > 0, got {self.clip_norm}. Set `clip_norm=None` to switch it off.")
