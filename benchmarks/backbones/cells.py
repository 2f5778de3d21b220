"""The cells of the grid: which recipe runs on which set with which seeds, for which figure."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from hashlib import blake2b
from typing import Any

from worlds import WORLDS, World

import recipes
from fullrank.config_json import encode

SEEDS = 5
BATCH = 1024
FIGURES = ("ffn", "mixing", "streams", "tokens", "parts", "core", "depth", "peers")  # what answers a claim first


@dataclass(frozen=True, kw_only=True)
class Cell:
    """`fields`: whether the model sees the request's own."""

    figure: str
    recipe: str
    config: Any
    world: World
    seed: int
    fields: bool = True

    @cached_property
    def digest(self) -> str:
        """Of all that a run goes by but its seed: cells of two figures may be one, and a line of a recipe as it was
        once is no line of the recipe as it is."""
        world = {name: value for name, value in asdict(self.world).items() if name != "make"}
        told = [type(self.config).__qualname__, encode(self.config), world, self.fields, BATCH]
        return blake2b(json.dumps(told, sort_keys=True).encode(), digest_size=6).hexdigest()

    @property
    def key(self) -> tuple[str, str, int]:
        return self.world.name, self.digest, self.seed


def named(figure: str) -> list[tuple[World, recipes.Recipes, int]]:
    """The sets, recipes and number of seeds of a figure."""
    suites = {name: (WORLDS[name], suite) for name, suite in recipes.SUITES.items()}
    whole, quarter, simulated = (suites[name] for name in ("movielens-1m", "movielens-1m/4", "simulated"))
    if figure == "core":
        frappe, of_frappe = suites["frappe"]
        fields = {name: of_frappe.core()[name] for name in recipes.OF_FIELDS}
        return [*((world, suite.core(), SEEDS) for world, suite in (quarter, simulated)), (frappe, fields, SEEDS)]
    if figure in ("ffn", "mixing"):
        return [(world, getattr(suite, figure)(), SEEDS) for world, suite in (whole, simulated)]
    if figure == "streams":
        return [(world, suite.streams(), SEEDS) for world, suite in (quarter, simulated)]
    if figure == "peers":
        return [(world, suite.peers(), 3) for world, suite in (quarter, simulated)]
    if figure == "small":
        small, suite = suites["small"]
        return [(small, {**suite.core(), **suite.peers(), **suite.streams()}, 1)]
    movielens, suite = whole
    of_movielens = {"tokens": (suite.tokens(), SEEDS), "parts": (suite.parts(), SEEDS), "depth": (suite.depths(), 3)}
    return [(movielens, *of_movielens[figure])]


def cells(figures: tuple[str, ...] = FIGURES) -> Iterator[Cell]:
    """Seed by seed, so that a grid that is stopped has all recipes of the seeds it has; the same run is named again
    by every figure that shows it."""
    for figure in figures:
        for world, every, seeds in named(figure):
            for seed in range(seeds):
                for recipe, config in every.items():
                    fields = recipe != recipes.WITHOUT_FIELDS
                    yield Cell(figure=figure, recipe=recipe, config=config, world=world, seed=seed, fields=fields)
