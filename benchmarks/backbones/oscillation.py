"""Ranks along the layers of trained deep stacks: does mixing raise them and the network lower them, less with depth?"""

from __future__ import annotations

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


def along(line: dict[str, Any], form: str) -> dict[str, float]:
    """The share of what it could be, of the tokens and then behind each layer's mixing and network, in their order."""
    return {name: ranks[form][0] / ranks[form][1] for name, ranks in line["ranks"].items() if form in ranks}


def of_run(line: dict[str, Any], form: str) -> dict[str, float]:
    found = list(along(line, form).values())
    mixed, fed = found[1::2], found[2::2]
    layers = len(fed)
    steps = [(mix - before, ffn - mix) for before, mix, ffn in zip(found[::2], mixed, fed, strict=False)]
    swings = [100 * (up - down) / 2 for up, down in steps]
    half, quarter = layers // 2, layers // 4
    return {
        f"mixing raises, of {layers}": sum(up > 0 for up, _ in steps),
        f"network lowers, of {layers}": sum(down < 0 for _, down in steps),
        f"swing, layers 2–{half}": fmean(swings[1:half]),
        f"swing, {half + 1}–{layers}": fmean(swings[half:]),
        f"rank, layers {1 + quarter}–{layers - quarter}": fmean(fed[quarter : layers - quarter]),
        "rank, last": fed[-1],
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
