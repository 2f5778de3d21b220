"""What rankers compute on: a stream of tokens of one width, each of a known kind."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

TokenKind = Literal["field", "event", "global", "task", "item"]


@dataclass(frozen=True)
class Tokens:
    """`x_BTD`, the kind of each of the T tokens, and `mask_BT` (bool, True: the token is there; None: all are)."""

    x_BTD: Tensor
    kinds: tuple[TokenKind, ...]
    mask_BT: Tensor | None = None
