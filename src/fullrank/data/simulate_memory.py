"""What rows owe to rows before them, in the two ways a log is read: in the order of time, or in any order.

`Living` is the state as it moves through the log; it decides requests that come in their order, once. `Recorded` is
what a living memory decided of a period, kept by row, so that the period's requests can be asked for in any order.
`Nothing` is for logs in which no row owes anything to another.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from fullrank.data.simulate_auction import Purse
from fullrank.data.simulate_config import PAST, SimulatorConfig
from fullrank.data.simulate_past import Past, PastEffects


@dataclass(frozen=True)
class Undecided:
    """R requests with their B rows before anybody clicked; `row` numbers the rows of the log."""

    row: np.ndarray
    user_R: np.ndarray
    category: np.ndarray
    format: np.ndarray
    logit: np.ndarray
    look: np.ndarray
    draw: np.ndarray


class Memory(Protocol):
    def out(self, request: np.ndarray, day: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Which campaigns may not bid, [moments, campaigns], and the moment of each request."""
        ...

    def past(self, rows: Undecided) -> PastEffects:
        """What the users' past contributes to the rows."""
        ...

    def settle(self, campaign: np.ndarray, price: np.ndarray) -> None:
        """What the clicks on the rows cost is spent."""
        ...


class Nothing:
    """The memory of a log without memory."""

    def __init__(self, config: SimulatorConfig) -> None:
        self._open = np.zeros((1, config.campaigns), dtype=bool)

    def out(self, request: np.ndarray, day: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self._open, np.zeros(len(request), dtype=np.int64)

    def past(self, rows: Undecided) -> PastEffects:
        return PastEffects.none(len(rows.row))

    def settle(self, campaign: np.ndarray, price: np.ndarray) -> None:
        pass


class Living:
    """The state before a request; asked about requests in order, it becomes the state after them."""

    def __init__(self, config: SimulatorConfig, users: int) -> None:
        used = {name for name in PAST if getattr(config.click, name) or getattr(config.conversion, name)}
        self._config = config
        self._past = Past(config.seed, users, config.categories, frozenset(used)) if used else None
        budget = config.auction.budget
        self._purse = Purse.of(config.seed, config.campaigns, budget) if budget else None
        self._nothing = Nothing(config)

    def copy(self) -> Living:
        twin = object.__new__(Living)
        twin.__dict__.update(self.__dict__)
        twin._past = self._past and self._past.copy()
        twin._purse = self._purse and Purse(self._purse.budget, self._purse.spent.copy(), self._purse.day)
        return twin

    def out(self, request: np.ndarray, day: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if self._purse is None:
            return self._nothing.out(request, day)
        return self._purse.out_on(int(day[0]))[None], np.zeros(len(request), dtype=np.int64)

    def past(self, rows: Undecided) -> PastEffects:
        if self._past is None:
            return PastEffects.none(len(rows.row))
        shape = (len(rows.user_R), self._config.slots)

        def whole(values: np.ndarray, fill: float = 0) -> np.ndarray:
            """The log's last request may be short: rows nobody clicks make it whole, and nothing comes after them."""
            missing = np.full(shape[0] * shape[1] - len(values), fill, dtype=values.dtype)
            return np.concatenate([values, missing]).reshape(shape)

        effects = self._past.go(
            rows.user_R,
            whole(rows.category),
            whole(rows.format),
            whole(rows.logit),
            whole(rows.look),
            whole(rows.draw, 2.0),
            self._config.click,
        )
        return PastEffects(**{name: getattr(effects, name)[: len(rows.row)] for name in PAST})

    def settle(self, campaign: np.ndarray, price: np.ndarray) -> None:
        if self._purse is not None:
            self._purse.settle(campaign, price)


class Recorded:
    """What a living memory decided of `rows` rows from row `first` on: 12 bytes a row, and a bit for every campaign
    and settlement of budgets."""

    def __init__(self, first: int, rows: int) -> None:
        self._first = first
        self._effects = PastEffects.none(rows)
        self._begins: list[int] = []
        self._outs: list[np.ndarray] = []

    def add(self, request: np.ndarray, out: np.ndarray, row: np.ndarray, past: PastEffects) -> None:
        """The next requests: the state of budgets they began with, and what their past contributes."""
        if not self._outs or not np.array_equal(self._outs[-1], out):
            self._begins.append(int(request[0]))
            self._outs.append(out)
        for name in PAST:
            getattr(self._effects, name)[row - self._first] = getattr(past, name)

    def out(self, request: np.ndarray, day: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.concatenate(self._outs), np.searchsorted(self._begins, request, side="right") - 1

    def past(self, rows: Undecided) -> PastEffects:
        return PastEffects(**{name: getattr(self._effects, name)[rows.row - self._first] for name in PAST})

    def settle(self, campaign: np.ndarray, price: np.ndarray) -> None:
        pass
