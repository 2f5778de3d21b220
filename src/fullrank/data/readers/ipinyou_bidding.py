"""iPinYou campaign 2997 as auctions: what each cost, whether it was clicked, and how likely a click was thought.

Han Cai et al.: Real-Time Bidding by Reinforcement Learning in Display Advertising, WSDM 2017: 156,063 auctions with 530
clicks, that would cost 8,617,148 to win all.
"""

# pyarrow.compute makes its functions when it is imported, where pyright does not see them:
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fullrank.data.bundle import Bundle
from fullrank.data.columns import DataError
from fullrank.data.readers.delimited import ColumnKind, read_delimited
from fullrank.data.readers.public import ROW, PublicLog, numbered
from fullrank.data.source import LogChunk
from fullrank.data.splits import AllTrain
from fullrank.schema import Feature, Roles, Schema, Task

AUCTIONS, INFO = "test.theta.txt", "info.json"
_COLUMNS: dict[str, ColumnKind] = {"click": "number", "market_price": "number", "pctr": "number"}


@dataclass(frozen=True)
class CampaignStatistics:
    """What was known before the auctions: how often each market price (0, 1, … of the log's unit, CNY per thousand)
    was seen, and the sums of the training days."""

    price_counts: np.ndarray
    impressions: int
    clicks: int
    cost: int


def bidding_schema() -> Schema:
    """Task `click`, role `price` (the market price: what winning costs), role `order` (the line), and the feature
    `pctr`, the click probability another model had said."""
    return Schema(
        name="ipinyou-bidding",
        roles=Roles(impression=ROW, order=ROW, price="market_price"),
        time_unit="position",
        features=(Feature(name="pctr", kind="numeric", of="pair", scale="none"),),
        tasks=(Task(name="click"),),
    )


class IPinYouBidding(PublicLog):
    """`test.theta.txt` (plain or gzipped): lines `click price pctr` in the order of the auctions; they are for bidding
    strategies, so nothing is split off. `statistics` reads `info.json`."""

    NAME = "ipinyou-bidding"

    def __init__(self, path: Path | str) -> None:
        bundle = Bundle(path)
        super().__init__(bidding_schema(), bundle, [bundle.either(AUCTIONS)], AllTrain())

    def chunks(self) -> Iterator[LogChunk]:
        (name,) = self._files
        row = 0
        path, columns = self._bundle.path / name, list(_COLUMNS)
        for records in read_delimited(
            path, _COLUMNS, delimiter=" ", header=columns, opened=lambda: self._bundle.open(name)
        ):
            yield LogChunk(numbered(records, row), self._bundle.label(name), row)
            row += records.num_rows

    def statistics(self, name: str = INFO) -> CampaignStatistics:
        """Of the campaign whose `info.json` is `name`."""
        try:
            info = json.loads(self._bundle.read(name))
            counts = np.array(info["price_counter_train"], dtype=np.int64)
            return CampaignStatistics(counts, info["imp_train"], info["clk_train"], info["cost_train"])
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{self._bundle.label(name)}: expected JSON with price_counter_train, imp_train, clk_train and "
                f"cost_train ({error!r}). Get the file again."
            ) from error
