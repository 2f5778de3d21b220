"""Ranks along the layers of trained deep stacks: does mixing raise them and the network lower them, less with depth?"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from statistics import fmean
from typing import Any

from stored import Lines, plus_minus

from fullrank.evaluation.paired import spread

FORMS = {"sample": "a row's tokens", "token": "a token over rows"}
READ = """Ranks along the layers of the deepest stacks, as shares of what they could be. RankElastor's and RankUp's
papers see a damped oscillation in RankMixer: mixing raises the rank of a row's tokens, the network lowers it, and both
do so less with every layer; RankElastor's mixing and gated networks shall keep it up. *swing*: half of what mixing
raises and the network lowers in a layer, in hundredths (below 0: the other way round), without the first layer, where
tokens begin."""


def shares(line: dict[str, Any], form: str) -> list[tuple[float, float]]:
    """Of each layer the rank behind its mixing and behind its network, before them those of the tokens (twice)."""
    of_point = {name: rank / most for name, (rank, most) in points(line, form)}
    start = of_point["tokens"]
    layers = sum(name.endswith(".mix") for name in of_point)
    return [(start, start), *((of_point[f"layers.{n}.mix"], of_point[f"layers.{n}.ffn"]) for n in range(layers))]


def points(line: dict[str, Any], form: str) -> Iterator[tuple[str, tuple[float, int]]]:
    yield from ((name, ranks[form]) for name, ranks in line["ranks"].items() if form in ranks)


def of_run(line: dict[str, Any], form: str) -> dict[str, float]:
    found = shares(line, form)
    layers = len(found) - 1
    steps = [(mix - before, ffn - mix) for (_, before), (mix, ffn) in pairwise(found)]
    swings = [100 * (up - down) / 2 for up, down in steps]
    half, quarter = layers // 2, layers // 4
    middle = found[1 + quarter : 1 + layers - quarter]
    return {
        f"mixing raises, of {layers}": sum(up > 0 for up, _ in steps),
        f"network lowers, of {layers}": sum(down < 0 for _, down in steps),
        f"swing, layers 2–{half}": fmean(swings[1:half]),
        f"swing, {half + 1}–{layers}": fmean(swings[half:]),
        f"rank, layers {1 + quarter}–{layers - quarter}": fmean(ffn for _, ffn in middle),
        "rank, last": found[-1][1],
    }


def rows(lines: Lines, data: str, systems: tuple[str, ...], layers: int = 8) -> list[dict[str, str]]:
    """A row a system and form, of what was run; mean ± sd over seeds."""
    made = []
    for form, says in FORMS.items():
        for system in systems:
            of_each = [of_run(line, form) for line in lines.of(data, f"{system}, {layers} layers", "depth")]
            if of_each:
                row = {"of": says, "recipe": f"{system}, {layers} layers", "seeds": str(len(of_each))}
                for name in of_each[0]:
                    digits = 1 if "of" in name or "swing" in name else 2
                    row[name] = plus_minus(spread([one[name] for one in of_each]), digits)
                made.append(row)
    return made
