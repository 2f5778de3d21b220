"""How the flat concatenation of field vectors becomes T tokens: the choice, and what it builds."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from hashlib import blake2b
from typing import Literal, get_args

from fullrank.features.tokenizer_modes import (
    AutoTokenizer,
    ChunkTokenizer,
    FieldTokenizer,
    GroupTokenizer,
    PerTokenNorm,
)
from fullrank.schema import did_you_mean

__all__ = [
    "AutoTokenizer",
    "ChunkTokenizer",
    "FieldTokenizer",
    "GroupTokenizer",
    "PerTokenNorm",
    "Tokenizer",
    "TokenizerConfig",
    "TokenizerMode",
    "permuted_groups",
]

TokenizerMode = Literal["field", "chunk", "semantic", "permuted", "auto"]
Tokenizer = FieldTokenizer | ChunkTokenizer | GroupTokenizer | AutoTokenizer


@dataclass(frozen=True, kw_only=True)
class TokenizerConfig:
    """Which fields make a token.

    * `field`: one token per field; `num_tokens` is None.
    * `chunk`: the flat concatenation cut in `num_tokens` equal segments, wherever fields end.
    * `semantic`: `groups` of field names, a token each, every field in one of them; `num_tokens` is None. A pooled
      history's fields are named `HISTORY.FIELD`. From Python alone: a command line does not say where a group ends.
    * `permuted`: the fields shuffled by `permutation_seed`, then cut in `num_tokens` groups whose sizes differ by one
      at most. The order is a function of this seed and the number of fields alone: the same in every run that has
      this config, whatever its own seed.
    * `auto`: each of `num_tokens` tokens reads all fields.

    `norm` adds one LayerNorm per token.
    """

    mode: TokenizerMode = "chunk"
    num_tokens: int | None = None
    token_width: int
    norm: bool = False
    groups: tuple[tuple[str, ...], ...] = ()
    permutation_seed: int = 0

    def __post_init__(self) -> None:
        choices = get_args(TokenizerMode)
        if self.mode not in choices:
            near = did_you_mean(self.mode, choices)
            raise ValueError(f"Expected tokenizer mode to be one of {choices}, got {self.mode!r}.{near}")
        if self.token_width < 1:
            raise ValueError(f"Expected token_width >= 1, got {self.token_width}.")
        counted = self.mode in ("chunk", "permuted", "auto")
        if counted and (self.num_tokens is None or self.num_tokens < 1):
            raise ValueError(f"Expected num_tokens >= 1 for the {self.mode} tokenizer, got {self.num_tokens}.")
        if self.mode == "semantic":
            self._check_groups()
        elif self.groups:
            raise ValueError(f"Groups of fields belong to mode 'semantic', got them with {self.mode!r}. Drop one.")
        if self.permutation_seed and self.mode != "permuted":
            raise ValueError(f"A permutation_seed belongs to mode 'permuted', got it with {self.mode!r}. Drop it.")

    def build(self, field_widths: tuple[int, ...], field_names: tuple[str, ...] = ()) -> Tokenizer:
        """The tokenizer of fields of these widths, whose concatenation is its input; `semantic` needs their names."""
        width, norm = self.token_width, self.norm
        if self.mode == "semantic":
            return GroupTokenizer(field_widths, self._positions(field_names), width, norm)
        if self.mode == "field":
            if self.num_tokens not in (None, len(field_widths)):
                raise ValueError(
                    f"The field tokenizer makes one token per field: expected num_tokens {len(field_widths)} or None, "
                    f"got {self.num_tokens}. Leave it out, or use mode='chunk'."
                )
            return FieldTokenizer(field_widths, width, norm)
        assert self.num_tokens is not None  # held by __post_init__; says so to the type checker
        if self.mode == "permuted":
            groups = permuted_groups(len(field_widths), self.num_tokens, self.permutation_seed)
            return GroupTokenizer(field_widths, groups, width, norm)
        mode = AutoTokenizer if self.mode == "auto" else ChunkTokenizer
        return mode(sum(field_widths), self.num_tokens, width, norm)

    def _check_groups(self) -> None:
        if not self.groups or not all(self.groups):
            raise ValueError(f"Expected groups of at least one field for the semantic tokenizer, got {self.groups}.")
        if self.num_tokens not in (None, len(self.groups)):
            raise ValueError(
                f"The semantic tokenizer makes one token per group: expected num_tokens {len(self.groups)} or None, "
                f"got {self.num_tokens}. Leave it out."
            )
        names = [name for group in self.groups for name in group]
        twice = [name for name in names if names.count(name) > 1]
        if twice:
            raise ValueError(f"Expected every field in one group, got {twice[0]!r} {names.count(twice[0])} times.")

    def _positions(self, field_names: tuple[str, ...]) -> list[list[int]]:
        """The groups as positions of fields."""
        grouped = [name for group in self.groups for name in group]
        for name in grouped:
            if name not in field_names:
                near = did_you_mean(name, field_names)
                raise ValueError(f"No field {name!r} to group; the fields are {list(field_names)}.{near}")
        left = [name for name in field_names if name not in grouped]
        if left:
            raise ValueError(f"Expected every field in a group, got none for {left}. Add them, or exclude them.")
        return [[field_names.index(name) for name in group] for group in self.groups]


def permuted_groups(num_fields: int, num_groups: int, seed: int) -> list[list[int]]:
    """The fields 0, 1, … in an order drawn by `seed`, cut in `num_groups` groups; the first ones have one more.

    The order is that of a hash of (seed, field), so no release of a random number library can change it: a permutation
    drawn anew for a loaded model would destroy it without a sound. RankUp, arXiv:2604.17878, section on randomised
    permutation splitting, does not say how it draws: our choice.
    """
    if num_groups > num_fields:
        raise ValueError(
            f"The permuted tokenizer gives every token a field: expected num_tokens of at most {num_fields} (the "
            f"fields), got {num_groups}."
        )
    order = sorted(range(num_fields), key=lambda field: blake2b(f"{seed}/{field}".encode()).digest())
    small, more = divmod(num_fields, num_groups)
    starts = [group * small + min(group, more) for group in range(num_groups + 1)]
    return [order[start:end] for start, end in itertools.pairwise(starts)]
