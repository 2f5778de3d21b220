"""One seed for a run, and a seed of its own for everything in it that draws."""

from __future__ import annotations

from hashlib import blake2b


def derive_seed(seed: int, *names: str) -> int:
    """A seed in [0, 2^63) that is a function of (seed, names) alone, on every machine.

    Two purposes never share a stream by accident, as they would with `seed` and `seed + 1`.
    """
    text = "\0".join([str(seed), *names])
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "little") >> 1
