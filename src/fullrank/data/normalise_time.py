"""Times of a log as int64: microseconds since 1970 (UTC) where the log has a clock, the numbers as they are where it
has positions."""

# pyarrow.compute makes its functions when it is imported; a type checker cannot see them.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fullrank.data.columns import NEVER
from fullrank.data.normalise_cells import Cells, first_failing
from fullrank.schema import Schema, TimeUnit

TICKS: dict[TimeUnit, int] = {"s": 1_000_000, "ms": 1_000, "us": 1, "position": 1}  # one unit in stored ticks
FIRST = -62_135_596_800_000_000  # 0001-01-01 in µs
LAST = 253_402_300_800_000_000  # 10000-01-01 in µs
NUMBER_TEXT = r"^[+-]?[0-9]+(\.[0-9]*)?$"
ZONE = r"[T ].*(Z|[+-][0-9]{2}(:?[0-9]{2})?)$"


def ticks(seconds: int, unit: TimeUnit) -> int:
    """A lag or window of the schema in the unit that times are stored in; beside positions it counts positions."""
    return seconds if unit == "position" else seconds * 1_000_000


def task_windows(schema: Schema) -> dict[str, int]:
    """The attribution window of every task that has one, in the unit that times are stored in."""
    return {task.name: ticks(task.window, schema.time_unit) for task in schema.tasks if task.window}


def times(cells: Cells, unit: TimeUnit, *, missing: bool = False) -> np.ndarray:
    """int64 µs (or positions). Numbers are in `unit`, dates and timestamps are taken as they are, ISO texts without a
    zone are UTC. A missing time is an error, or `NEVER` if `missing`."""
    expected = _expected(unit) + (" or null" if missing else "")
    values, present = _convert(cells, unit, expected)
    if not missing:
        cells.first_bad(~present, expected)
    if unit != "position":
        outside = present & ((values < FIRST) | (values >= LAST))
        todo = f"Numbers are read in {unit!r}: is that the log's time_unit? One column's own goes in a [[time_column]]."
        cells.first_bad(outside, "a time in the years 1 to 9999", todo)
    return np.where(present, values, NEVER)


def _expected(unit: TimeUnit) -> str:
    if unit == "position":
        return "an integer position"
    return f"a time (a number in {unit!r}, a date, a timestamp or an ISO 8601 text)"


def _convert(cells: Cells, unit: TimeUnit, expected: str) -> tuple[np.ndarray, np.ndarray]:
    """int64 values (anything where missing) and which are present."""
    array, kind = cells.array, cells.array.type
    present = array.is_valid().to_numpy(zero_copy_only=False)
    if pa.types.is_null(kind):
        return np.zeros(len(array), dtype=np.int64), present
    if pa.types.is_integer(kind):
        if pa.types.is_uint64(kind):
            cells.first_bad(array.fill_null(0).to_numpy() > np.uint64(NEVER), expected)
        values = array.fill_null(0).cast(pa.int64()).to_numpy()
        return _scaled(cells, values, TICKS[unit], expected), present
    if pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        values = array.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
        return _from_floats(cells, values, unit, expected)
    if pa.types.is_large_string(kind):
        return _from_texts(cells, unit, expected)
    if unit != "position" and (pa.types.is_timestamp(kind) or pa.types.is_date(kind)):
        return _from_timestamps(cells, array, expected), present
    raise cells.wrong_type(expected)


def _scaled(cells: Cells, values: np.ndarray, factor: int, expected: str) -> np.ndarray:
    limit = NEVER // factor
    cells.first_bad((values >= limit) | (values <= -limit), expected)
    return values * factor


def _from_floats(cells: Cells, values: np.ndarray, unit: TimeUnit, expected: str) -> tuple[np.ndarray, np.ndarray]:
    present = ~np.isnan(values)
    scaled = np.where(present, values, 0.0) * TICKS[unit]
    cells.first_bad(~(np.abs(scaled) < 2.0**62), expected)
    if unit == "position":
        cells.first_bad(scaled != np.floor(scaled), expected)
    return np.rint(scaled).astype(np.int64), present


def _from_timestamps(cells: Cells, array: pa.Array, expected: str) -> np.ndarray:
    kind = array.type
    if pa.types.is_date(kind):
        array, kind = array.cast(pa.timestamp("s")), pa.timestamp("s")
    values = array.cast(pa.int64()).fill_null(0).to_numpy(zero_copy_only=False)
    if kind.unit == "ns":
        return values // 1000
    return _scaled(cells, values, {"s": 1_000_000, "ms": 1_000, "us": 1}[kind.unit], expected)


def _from_texts(cells: Cells, unit: TimeUnit, expected: str) -> tuple[np.ndarray, np.ndarray]:
    """Texts of numbers, of ISO times with a zone and of ISO times without one, also mixed."""
    trimmed = pc.utf8_trim_whitespace(cells.array)
    array = pc.if_else(pc.equal(trimmed, ""), pa.scalar(None, trimmed.type), trimmed)
    present = array.is_valid().to_numpy(zero_copy_only=False)
    is_number = _matches(array, NUMBER_TEXT)
    values = np.zeros(len(array), dtype=np.int64)
    iso = present & ~is_number
    if unit == "position":
        cells.first_bad(iso, expected)
    if is_number.any():
        values = _from_number_texts(cells, array, is_number, unit, expected)
    if iso.any():
        seven = pc.replace_substring_regex(array, r"(\.[0-9]{6})[0-9]+", r"\1")  # µs is what is kept
        zoned = iso & _matches(array, ZONE)
        for chosen, kind in ((zoned, pa.timestamp("us", "UTC")), (iso & ~zoned, pa.timestamp("us"))):
            part = seven.filter(pa.array(chosen))
            try:
                instants = part.cast(kind)
            except pa.ArrowInvalid:
                bad = first_failing(part, lambda values, kind=kind: values.cast(kind))
                raise cells.error(int(np.flatnonzero(chosen)[bad]), expected) from None
            values[chosen] = instants.cast(pa.int64()).to_numpy()
    return values, present


def _from_number_texts(cells: Cells, array: pa.Array, chosen: np.ndarray, unit: TimeUnit, expected: str) -> np.ndarray:
    """Integers stay exact; only texts with a point go through a float."""
    numbers = pc.if_else(pa.array(chosen), array, pa.scalar(None, array.type))
    try:
        whole = numbers.cast(pa.int64())
    except pa.ArrowInvalid:
        return _from_floats(cells, numbers.cast(pa.float64()).to_numpy(zero_copy_only=False), unit, expected)[0]
    return _scaled(cells, whole.fill_null(0).to_numpy(), TICKS[unit], expected)


def _matches(array: pa.Array, pattern: str) -> np.ndarray:
    return pc.match_substring_regex(array, pattern).fill_null(False).to_numpy(zero_copy_only=False)
