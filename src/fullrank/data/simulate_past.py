"""What users saw and clicked before, and what it does to their next click.

The past is that of the log itself: a request is decided with the state that the same user's earlier requests left, so
the log has to be made in the order of time. Requests of different users don't touch each other: those of a chunk are
done in rounds, the first of every user, then the second, and so on.

State a user: 16 bytes for `sequence`, 8 for `last_event`, 2 a category for `repeated_exposure`;
none for what is absent.
A request in the same second as an earlier one of its user knows of it already; a history shows it only later.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fullrank.data.simulate_config import PAST, Effects
from fullrank.data.simulate_draws import normals, sigmoid
from fullrank.data.simulate_effects import RANK, interaction
from fullrank.data.simulate_world import FORMATS

DECAY = 0.7  # the weight of a click against that of the next one
TIRING = 4.0  # showings that take half of what fatigue can take


@dataclass(frozen=True)
class PastEffects:
    """Contributions at strength 1 of n rows, float32: what `Effects` says of each; zeros where it is absent."""

    sequence: np.ndarray
    last_event: np.ndarray
    repeated_exposure: np.ndarray

    @staticmethod
    def none(rows: int) -> PastEffects:
        return PastEffects(*(np.zeros(rows, dtype=np.float32) for _ in PAST))

    def logit(self, effects: Effects) -> np.ndarray:
        """Their sum, each at its strength."""
        total = np.zeros(len(self.sequence))
        for name in PAST:
            if getattr(effects, name):
                total += getattr(effects, name) * getattr(self, name)
        return total


def affinity_vectors(seed: int, categories: int) -> np.ndarray:
    """[category, RANK] float32: their inner products have mean 0 along each axis and standard deviation 1."""
    vectors = normals(seed, "affinity", categories, RANK)
    vectors -= vectors.mean(axis=0)
    spread = (vectors @ vectors.T).std()
    return (vectors / np.sqrt(spread) if spread > 1e-9 else vectors).astype(np.float32)


class Past:
    """The state of every user: a decayed sum of the vectors of clicked categories (`interest_UK`), the category + 1 of
    the last click on each format (`last_UF`, 0: none), and how often each category was shown (`shown_UC`). Only what
    an effect reads is kept."""

    def __init__(self, seed: int, users: int, categories: int, active: frozenset[str]) -> None:
        self._active = active
        self._vectors = affinity_vectors(seed, categories)
        followers = interaction(seed, "last event", categories, categories)
        self._after = np.concatenate([np.zeros((1, categories)), followers]).astype(np.float32)
        self.interest_UK = np.zeros((users if "sequence" in active else 0, RANK), dtype=np.float32)
        self.last_UF = np.zeros((users if "last_event" in active else 0, FORMATS), dtype=np.int16)
        self.shown_UC = np.zeros((users if "repeated_exposure" in active else 0, categories), dtype=np.uint16)

    def copy(self) -> Past:
        twin = object.__new__(Past)
        twin.__dict__.update(self.__dict__)
        for name in ("interest_UK", "last_UF", "shown_UC"):
            setattr(twin, name, getattr(self, name).copy())
        return twin

    def go(
        self,
        user_R: np.ndarray,
        category_RS: np.ndarray,
        format_RS: np.ndarray,
        logit_RS: np.ndarray,
        look_RS: np.ndarray,
        draw_RS: np.ndarray,
        click: Effects,
    ) -> PastEffects:
        """Decide R requests of S slots one after another: what their past contributes to every row (flat), and the
        state after them. A row is clicked where `draw` < look · σ(logit + what `click` makes of the past)."""
        effects = PastEffects.none(category_RS.size)
        for part in rounds(user_R):
            user, category, kind = user_R[part], category_RS[part], format_RS[part]
            now = self._contributions(user, category, kind)
            for name, values in now.items():
                getattr(effects, name).reshape(category_RS.shape)[part] = values
            logit = logit_RS[part]
            for name, values in now.items():
                logit = logit + getattr(click, name) * values
            self._remember(user, category, kind, draw_RS[part] < look_RS[part] * sigmoid(logit))
        return effects

    def _contributions(self, user: np.ndarray, category: np.ndarray, kind: np.ndarray) -> dict[str, np.ndarray]:
        found = {}
        if "sequence" in self._active:
            interest = self.interest_UK[user]
            total = np.zeros(category.shape, dtype=np.float32)
            for k in range(RANK):  # one term after another: a sum whose rounding doesn't depend on the round's size
                total += interest[:, k, None] * self._vectors[:, k][category]
            found["sequence"] = total
        if "last_event" in self._active:
            found["last_event"] = self._after[self.last_UF[user[:, None], kind], category]
        if "repeated_exposure" in self._active:
            count = self.shown_UC[user[:, None], category].astype(np.float32)
            found["repeated_exposure"] = -count / (count + np.float32(TIRING))
        return found

    def _remember(self, user: np.ndarray, category: np.ndarray, kind: np.ndarray, clicked: np.ndarray) -> None:
        for slot in range(category.shape[1]):  # users differ within a round, so no place is written twice in a slot
            if "repeated_exposure" in self._active:
                count = self.shown_UC[user, category[:, slot]]
                self.shown_UC[user, category[:, slot]] = count + (count < np.iinfo(np.uint16).max)
            hit = np.flatnonzero(clicked[:, slot])
            if "sequence" in self._active:
                newest = np.float32(1.0 - DECAY) * self._vectors[category[hit, slot]]
                self.interest_UK[user[hit]] = np.float32(DECAY) * self.interest_UK[user[hit]] + newest
            if "last_event" in self._active:
                self.last_UF[user[hit], kind[hit, slot]] = category[hit, slot] + 1


def rounds(user: np.ndarray) -> list[np.ndarray]:
    """The places 0 … n - 1 in groups: the first of every user, the second of every user, …, each in ascending order."""
    order = np.argsort(user, kind="stable")
    starts = np.flatnonzero(np.concatenate([[True], np.diff(user[order]) != 0])) if len(user) else np.zeros(0, int)
    sizes = np.diff(np.append(starts, len(user)))
    turn = np.empty(len(user), dtype=np.int64)
    turn[order] = np.arange(len(user)) - np.repeat(starts, sizes)
    by_turn = np.argsort(turn, kind="stable")
    return np.split(by_turn, np.cumsum(np.bincount(turn))[:-1]) if len(user) else []
