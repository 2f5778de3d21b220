"""A table with open addresses for loops on a CPU: what stands at a place is the number of an entry, or -1.

An entry's hash says where to look: its upper half, then on to the right. A loop that enters what it meets is a function
of its own that returns when there is no more room, and who calls it goes on with `twice` the room: where an array may
be replaced inside a loop, its references are counted at every look, five times the cost of the look.
"""

from __future__ import annotations

import numpy as np

from fullrank.kernels.cpu.compiled import compiled

BEGIN = 1024  # entries there is room for at first


@compiled
def begin(hash, mask):
    """Where to look first, in a table of `mask + 1` places."""
    return np.int64(hash >> np.uint64(32)) & mask


@compiled
def table_of(hashes, num):
    """A table that holds the first `num` entries, and is at most half full with as many as there is room for."""
    table = np.empty(2 * len(hashes), np.int32)
    for place in range(len(table)):
        table[place] = -1
    mask = len(table) - 1
    for number in range(num):
        place = begin(hashes[number], mask)
        while table[place] >= 0:
            place = (place + 1) & mask
        table[place] = number
    return table


@compiled
def twice(array):
    """The array with room for twice as many."""
    longer = np.empty(2 * len(array), array.dtype)
    for i in range(len(array)):
        longer[i] = array[i]
    return longer
