"""The catalogue of public sets: where each is at home, what its files are called, and on what terms it may be used.

No set is part of this package. A checksum is given only where it was computed from the file itself; where there is
none, `get` says "not verified".
"""

from __future__ import annotations

from dataclasses import dataclass

from fullrank.schema import did_you_mean

_GROUPLENS = (
    "GroupLens, University of Minnesota: for research; acknowledge it in publications ({paper}); no endorsement may "
    "be implied; no commercial use without permission; {share}."
)
_PAPER = "Harper and Konstan, The MovieLens Datasets: History and Context, ACM TiiS 5(4), 2015"
_NO_SHARE = "no redistribution without separate permission"


@dataclass(frozen=True, kw_only=True)
class WheelCopy:
    """A copy of the set inside a wheel of the Python package index: it is read as a zip, never installed."""

    requirement: str
    file: str
    sha256: str


@dataclass(frozen=True, kw_only=True)
class PublicSet:
    """One set. `layouts`: any of these groups of files is the set. `folders`: names it is usually unpacked under.
    `archive`: what its official `url` serves; without a url `page` says where people get it by hand. `checksums`:
    sha256 of files inside, of those that are known never to change."""

    name: str
    title: str
    terms: str
    page: str
    folders: tuple[str, ...]
    layouts: tuple[tuple[str, ...], ...]
    url: str = ""
    archive: str = ""
    sha256: str = ""
    checksums: tuple[tuple[str, str], ...] = ()
    wheel: WheelCopy | None = None


CATALOGUE = (
    PublicSet(
        name="movielens-100k",
        title="MovieLens-100K: 100,000 dated ratings, 943 users with profiles, 1,682 films",
        terms=_GROUPLENS.format(paper=_PAPER, share=_NO_SHARE),
        page="https://grouplens.org/datasets/movielens/100k/",
        url="https://files.grouplens.org/datasets/movielens/ml-100k.zip",
        archive="ml-100k.zip",
        folders=("movielens-100k", "movielens_100k", "ml-100k"),
        layouts=(
            ("u.data", "u.item", "u.user", "u.genre"),
            ("ml-100k.inter", "ml-100k.item", "ml-100k.user"),
        ),
        checksums=(("u.data", "06416e597f82b7342361e41163890c81036900f418ad91315590814211dca490"),),
        wheel=WheelCopy(
            requirement="recbole==1.2.1",
            file="recbole-1.2.1-py3-none-any.whl",
            sha256="9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407",
        ),
    ),
    PublicSet(  # its makers say that it may change: no checksum
        name="movielens-latest-small",
        title="MovieLens latest-small: 100,836 dated ratings, 610 users, 9,742 films",
        terms=_GROUPLENS.format(paper=_PAPER, share="redistribution under the same conditions only"),
        page="https://grouplens.org/datasets/movielens/latest/",
        url="https://files.grouplens.org/datasets/movielens/ml-latest-small.zip",
        archive="ml-latest-small.zip",
        folders=("movielens-latest-small", "ml-latest-small", "ml_latest_small"),
        layouts=(("ratings.csv", "movies.csv"),),
    ),
    PublicSet(
        name="movielens-1m",
        title="MovieLens-1M: 1,000,209 ratings, 6,040 users with profiles, 3,883 films",
        terms=_GROUPLENS.format(paper=_PAPER, share=_NO_SHARE),
        page="https://grouplens.org/datasets/movielens/1m/",
        url="https://files.grouplens.org/datasets/movielens/ml-1m.zip",
        archive="ml-1m.zip",
        folders=("movielens-1m", "movielens_1m", "ml-1m"),
        layouts=(
            ("ratings.dat", "movies.dat", "users.dat"),
            (
                "ratings.csv.gz",
                "movies.tsv",
                "users.tsv",
                "ml-1m.sasrec.txt.gz",
                "sas_to_original_users.txt",
                "sas_to_original_items.txt",
            ),
        ),
        checksums=(
            ("ml-1m.sasrec.txt.gz", "a2f46c060ffb492e695bad9959bcf887bf349505027afe8eaaabd7c78f364dd7"),
            ("ratings.csv.gz", "9e5c59c15adf87590390dacba574b61b8ab7a2f33f0a235cb597c0124ad0d93d"),
        ),
    ),
    PublicSet(
        name="criteo",
        title="Criteo display advertising challenge: 45.8 M impressions with clicks",
        terms="Criteo Labs / Kaggle 2014: for research, on the competition's terms, which you accept there.",
        page="https://www.kaggle.com/c/criteo-display-ad-challenge",
        folders=("criteo", "criteo_10k"),
        layouts=(("train.txt",), ("train_examples.txt.gz",)),
    ),
)


def find_set(name: str) -> PublicSet:
    """The catalogue's entry; an error names the nearest."""
    named = {public.name: public for public in CATALOGUE}
    if name not in named:
        raise ValueError(f"Expected one of {list(named)}, got {name!r}.{did_you_mean(name, list(named))}")
    return named[name]
