"""What prepared data last knew of some users: the columns of each one's newest request."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fullrank.data.columns import Columns, array
from fullrank.data.encode_columns import take_rows
from fullrank.data.inputs import Field
from fullrank.data.normalised import concat_column
from fullrank.data.partitions import BlockRef, PreparedData

_NEVER_YET = np.iinfo(np.int64).min


@dataclass(frozen=True)
class NewestRequests:
    """Of n users (`code_n`, ascending) the newest request: row `row_n` of the requests of `blocks[block_n]`; a block
    of -1 where the data never saw the user. One pass over two columns finds them; memory is that of the users asked."""

    data: PreparedData
    blocks: tuple[BlockRef, ...]
    code_n: np.ndarray
    block_n: np.ndarray
    row_n: np.ndarray

    @staticmethod
    def of(data: PreparedData, codes: np.ndarray) -> NewestRequests:
        """Find the newest requests of these users (codes, in any order); of equal times the later in the data."""
        code_n = np.unique(codes[codes != 0])
        newest_n = np.full(len(code_n), _NEVER_YET)
        block_n, row_n = np.full(len(code_n), -1), np.zeros(len(code_n), np.int64)
        blocks = [
            block for part in data.partitions for split in part.entry.splits for block in part.blocks(split)
        ]
        for number, block in enumerate(blocks if len(code_n) else ()):
            columns = data.partitions[block.partition].columns(block, "requests", ["@user", "@time"])
            users = array(columns, "@user")
            place = np.minimum(np.searchsorted(code_n, users), len(code_n) - 1)
            at = np.flatnonzero(code_n[place] == users)
            time = array(columns, "@time")[at] if "@time" in columns else np.zeros(len(at), np.int64)
            place = place[at]
            order = np.lexsort((at, time, place))  # the last of each user is the newest
            last = order[np.flatnonzero(np.diff(place[order], append=-1))]
            last = last[time[last] >= newest_n[place[last]]]
            newest_n[place[last]], block_n[place[last]], row_n[place[last]] = time[last], number, at[last]
        return NewestRequests(data, tuple(blocks), code_n, block_n, row_n)

    def rows_of(self, code_R: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Block and row of each of these users' newest request; block -1 where there is none."""
        if not len(self.code_n):
            return np.full(len(code_R), -1), np.zeros(len(code_R), np.int64)
        place = np.minimum(np.searchsorted(self.code_n, code_R), len(self.code_n) - 1)
        found = self.code_n[place] == code_R
        return np.where(found, self.block_n[place], -1), self.row_n[place]

    def columns(self, block_m: np.ndarray, row_m: np.ndarray, names: list[str]) -> Columns:
        """The named request columns of m requests, in ids of the data's newest version."""
        parts: dict[str, list] = {name: [] for name in names}
        order = []
        for number in np.unique(block_m):
            block = self.blocks[number]
            at = np.flatnonzero(block_m == number)
            read = self.data.partitions[block.partition].columns(block, "requests", names)
            for name in names:
                parts[name].append(take_rows(read[name], row_m[at]))
            order.append(at)
        back = np.argsort(np.concatenate(order), kind="stable")
        return {name: take_rows(concat_column(pieces), back) for name, pieces in parts.items()}


def filled_in(own: Columns, others: Columns, at: np.ndarray, fields: tuple[Field, ...], missing: Columns) -> Columns:
    """`own` columns of `fields`, with the value of `others` (which stand for the owners `at`) where one is missing.

    `missing[name]`: bool, by owner.
    """
    result = dict(own)
    for field in fields:
        hidden = array(missing, field.name)[at]
        names = [field.name, f"{field.name}@weights"]
        for name in (name for name in names if name in own and name in others):
            index = np.arange(len(own[name]))
            index[at[hidden]] = len(index) + np.flatnonzero(hidden)
            result[name] = take_rows(concat_column([own[name], others[name]]), index)
    return result
