"""fullrank: an open advertising recommender, from a platform's logs to ranked, priced ads.

What a program needs first is here by name (`fullrank.prepare`, `fullrank.train`, …) and imported when it is asked for,
so that `import fullrank` costs nothing. Everything else is in the room it belongs to (docs/architecture.md).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fullrank import diagnostics, rankers
    from fullrank.data.inputs import Inputs
    from fullrank.data.loader import Loader
    from fullrank.data.partitions import PreparedData
    from fullrank.data.prepare import prepare
    from fullrank.recipes.compare import Recipe, compare
    from fullrank.recipes.daily import continue_run
    from fullrank.recipes.evaluate_run import evaluate_run as evaluate
    from fullrank.recipes.explain import explain
    from fullrank.recipes.recommend import recommend
    from fullrank.recipes.train import load_ranker, predict
    from fullrank.recipes.train import train_ranker as train
    from fullrank.schema import Schema
    from fullrank.training.config import TrainConfig
    from fullrank.training.run import Run

__version__ = "0.1.0"
__all__ = [
    "Inputs",
    "Loader",
    "PreparedData",
    "Recipe",
    "Run",
    "Schema",
    "TrainConfig",
    "compare",
    "continue_run",
    "diagnostics",
    "evaluate",
    "explain",
    "load_ranker",
    "predict",
    "prepare",
    "rankers",
    "recommend",
    "train",
]
_ROOMS = ("diagnostics", "rankers")  # whole, by their names

_HOME = {
    "Inputs": ("fullrank.data.inputs", "Inputs"),
    "Loader": ("fullrank.data.loader", "Loader"),
    "PreparedData": ("fullrank.data.partitions", "PreparedData"),
    "Recipe": ("fullrank.recipes.compare", "Recipe"),
    "Run": ("fullrank.training.run", "Run"),
    "Schema": ("fullrank.schema", "Schema"),
    "TrainConfig": ("fullrank.training.config", "TrainConfig"),
    "compare": ("fullrank.recipes.compare", "compare"),
    "continue_run": ("fullrank.recipes.daily", "continue_run"),
    "evaluate": ("fullrank.recipes.evaluate_run", "evaluate_run"),
    "explain": ("fullrank.recipes.explain", "explain"),
    "load_ranker": ("fullrank.recipes.train", "load_ranker"),
    "predict": ("fullrank.recipes.train", "predict"),
    "prepare": ("fullrank.data.prepare", "prepare"),
    "recommend": ("fullrank.recipes.recommend", "recommend"),
    "train": ("fullrank.recipes.train", "train_ranker"),
}


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return import_module(f"fullrank.{name}")
    if name not in _HOME:
        raise AttributeError(f"module 'fullrank' has no attribute {name!r}; it has {__all__}")
    module, attribute = _HOME[name]
    return getattr(import_module(module), attribute)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
