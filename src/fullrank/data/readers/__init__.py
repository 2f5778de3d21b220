"""One public format a file. `READERS` is all of them, by the names of the catalogue (`datasets.py`)."""

from __future__ import annotations

from pathlib import Path

from fullrank.data.readers.criteo import Criteo
from fullrank.data.readers.movielens_1m import MovieLens1M
from fullrank.data.readers.movielens_100k import MovieLens100K
from fullrank.data.readers.movielens_latest import MovieLensLatestSmall
from fullrank.data.readers.tabular import TabularSource
from fullrank.data.source import LogSource
from fullrank.schema import did_you_mean

__all__ = ["READERS", "Criteo", "MovieLens1M", "MovieLens100K", "MovieLensLatestSmall", "TabularSource", "open_public"]

READERS = (MovieLens100K, MovieLensLatestSmall, MovieLens1M, Criteo)


def open_public(name: str, path: Path) -> LogSource:
    """The public set `name` (as in `READERS` and the catalogue) from where it was found (`fetch.locate`, `get`)."""
    named = {reader.NAME: reader for reader in READERS}
    if name not in named:
        raise ValueError(f"Expected one of {list(named)}, got {name!r}.{did_you_mean(name, list(named))}")
    return named[name](path)
