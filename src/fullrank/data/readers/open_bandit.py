"""Open Bandit: what two policies showed in a fashion shop's three slots, with the probability of every choice.

Yuta Saito, Shunsuke Aihara, Megumi Matsutani, Yusuke Narita: Open Bandit Dataset and Pipeline: Towards Realistic and
Reproducible Off-policy Evaluation. arXiv:2008.07146, 2020. 26 M rows; a small version has 10,000 of each policy and
campaign.
"""

# pyarrow.compute makes its functions when it is imported, where pyright does not see them:
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fullrank.data.bundle import Bundle
from fullrank.data.columns import DataError
from fullrank.data.readers.delimited import ColumnKind
from fullrank.data.readers.movielens import read_table
from fullrank.data.readers.public import ROW, PublicLog, numbered, with_columns
from fullrank.data.source import LogChunk
from fullrank.data.splits import ByTime
from fullrank.schema import Feature, Roles, Schema, SchemaError, Task, did_you_mean

POLICIES = ("random", "bts")
USER = tuple(f"user_feature_{number}" for number in range(4))
ITEM = tuple(f"item_feature_{number}" for number in range(4))
_ROLES = ("timestamp", "item_id", "position", "click", "propensity_score")


def open_bandit_schema(name: str) -> Schema:
    """Task `click`, roles position, propensity and exploration (1: the uniform policy chose).

    `liked`: the items this person has an affinity to (past clicks), with the affinity; `affinity`: that to the item
    shown. Hashed features are keys, the number among the item's features is a number. There is no user and no request.
    """
    return Schema(
        name=name,
        roles=Roles(
            item="item_id",
            impression=ROW,
            time="timestamp",
            position="position",
            propensity="propensity_score",
            exploration="exploration",
        ),
        features=(
            *(Feature(name=column, kind="categorical") for column in USER),
            Feature(name="liked", kind="multi", key_space="item", weights="liked_affinity"),
            Feature(name=ITEM[0], kind="numeric", of="item"),
            *(Feature(name=column, kind="categorical", of="item") for column in ITEM[1:]),
            Feature(name="affinity", kind="numeric", of="pair", scale="none"),
        ),
        tasks=(Task(name="click"),),
    )


class OpenBandit(PublicLog):
    """Campaign `all` (80 items), of the policies named: `random` (uniform) and `bts` (Bernoulli Thompson sampling), one
    after the other. Files `POLICY/CAMPAIGN/CAMPAIGN.csv` (or `.csv.gz`) and `POLICY/CAMPAIGN/item_context.csv` in a
    folder, zip or wheel.

    The set hashes item features anew for each policy, so both policies get those of the first one named. To estimate
    one policy's value from the rows of another, read these alone: `OpenBandit(path, policies=("random",))`.
    """

    NAME = "open-bandit-all"
    CAMPAIGN = "all"

    def __init__(self, path: Path | str, *, policies: Sequence[str] = POLICIES) -> None:
        for policy in policies:
            if policy not in POLICIES:
                near = did_you_mean(policy, POLICIES)
                raise SchemaError(f"Expected policies among {list(POLICIES)}, got {policy!r}.{near}")
        if not policies:
            raise SchemaError(f"Expected one policy or more of {list(POLICIES)}, got none.")
        bundle = Bundle(path)
        logs = {p: bundle.either(f"{p}/{self.CAMPAIGN}/{self.CAMPAIGN}.csv") for p in policies}
        context = f"{policies[0]}/{self.CAMPAIGN}/item_context.csv"
        super().__init__(open_bandit_schema(self.NAME), bundle, [*logs.values(), context], ByTime())
        self._logs, self._context = logs, context

    def chunks(self) -> Iterator[LogChunk]:
        items = self._items()
        affinities = [f"user-item_affinity_{item}" for item in range(items.num_rows)]
        kinds: dict[str, ColumnKind] = dict.fromkeys((*_ROLES, *USER), "text")
        kinds |= dict.fromkeys(affinities, "double")
        row = 0
        for policy, name in self._logs.items():
            first_row = 0
            for records in self._delimited(name, kinds):
                where = self._bundle.label(name)
                item_B = _item_numbers(records["item_id"], items.num_rows, where, first_row)
                columns = _affinities(records, affinities, item_B)
                columns["exploration"] = pa.array(np.full(len(item_B), policy == "random", dtype=np.int8))
                columns |= {column: items[column].take(pa.array(item_B)) for column in ITEM}
                own = with_columns(records.select([*_ROLES, *USER]), columns)
                yield LogChunk(numbered(own, row), where, first_row)
                first_row, row = first_row + len(item_B), row + len(item_B)

    def _items(self) -> pa.RecordBatch:
        """The items' features; row i is item i."""
        columns = {"": pa.int64(), "item_id": pa.int64(), ITEM[0]: pa.float64()} | dict.fromkeys(ITEM[1:], pa.string())
        table = read_table(self._bundle, self._context, columns, delimiter=",", skip=1).combine_chunks()
        if not np.array_equal(table["item_id"].to_numpy(), np.arange(len(table))):
            raise DataError(
                f"{self._bundle.label(self._context)}: expected the items 0, 1, 2, … in order. Get the file again."
            )
        (items,) = table.to_batches()
        return items


class OpenBanditMen(OpenBandit):
    """Campaign `men` (34 items)."""

    NAME, CAMPAIGN = "open-bandit-men", "men"


class OpenBanditWomen(OpenBandit):
    """Campaign `women` (46 items)."""

    NAME, CAMPAIGN = "open-bandit-women", "women"


def _item_numbers(texts: pa.Array, num_items: int, where: str, first_row: int) -> np.ndarray:
    known = pa.array([str(item) for item in range(num_items)])
    number = pc.index_in(texts, value_set=known)
    if number.null_count:
        bad = int(np.argmin(number.is_valid().to_numpy(zero_copy_only=False)))
        raise DataError(
            f"{where}, column 'item_id', row {first_row + bad + 1}: expected an item of item_context.csv (0 to "
            f"{num_items - 1}), got {texts[bad].as_py()!r}. Are the two files of one campaign?"
        )
    return number.to_numpy().astype(np.int64)


def _affinities(records: pa.RecordBatch, names: Sequence[str], item_B: np.ndarray) -> dict[str, pa.Array]:
    """The affinity to the item shown, and to all items as a list of those that have any."""
    affinity_BI = np.stack([records[name].fill_null(0.0).to_numpy() for name in names], axis=1)
    row, item = np.nonzero(affinity_BI)
    offsets = pa.array(np.searchsorted(row, np.arange(len(item_B) + 1)).astype(np.int32))
    return {
        "affinity": pa.array(affinity_BI[np.arange(len(item_B)), item_B]),
        "liked": pa.ListArray.from_arrays(offsets, pa.array(item)),
        "liked_affinity": pa.ListArray.from_arrays(offsets, pa.array(affinity_BI[row, item])),
    }
