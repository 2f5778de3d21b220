"""Random numbers of the simulator: each is a function of (seed, stream, index), so nothing is drawn in sequence."""

from __future__ import annotations

import numpy as np

from fullrank.data.keys import splitmix64


def bits(seed: int, stream: str, index: np.ndarray) -> np.ndarray:
    """64 random bits for each index: uint64, the same for the same (seed, stream, index) wherever they are asked."""
    base = splitmix64(np.array([seed & (2**64 - 1)], dtype=np.uint64))
    for letter in stream.encode():
        base = splitmix64(base ^ np.uint64(letter))
    return splitmix64(splitmix64(np.asarray(index, dtype=np.uint64) ^ base))


def uniform(seed: int, stream: str, index: np.ndarray) -> np.ndarray:
    """Uniform on (0, 1), both ends left out."""
    return ((bits(seed, stream, index) >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53


def normal(seed: int, stream: str, index: np.ndarray) -> np.ndarray:
    """Standard normal, by Box and Muller's transform."""
    radius = np.sqrt(-2.0 * np.log(uniform(seed, stream + ".radius", index)))
    return radius * np.cos(2.0 * np.pi * uniform(seed, stream + ".angle", index))


def normals(seed: int, stream: str, *shape: int) -> np.ndarray:
    """An array of standard normals."""
    return normal(seed, stream, np.arange(int(np.prod(shape)))).reshape(shape)


def below(seed: int, stream: str, index: np.ndarray, count: int) -> np.ndarray:
    """Uniform integers in [0, count)."""
    return (uniform(seed, stream, index) * count).astype(np.int64)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1.0 / (1.0 + np.exp(-x))
