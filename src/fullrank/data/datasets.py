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
_FRAPPE = "https://raw.githubusercontent.com/hexiangnan/neural_factorization_machine/ca2a5d11b929816aa44c6e470e795af144608507/data/frappe"
_S3REC = "https://raw.githubusercontent.com/RUCAIBox/CIKM2020-S3Rec/2a81540ae18615d88ef88227b0c066e5b74781e5/data"
_DEEP_CTR = "https://raw.githubusercontent.com/wnzhang/deep-ctr/229ad52cb97bc213012ba596b451990dcca6b897/data"
_RLB = "https://raw.githubusercontent.com/han-cai/rlb-dp/1eeb9e475b7740567a4e6aa9813cb3700a1282bb/data/ipinyou-data/2997"
_IPINYOU_TERMS = "iPinYou: for research; the copy names no terms of its own."
_KAGGLE = "Kaggle {year}: on the competition's terms, which you accept there."


@dataclass(frozen=True, kw_only=True)
class WheelCopy:
    """A copy of the set inside a wheel of the Python package index: it is read as a zip, never installed."""

    requirement: str
    file: str
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Part:
    """A file of a set that is published file by file, each at an address of its own."""

    file: str
    url: str


@dataclass(frozen=True, kw_only=True)
class PublicSet:
    """One set. `layouts`: any of these groups of files is the set. `folders`: names it is usually unpacked under.
    `archive`: what its official `url` serves; or `parts`, for a set without an archive; without either `page` says
    where people get it by hand. `checksums`: sha256 of files inside, of those that are known never to change."""

    name: str
    title: str
    terms: str
    page: str
    folders: tuple[str, ...]
    layouts: tuple[tuple[str, ...], ...]
    url: str = ""
    archive: str = ""
    sha256: str = ""
    parts: tuple[Part, ...] = ()
    checksums: tuple[tuple[str, str], ...] = ()
    wheel: WheelCopy | None = None


def _or_gzipped(*files: str) -> tuple[tuple[str, ...], ...]:
    """The files plain, and the files gzipped."""
    return (files, tuple(f"{file}.gz" for file in files))


def _parts(address: str, *files: str) -> tuple[Part, ...]:
    return tuple(Part(file=file, url=f"{address}/{file}") for file in files)


def _sequences(name: str, title: str, stem: str, terms: str, checksums: tuple[str, str]) -> PublicSet:
    """A set of sequences in the files of S3-Rec."""
    files = (f"{stem}.txt", f"{stem}_item2attributes.json")
    return PublicSet(
        name=name,
        title=title,
        terms=terms,
        page="https://github.com/RUCAIBox/CIKM2020-S3Rec/tree/master/data",
        folders=(name, "s3rec", "s3rec_amazon_yelp_lastfm"),
        layouts=(files,),
        parts=_parts(_S3REC, *files),
        checksums=tuple(zip(files, checksums, strict=True)),
    )


def _open_bandit(campaign: str, items: int) -> PublicSet:
    """A campaign of the Open Bandit data; what has an address to fetch from is the small version."""
    logs = tuple(f"{policy}/{campaign}/{campaign}.csv" for policy in ("random", "bts"))
    contexts = tuple(f"{policy}/{campaign}/item_context.csv" for policy in ("random", "bts"))
    return PublicSet(
        name=f"open-bandit-{campaign}",
        title=f"Open Bandit, campaign {campaign}: what two policies showed of {items} items, with propensities, "
        "positions and clicks (small version: 20,000 rows)",
        terms="ZOZO, Inc.: CC BY 4.0; cite Saito et al., arXiv:2008.07146.",
        page="https://research.zozo.com/data.html",
        folders=("open-bandit", "open_bandit_dataset", "obd_small", f"open-bandit-{campaign}"),
        layouts=((*logs, *contexts), (*(f"{log}.gz" for log in logs), *contexts)),
        wheel=WheelCopy(
            requirement="obp==0.4.1",
            file="obp-0.4.1-py3-none-any.whl",
            sha256="87dec9caf4283c25ab13036532e0a24566f1c7bdcad1653a8ded43b2f5ef8208",
        ),
    )


_AMAZON = "McAuley et al., Amazon reviews 2014: for research; the copy names no terms of its own."


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
        name="frappe",
        title="Frappe: 288,609 rows (96,203 app uses in context and two negatives each), 957 users, 4,082 apps",
        terms="Baltrunas et al., Frappe, arXiv:1505.03014, 2015: for research; acknowledge it in publications; no "
        "redistribution without separate permission; no commercial use; no attempt to identify anyone.",
        page="https://github.com/hexiangnan/neural_factorization_machine/tree/master/data/frappe",
        folders=("frappe",),
        layouts=(
            *_or_gzipped("frappe.train.libfm", "frappe.validation.libfm", "frappe.test.libfm"),
            *_or_gzipped("frappe.train.rebuilt.libfm", "frappe.validation.libfm", "frappe.test.libfm"),
            *_or_gzipped("frappe.train.reconstructed.libfm", "frappe.validation.libfm", "frappe.test.libfm"),
        ),
        parts=_parts(_FRAPPE, "frappe.train.libfm", "frappe.validation.libfm", "frappe.test.libfm"),
        checksums=(
            ("frappe.validation.libfm", "fdf4be563a7dd9b15f7a6e8b32671e90e6e7a2a2bd3af4e10bf13c5ad7e76e9e"),
            ("frappe.test.libfm", "a2ebaef3a9af8e55f8bb0d08bc4923965e42e43760ebd7635ac2f8c5db99e097"),
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
    PublicSet(
        name="avazu",
        title="Avazu click-through rate: 40.4 M impressions of ten days, 24 columns",
        terms=_KAGGLE.format(year=2014),
        page="https://www.kaggle.com/c/avazu-ctr-prediction",
        folders=("avazu", "avazu_9k"),
        layouts=(("train.gz",), ("train.csv",), ("train",)),
    ),
    PublicSet(
        name="talkingdata",
        title="TalkingData AdTracking: 184.9 M clicks with installs (sample: 100,000 with 227 installs)",
        terms=_KAGGLE.format(year=2018),
        page="https://www.kaggle.com/c/talkingdata-adtracking-fraud-detection",
        folders=("talkingdata", "talkingdata_100k"),
        layouts=(("train_sample.csv",), ("train.csv",)),
    ),
    PublicSet(
        name="ipinyou",
        title="iPinYou 2997, feature rows: 26,773 training rows (255 clicks), 21,150 test rows (50 clicks), 16 fields",
        terms=_IPINYOU_TERMS,
        page="https://github.com/wnzhang/deep-ctr/tree/master/data",
        folders=("ipinyou", "ipinyou_fm_deepctr"),
        layouts=_or_gzipped("train.fm.txt", "test.fm.txt", "featindex.fm.txt"),
        parts=_parts(_DEEP_CTR, "train.fm.txt", "test.fm.txt", "featindex.fm.txt"),
        checksums=(
            ("train.fm.txt", "9e7de462cfe384f3c694b8456d2bcb96013be4c1dd1fc3008bb8cfb97dc3481b"),
            ("test.fm.txt", "081cc6b7d8c891592bf792d6f6485a09d9b65bbe21262cc36f6fe58394f7f20a"),
            ("featindex.fm.txt", "378c58e56135890b1261f3d38d3fce53580a04e5d0d2ee08145de819c1bdbb3e"),
        ),
    ),
    PublicSet(
        name="ipinyou-bidding",
        title="iPinYou 2997, auctions: 156,063 market prices, 530 clicks, predicted click rates",
        terms=_IPINYOU_TERMS,
        page="https://github.com/han-cai/rlb-dp/tree/master/data/ipinyou-data/2997",
        folders=("ipinyou-bidding", "ipinyou_2997_bidding"),
        layouts=(("test.theta.txt", "info.json"), ("test.theta.txt.gz", "info.json")),
        parts=_parts(_RLB, "test.theta.txt", "info.json"),
        checksums=(
            ("test.theta.txt", "1068befe0006f37affdc8b4b13ea6bcbcca28929233133fca309cebeafdfbde8"),
            ("info.json", "8be0931d09dd90dcf989cc11c203c6a187dad5bb885019f9a707838ed6604ef0"),
        ),
    ),
    _open_bandit("all", 80),
    _open_bandit("men", 34),
    _open_bandit("women", 46),
    _sequences(
        "amazon-beauty",
        "Amazon Beauty 2014, 5-core: 198,502 reviews in order, 22,363 users, 12,101 items",
        "Beauty",
        _AMAZON,
        (
            "226cce9c3105299ca0db9615d7d3fb32b3175e90da43100ae352599f0f0107b8",
            "129e40f67486f6877eff0f5318cfa8530ee8ac23d8b0d1de04e1bb7a2ba0b2d4",
        ),
    ),
    _sequences(
        "amazon-toys",
        "Amazon Toys and Games 2014, 5-core: 167,597 reviews in order, 19,412 users, 11,924 items",
        "Toys_and_Games",
        _AMAZON,
        (
            "176c680c688d497598c4a89a03b402c0fe78d795e5db335c2e78dd5f2d778a3f",
            "d371acd25101eedac04afc727626464b7acec770c4eda708705d51eb76eb1ad0",
        ),
    ),
    _sequences(
        "amazon-sports",
        "Amazon Sports and Outdoors 2014, 5-core: 296,337 reviews in order, 35,598 users, 18,357 items",
        "Sports_and_Outdoors",
        _AMAZON,
        (
            "2a095e0648872beb9982408958290f5d655db5be2911c3756b5446de9f0b8de2",
            "7fb10733ac4f1811384a52144cdefa7fcc7536fa80a7232c5da9bd789155c34b",
        ),
    ),
    _sequences(
        "lastfm",
        "Last.fm (HetRec 2011), as in S3-Rec: 52,551 events in order, 1,090 users, 3,646 artists",
        "LastFM",
        "Last.fm and HetRec 2011: for research, non-commercial; the copy names no terms of its own.",
        (
            "9ded486adb5b0fe9dc761950afa0a9a05e93ff018992e0c52bf11afec529f802",
            "a4ccd678dc9ff6d43fe5073f491db5c9b02eb98dfa4f8c0382913a784be217ef",
        ),
    ),
    PublicSet(
        name="adult",
        title="Adult: income and marital status of 48,842 people (32,561 train, 16,281 test), 15 columns",
        terms="UCI Machine Learning Repository: CC BY 4.0.",
        page="https://archive.ics.uci.edu/dataset/2/adult",
        url="https://archive.ics.uci.edu/static/public/2/adult.zip",
        archive="adult.zip",
        folders=("adult", "adult_census"),
        layouts=_or_gzipped("adult.data", "adult.test"),
        checksums=(("adult.data", "5b00264637dbfec36bdeaab5676b0b309ff9eb788d63554ca0a249491c86603d"),),
    ),
    PublicSet(
        name="census-income",
        title="Census-Income (KDD): income and marital status of 299,285 people (199,523 train, 99,762 test)",
        terms="UCI Machine Learning Repository: CC BY 4.0.",
        page="https://archive.ics.uci.edu/dataset/117/census+income+kdd",
        folders=("census-income", "adult_census"),
        layouts=(
            *_or_gzipped("census-income.data", "census-income.test"),
            *_or_gzipped("census-income.test"),
        ),
        checksums=(("census-income.test.gz", "5ac4cacd3ca9f1ecb10de1a0a41e4ac68fdc419e3fec190f5c0c6cc03b2ea659"),),
    ),
)


def find_set(name: str) -> PublicSet:
    """The catalogue's entry; an error names the nearest."""
    named = {public.name: public for public in CATALOGUE}
    if name not in named:
        raise ValueError(f"Expected one of {list(named)}, got {name!r}.{did_you_mean(name, list(named))}")
    return named[name]
