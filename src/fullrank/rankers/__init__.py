"""Rankers, one paper a file. `RANKERS` is the whole list: names on the command line and in runs derive from it."""

from __future__ import annotations

from fullrank.rankers.base import Output, Ranker
from fullrank.rankers.dcnv2 import DCNv2
from fullrank.rankers.deepfm import DeepFM
from fullrank.rankers.din import DIN
from fullrank.rankers.field_transformer import FieldTransformer
from fullrank.rankers.fm import FM
from fullrank.rankers.hstu import HSTU
from fullrank.rankers.hyformer import HyFormer
from fullrank.rankers.lr import LR
from fullrank.rankers.onetrans import OneTrans
from fullrank.rankers.rankelastor import RankElastor
from fullrank.rankers.rankmixer import RankMixer
from fullrank.rankers.rankup import RankUp
from fullrank.rankers.sasrec_pool import SASRecPool
from fullrank.rankers.tokenformer import TokenFormer
from fullrank.rankers.wide_and_deep import WideAndDeep
from fullrank.rankers.wukong import Wukong
from fullrank.schema import did_you_mean

__all__ = [
    "DIN",
    "FM",
    "HSTU",
    "LR",
    "RANKERS",
    "DCNv2",
    "DeepFM",
    "FieldTransformer",
    "HyFormer",
    "OneTrans",
    "Output",
    "RankElastor",
    "RankMixer",
    "RankUp",
    "Ranker",
    "SASRecPool",
    "TokenFormer",
    "WideAndDeep",
    "Wukong",
    "ranker_name",
    "ranker_named",
]

RANKERS: tuple[type[Ranker], ...] = (
    DCNv2, RankMixer, RankElastor, RankUp, LR, FM, WideAndDeep, DeepFM, DIN, SASRecPool, FieldTransformer,
    TokenFormer, Wukong, HSTU, OneTrans, HyFormer,
)  # fmt: skip


def ranker_name(ranker: type[Ranker]) -> str:
    """The name of a ranker class on the command line and in a run: `dcnv2`."""
    return ranker.__name__.lower()


def ranker_named(name: str) -> type[Ranker]:
    """The ranker class of that name; an error names the nearest one."""
    named = {ranker_name(ranker): ranker for ranker in RANKERS}
    if name not in named:
        raise ValueError(f"No ranker {name!r}; the rankers are {list(named)}.{did_you_mean(name, list(named))}")
    return named[name]
