"""Random search with successive halving: many short tries, of which the better ones go on."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

from torch import nn

from fullrank.config_json import encode
from fullrank.data.inputs import Inputs
from fullrank.data.partitions import PreparedData
from fullrank.recipes.compare import Recipe
from fullrank.recipes.search_space import Choice, Dimension, Range, replaced, value_at
from fullrank.recipes.train import train_ranker
from fullrank.recipes.validation import scores_of
from fullrank.schema import did_you_mean
from fullrank.training.callbacks import Callback, TaskMetrics
from fullrank.training.learning_curve import compute_learning_curve
from fullrank.training.loop import TrainingError
from fullrank.training.run import Run
from fullrank.training.watch import value_of

DIVERGED = "diverged"  # a trial whose loss was not finite: over, while other failed ones were only stopped
DEFAULT_SPACE: dict[str, Dimension] = {
    "training.lr": Range(low=3e-4, high=1e-2, log=True),
    "ranker.embedding.optimizer.lr": Range(low=3e-3, high=1e-1, log=True),
    "ranker.embedding.width": Choice(values=(8, 16, 32)),
    "ranker.dropout": Choice(values=(0.0, 0.1, 0.2, 0.3)),
}


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One try: what was drawn, the validation metric after every epoch it lived, and whether it was given up."""

    number: int
    params: dict[str, Any]
    values: tuple[float, ...]
    given_up: bool
    run: str


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """All trials in order; `best` is the finished one with the best last value of `metric`."""

    metric: str
    trials: tuple[Trial, ...]
    best: Trial


def default_space(recipe: Recipe) -> dict[str, Dimension]:
    """Learning rates, embedding width and dropout, as far as the ranker has them (ranges are our choice)."""
    there = {}
    for path, dimension in DEFAULT_SPACE.items():
        try:
            value_at(recipe, path)
        except ValueError:
            continue
        there[path] = dimension
    return there


def tune(
    recipe: Recipe,
    space: Mapping[str, Dimension],
    data: PreparedData,
    out: Path | str,
    *,
    metric: str,
    trials: int = 20,
    seed: int = 0,
    how_to_resume: str = "",
    say: Callable[[str], None] = lambda words: print(words, file=sys.stderr),
) -> Tuning:
    """Draw settings at random from `space`, train each, and give up those that fall behind.

    Successive halving (Jamieson & Talwalkar 2016, arXiv:1502.07943), asynchronous: at 1, 3, 9, … epochs a trial goes
    on only if it is in the best third of the trials that came so far. `recipe.training.epochs` is the most a trial
    gets, validated after every epoch. A trial's run is `out/trials/…`; the same call again keeps the trials that are
    there and takes up the one that was interrupted.

    Args:
        space: dotted path from the recipe (`training.lr`, `ranker.embedding.width`) to what it may be.
        metric: `TASK.METRIC` of the validation rows (`click.auc`), one that says good or bad by itself (`scores_of`).

    The best value is the best of many looks at the validation rows, so it is optimistic: quote the test rows, over
    several seeds (`compare`). For few trials in many dimensions, random search finds little: narrow the space.
    """
    try:
        import optuna
        from optuna.storages.journal import JournalFileBackend
    except ImportError as error:
        raise ValueError('Tuning needs Optuna: pip install "fullrank[tune]"') from error
    if data.num_rows("valid") == 0:
        raise ValueError(f"Expected {data.folder} to have validation rows, got none: prepare it with a split that has.")
    for path, dimension in space.items():
        for value in dimension.values if isinstance(dimension, Choice) else (dimension.low, dimension.high):
            tried = replaced(recipe, path, value)
            for config in (tried.ranker, tried.training):
                encode(config)  # raises where the value is not of the type declared
    scores = scores_of(Inputs.of(data.schema, exclude=recipe.exclude).tasks)
    if metric not in scores:
        near = did_you_mean(metric, list(scores))
        raise ValueError(f"Expected a metric of the validation rows, one of {', '.join(scores)}, got {metric!r}.{near}")
    task, _, name = metric.rpartition(".")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    dimensions = (f"{path}: {dimension}" for path, dimension in space.items())
    _same_search(out / "search.txt", "\n".join((metric, str(recipe), f"seed {seed}", str(data.state), *dimensions)))
    journal = JournalFileBackend(str(out / "trials.jsonl"))
    study = optuna.create_study(
        study_name="tune",
        storage=optuna.storages.JournalStorage(journal),
        direction="minimize" if scores[metric] == "lower" else "maximize",
        pruner=optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=3),
        load_if_exists=True,
    )
    states = optuna.trial.TrialState
    for trial in study.get_trials(states=(states.RUNNING,)):  # a kill left it
        study.tell(trial.number, state=states.FAIL)
    over = [trial.params for trial in study.trials if trial.state.is_finished() and not _was_stopped(trial)]
    for trial in filter(_was_stopped, study.trials):
        if trial.params not in over:  # the same draw again, in the same folder: its run goes on where it was
            study.enqueue_trial(trial.params)
            over.append(trial.params)
    study.sampler = optuna.samplers.RandomSampler(seed=seed + len(study.trials))  # other draws than those there

    def run_of(params: Mapping[str, Any]) -> Path:
        return out / "trials" / blake2b(repr(sorted(params.items())).encode(), digest_size=6).hexdigest()

    def objective(trial: optuna.Trial) -> float:
        tried = recipe
        for path, dimension in space.items():
            tried = replaced(tried, path, _drawn(trial, path, dimension))
        say(f"trial {trial.number}: {_words(trial.params.items())}")
        watch = _Watch(trial, metric, scores, tried.training.epochs)
        for value in _values_seen(run_of(trial.params), metric):
            watch.report(value)
        try:
            trained = train_ranker(
                tried.ranker,
                data,
                run_of(trial.params),
                replace(tried.training, seed=seed, validate_every_epochs=1, validate_every_steps=None),
                seed=seed,
                last_n=tried.last_n,
                exclude=tried.exclude,
                objective=tried.objective,
                callbacks=[watch],
                how_to_resume=how_to_resume,
            )
        except TrainingError as error:
            trial.set_user_attr(DIVERGED, True)
            say(f"trial {trial.number} is over: {error}")
            raise
        if not trained.result.finished:
            raise KeyboardInterrupt
        value = trained.result.valid[task][name]
        return float("nan") if value is None else float(value)

    done = len(study.get_trials(states=(states.COMPLETE, states.PRUNED)))
    study.optimize(objective, n_trials=max(0, trials - done), catch=(TrainingError,))  # a rate too high: the next one
    if not study.get_trials(states=(states.COMPLETE,)):
        raise ValueError(f"Expected a trial of {out} that came to its end, got none: search lower learning rates.")
    found = tuple(
        Trial(
            number=number,
            params=trial.params,
            values=tuple(trial.intermediate_values.values()) or (() if trial.value is None else (trial.value,)),
            given_up=trial.state == states.PRUNED,
            run=str(run_of(trial.params)),
        )
        for number, trial in enumerate(study.get_trials(states=(states.COMPLETE, states.PRUNED)))
    )
    best = run_of(study.best_trial.params)
    return Tuning(metric=metric, trials=found, best=next(trial for trial in found if trial.run == str(best)))


class _Watch(Callback):
    """Tells the study each epoch's value and ends the trial when it is given up."""

    def __init__(self, trial: Any, metric: str, scores: Iterable[str], last: int) -> None:
        self.trial, self.metric, self.scores = trial, metric, scores
        self.epochs, self.last = 0, last

    def report(self, value: float) -> None:
        self.epochs += 1
        self.trial.report(value, self.epochs)

    def on_validate(self, ranker: nn.Module, step: int, metrics: TaskMetrics) -> None:
        import optuna

        self.report(value_of(metrics, self.metric, self.scores))
        if self.epochs < self.last and self.trial.should_prune():
            raise optuna.TrialPruned


def _was_stopped(trial: Any) -> bool:
    return trial.state.name == "FAIL" and bool(trial.params) and DIVERGED not in trial.user_attrs


def _same_search(file: Path, search: str) -> None:
    """Trials of one folder are draws of one search: another one needs its own."""
    if file.exists() and file.read_text(encoding="utf-8") != search:
        raise ValueError(f"{file.parent} holds another search ({file.name} says which). Give this one its own folder.")
    file.write_text(search, encoding="utf-8")


def _values_seen(path: Path, metric: str) -> list[float]:
    """What an interrupted trial was worth after each epoch it has validated: a checkpoint at an epoch's end is older
    than its validation."""
    if not (path / "run.json").exists() or (checkpoint := Run.open(path).latest_checkpoint()) is None:
        return []
    task, _, name = metric.rpartition(".")
    epochs = checkpoint.position.epoch - (checkpoint.position.row == 0)
    return compute_learning_curve(path, task, name).valid[:epochs].tolist()


def _drawn(trial: Any, path: str, dimension: Dimension) -> Any:
    if isinstance(dimension, Choice):
        return trial.suggest_categorical(path, list(dimension.values))
    return trial.suggest_float(path, dimension.low, dimension.high, log=dimension.log)


def _words(params: Iterable[tuple[str, Any]]) -> str:
    return ", ".join(f"{path} {value:.3g}" if isinstance(value, float) else f"{path} {value}" for path, value in params)
