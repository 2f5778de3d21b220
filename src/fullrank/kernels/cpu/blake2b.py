"""BLAKE2b for a CPU: `LANES` texts at once, word i of each in one vector.

The state is 16 vectors that stay in registers through the 12 rounds; a text that is done while its neighbours are not
keeps the state it has. RFC 7693, sections 2 and 3.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils

from fullrank.kernels.cpu.compiled import compiled, intrinsic
from fullrank.kernels.cpu.texts import at_least_a_word, fixed, word

LANES = 8
BLOCK = 128  # bytes
WORD = ir.IntType(64)
ROWS = ir.VectorType(WORD, LANES)
IV = (
    *(0x6A09E667F3BCC908, 0xBB67AE8584CAA73B, 0x3C6EF372FE94F82B, 0xA54FF53A5F1D36F1),
    *(0x510E527FADE682D1, 0x9B05688C2B3E6C1F, 0x1F83D9ABFB41BD6B, 0x5BE0CD19137E2179),
)
SIGMA = (
    (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15),
    (14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3),
    (11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4),
    (7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8),
    (9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13),
    (2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9),
    (12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11),
    (13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10),
    (6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5),
    (10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0),
)
STEPS = (
    *((0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15)),  # columns
    *((0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14)),  # diagonals
)
ROUNDS = 12
DIGEST = 8  # bytes, which the digest depends on too
_IV = np.array(IV, dtype=np.uint64)


@intrinsic
def _compress(_: Any, state: Any, block: Any, counter: Any, last: Any, active: Any) -> Any:
    """The function F of section 3.2: `state` [8, LANES] after `block` [16, LANES], where `active` is not 0. `counter`:
    bytes until the block's end; `last`: all bits where the block is the last one, else none."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        def begin(which: int) -> Any:
            data = context.make_array(signature.args[which])(context, builder, arguments[which]).data
            return builder.bitcast(data, ROWS.as_pointer())

        def load(address: Any, row: int) -> Any:
            value = builder.load(builder.gep(address, [WORD(row)]))
            value.align = 8
            return value

        def spread(number: int) -> Any:
            return ir.Constant(ROWS, [number] * LANES)

        kind = ir.FunctionType(ROWS, [ROWS, ROWS, ROWS])
        shift = cgutils.get_or_insert_function(builder.module, kind, f"llvm.fshr.v{LANES}i64")

        def rotated(x: Any, bits: int) -> Any:
            return builder.call(shift, [x, x, spread(bits)])

        at, m_at = begin(0), begin(1)
        h, m = [load(at, i) for i in range(8)], [load(m_at, i) for i in range(16)]
        v = h + [spread(iv) for iv in IV]
        v[12] = builder.xor(v[12], load(begin(2), 0))
        v[14] = builder.xor(v[14], load(begin(3), 0))
        for number in range(ROUNDS):
            order = SIGMA[number % len(SIGMA)]
            for step, (a, b, c, d) in enumerate(STEPS):
                for message, to_d, to_b in ((order[2 * step], 32, 24), (order[2 * step + 1], 16, 63)):
                    v[a] = builder.add(builder.add(v[a], v[b]), m[message])
                    v[d] = rotated(builder.xor(v[d], v[a]), to_d)
                    v[c] = builder.add(v[c], v[d])
                    v[b] = rotated(builder.xor(v[b], v[c]), to_b)
        changes = builder.icmp_unsigned("!=", load(begin(4), 0), spread(0))
        for i in range(8):
            new = builder.xor(h[i], builder.xor(v[i], v[i + 8]))
            store = builder.store(builder.select(changes, new, h[i]), builder.gep(at, [WORD(i)]))
            store.align = 8
        return context.get_dummy_value()

    return types.void(state, block, counter, last, active), codegen


def blake2b_on_cpu(offsets: np.ndarray, data: np.ndarray, key: bytes) -> np.ndarray:
    """`blake2b_8` of each text `data[offsets[i]:offsets[i + 1]]`."""
    digests = np.empty(len(offsets) - 1, dtype=np.uint64)
    data, secret = at_least_a_word(data), at_least_a_word(np.frombuffer(key, dtype=np.uint8))
    _digest(fixed(offsets), data.ctypes.data, len(data), secret.ctypes.data, len(key), digests)
    return digests


@compiled
def _digest(offsets, data, size, key, key_size, digests):
    state, block = np.empty(8 * LANES, np.uint64), np.zeros(16 * LANES, np.uint64)
    counter, last, active = np.empty(LANES, np.uint64), np.empty(LANES, np.uint64), np.empty(LANES, np.uint64)
    filled = np.zeros(LANES, np.int64)  # words of each lane's block that may be other than 0
    num = len(offsets) - 1
    of_key = np.int64(key_size > 0)  # the first block, if there is a key
    for first in range(0, num, LANES):
        lanes = min(LANES, num - first)
        most = np.int64(1)
        for lane in range(lanes):
            length = offsets[first + lane + 1] - offsets[first + lane]
            most = max(most, (length + BLOCK - 1) // BLOCK + of_key)
        for i in range(8):
            for lane in range(LANES):
                state[i * LANES + lane] = _IV[i]
        for lane in range(LANES):
            state[lane] ^= np.uint64(0x01010000 ^ (key_size << 8) ^ DIGEST)
        for b in range(most):
            for lane in range(lanes):
                length = offsets[first + lane + 1] - offsets[first + lane]
                begin, text = (b - of_key) * BLOCK, data + offsets[first + lane]
                blocks = max((length + BLOCK - 1) // BLOCK + of_key, 1)
                end = min(length, begin + BLOCK)
                active[lane] = np.uint64(b < blocks)
                last[lane] = ~np.uint64(0) if b == blocks - 1 else np.uint64(0)
                counter[lane] = np.uint64(end + of_key * BLOCK)
                if begin < 0:
                    filled[lane] = _fill(block, lane, filled[lane], key, key_size, key + max(key_size, 8))
                else:
                    filled[lane] = _fill(block, lane, filled[lane], text + begin, end - begin, data + size)
            _compress(state, block, counter, last, active)
        for lane in range(lanes):
            digests[first + lane] = state[lane]


@compiled
def _fill(block, lane, filled, text, num, end):
    """`num` bytes from `text` on into a lane's block, and 0 behind them; how many words that took."""
    words = max(min((num + 7) // 8, 16), 0)
    for i in range(words):
        block[i * LANES + lane] = word(text + 8 * i, num - 8 * i, end)
    for i in range(words, filled):
        block[i * LANES + lane] = 0
    return words
