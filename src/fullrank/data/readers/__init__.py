"""One public format a file. `READERS` is all of them, by the names of the catalogue (`datasets.py`)."""

from __future__ import annotations

from pathlib import Path

from fullrank.data.readers.avazu import Avazu
from fullrank.data.readers.census import Adult, CensusIncome
from fullrank.data.readers.criteo import Criteo
from fullrank.data.readers.frappe import Frappe
from fullrank.data.readers.ipinyou import IPinYou
from fullrank.data.readers.ipinyou_bidding import IPinYouBidding
from fullrank.data.readers.movielens_1m import MovieLens1M
from fullrank.data.readers.movielens_100k import MovieLens100K
from fullrank.data.readers.movielens_latest import MovieLensLatestSmall
from fullrank.data.readers.open_bandit import OpenBandit, OpenBanditMen, OpenBanditWomen
from fullrank.data.readers.public import PublicSource
from fullrank.data.readers.s3rec import AmazonBeauty, AmazonSports, AmazonToys, LastFM
from fullrank.data.readers.tabular import TabularSource
from fullrank.data.readers.talkingdata import TalkingData
from fullrank.schema import did_you_mean

__all__ = [
    "READERS",
    "Adult",
    "AmazonBeauty",
    "AmazonSports",
    "AmazonToys",
    "Avazu",
    "CensusIncome",
    "Criteo",
    "Frappe",
    "IPinYou",
    "IPinYouBidding",
    "LastFM",
    "MovieLens1M",
    "MovieLens100K",
    "MovieLensLatestSmall",
    "OpenBandit",
    "OpenBanditMen",
    "OpenBanditWomen",
    "PublicSource",
    "TabularSource",
    "TalkingData",
    "open_public",
]

READERS = (
    MovieLens100K,
    MovieLensLatestSmall,
    MovieLens1M,
    Frappe,
    Criteo,
    Avazu,
    TalkingData,
    IPinYou,
    IPinYouBidding,
    OpenBandit,
    OpenBanditMen,
    OpenBanditWomen,
    AmazonBeauty,
    AmazonToys,
    AmazonSports,
    LastFM,
    Adult,
    CensusIncome,
)


def open_public(name: str, path: Path) -> PublicSource:
    """The public set `name` (as in `READERS` and the catalogue) from where it was found (`fetch.locate`, `get`)."""
    named = {reader.NAME: reader for reader in READERS}
    if name not in named:
        raise ValueError(f"Expected one of {list(named)}, got {name!r}.{did_you_mean(name, list(named))}")
    return named[name](path)
