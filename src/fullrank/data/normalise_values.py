"""Numbers, labels, texts and vectors of a log as typed numpy columns: what every kind accepts, and what it does not."""

# pyarrow.compute makes its functions when it is imported; a type checker cannot see them.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fullrank.data.columns import NEVER, Ragged
from fullrank.data.normalise_cells import Cells, Reader, first_failing, row_error
from fullrank.schema import Feature, Task

ALWAYS = np.iinfo(np.int64).min  # known at any time: the log has no clock to say otherwise
LARGEST = float(np.finfo(np.float32).max)
NUMBER = "a finite number (integer, float, bool or a text of one; null, NaN and '' are missing)"
BINARY = "0 or 1 (bool, 0/1, or a text of 0, 1, true, false, yes, no in any case; null and '' are not yet known)"


def numbers(cells: Cells, expected: str = NUMBER) -> np.ndarray:
    """float64; NaN where missing. A number that float32 cannot hold is an error, as ±inf is."""
    array, kind = cells.array, cells.array.type
    if pa.types.is_null(kind):
        return np.full(len(array), np.nan)
    if pa.types.is_large_string(kind):
        trimmed = pc.utf8_trim_whitespace(array)
        array = pc.if_else(pc.equal(trimmed, ""), pa.scalar(None, trimmed.type), trimmed)
        try:
            array = array.cast(pa.float64())
        except pa.ArrowInvalid:
            raise cells.error(first_failing(array, lambda part: part.cast(pa.float64())), expected) from None
    elif is_number(kind):
        array = array.cast(pa.float64(), safe=False)
    else:
        raise cells.wrong_type("integers, floats, decimals, bools or texts of numbers")
    values = array.to_numpy(zero_copy_only=False)
    cells.first_bad(np.abs(values) > LARGEST, expected)
    return values


def is_number(kind: pa.DataType) -> bool:
    return (
        pa.types.is_integer(kind)
        or pa.types.is_floating(kind)
        or pa.types.is_boolean(kind)
        or pa.types.is_decimal(kind)
    )


def numeric(cells: Cells) -> np.ndarray:
    """float32; NaN where missing."""
    return numbers(cells).astype(np.float32)


def weights(cells: Cells) -> np.ndarray:
    """float32 >= 0; a missing value is an error, since it has no harmless default."""
    values = numbers(cells, expected := "a number >= 0")
    cells.first_bad(~(values >= 0), expected)
    return values.astype(np.float32)


def probabilities(cells: Cells) -> np.ndarray:
    """float32 in (0, 1]; a missing value is an error, since it has no harmless default."""
    values = numbers(cells, expected := "a probability: a number > 0 and <= 1")
    cells.first_bad(~((values > 0) & (values <= 1)), expected)
    return values.astype(np.float32)


def equals_one(cells: Cells) -> np.ndarray:
    """bool: whether the value is 1 (or true); missing is not."""
    values = flags(cells) if pa.types.is_large_string(cells.array.type) else numbers(cells)
    return values == 1


def flags(cells: Cells, expected: str = BINARY) -> np.ndarray:
    """float32 0 or 1; NaN where null."""
    array, kind = cells.array, cells.array.type
    if pa.types.is_large_string(kind):
        lower = pc.utf8_lower(pc.utf8_trim_whitespace(array))
        one, zero, empty = (pc.is_in(lower, value_set=pa.array(words, lower.type)) for words in _WORDS)
        one, zero, empty = (mask.to_numpy(zero_copy_only=False) for mask in (one, zero, empty))
        cells.first_bad(~(one | zero | empty), expected)
        return np.where(empty, np.nan, one).astype(np.float32)
    if not (is_number(kind) or pa.types.is_null(kind)):
        raise cells.wrong_type(expected)
    values = numbers(cells, expected)
    cells.first_bad(~((values == 0) | (values == 1) | np.isnan(values)), expected)
    return values.astype(np.float32)


_WORDS = (["1", "1.0", "true", "yes", "y"], ["0", "0.0", "false", "no", "n"], ["", None])


def outcome_values(cells: Cells, expected: str) -> np.ndarray:
    """float64 values of an outcome, NaN where not known: numbers, or yes and no in words."""
    if pa.types.is_large_string(cells.array.type):
        known = pa.array([word for words in _WORDS for word in words])
        if pc.all(pc.is_in(pc.utf8_lower(pc.utf8_trim_whitespace(cells.array)), value_set=known)).as_py():
            return flags(cells).astype(np.float64)
    return numbers(cells, expected)


def label_values(cells: Cells, task: Task) -> np.ndarray:
    """float32 label values of a task; NaN where not yet known (null)."""
    if task.kind == "binary":
        return flags(cells)
    if task.kind == "regression":
        return numbers(cells).astype(np.float32)
    expected = f"an integer from 0 to {task.classes - 1} (the classes of task {task.name!r}; null is not yet known)"
    values = numbers(cells, expected)
    inside = (values >= 0) & (values < task.classes) & (values == np.floor(values))
    cells.first_bad(~(inside | np.isnan(values)), expected)
    return values.astype(np.float32)


def known_at(
    values: np.ndarray,
    time: np.ndarray | None,
    positive_time: np.ndarray | None,
    *,
    window: int,
    lag: int = 0,
) -> np.ndarray:
    """When each label or outcome is known (int64, units of `time`; so are `window` and `lag`).

    positive (≠ 0): its own time + lag, or the row's time + lag where no column gives one · otherwise: row time +
    window + lag · NaN: never. A positive whose own time is null waits for the window, as an undated one could have
    come at any moment of it; one dated before its row counts from the row (both our choice). Without a row time
    everything but a dated positive is known always.
    """
    base = time + (window + lag) if time is not None else np.full(len(values), ALWAYS)
    when = np.where(values != 0, _positive_at(time, positive_time, base, lag), base)
    return np.where(np.isnan(values), NEVER, when)


def _positive_at(time: np.ndarray | None, own: np.ndarray | None, base: np.ndarray, lag: int) -> np.ndarray:
    if own is None:
        return base if time is None else time + lag
    dated = own if time is None else np.maximum(own, time)
    return np.where(own == NEVER, base, dated + np.where(own == NEVER, 0, lag))


def texts(cells: Cells) -> pa.Array:
    """large_string; null where missing. Numbers become their text: a CSV whose titles are all years is one."""
    kind = cells.array.type
    if not (pa.types.is_large_string(kind) or pa.types.is_null(kind) or pa.types.is_integer(kind)):
        raise cells.wrong_type("texts")
    return cells.array.cast(pa.large_string())


def vectors(reader: Reader, feature: Feature) -> np.ndarray:
    """float32 [n, dim]; a null or empty list is a missing vector: a row of NaN."""
    use = f"vector {feature.name!r}"
    cells, offsets = reader.lists(feature.column, use, f"Give {feature.dim} numbers a row.")
    lengths = np.diff(offsets)
    wrong = (lengths != feature.dim) & (lengths != 0)
    if wrong.any():
        row = int(np.argmax(wrong))
        value = cells.array.slice(offsets[row], lengths[row]).to_pylist()
        expected = f"{feature.dim} numbers ({use}), not {lengths[row]}"
        raise row_error(reader.origin, feature.column, row, value, expected, "Or correct `dim` in the schema.")
    expected = "a finite number in every place of the vector (a missing vector is a null or empty list)"
    values = numbers(cells, expected)
    cells.first_bad(np.isnan(values), expected)
    matrix = np.full((reader.num_rows, feature.dim), np.nan, dtype=np.float32)
    matrix[lengths != 0] = values.reshape(-1, feature.dim)
    return matrix


def multi_weights(reader: Reader, feature: Feature, offsets: np.ndarray, kept: np.ndarray) -> Ragged:
    """The float32 weights beside the logged values of a multi feature (whose offsets these are); only the weight of a
    value that is kept must be a number."""
    cells, own = reader.lists(feature.weights, f"weights of feature {feature.name!r}")
    same_lengths(cells, own, offsets, feature.column)
    values = numbers(cells, expected := "a finite weight")
    cells.first_bad(np.isnan(values) & kept, expected)
    return Ragged(values.astype(np.float32), offsets)


def same_lengths(cells: Cells, own: np.ndarray, offsets: np.ndarray, other: str) -> None:
    """Raise for the first row whose list (offsets `own`) differs in length from that of column `other`."""
    mine, theirs = np.diff(own), np.diff(offsets)
    if (mine != theirs).any():
        row = int(np.argmax(mine != theirs))
        value = cells.array.slice(own[row], mine[row]).to_pylist()
        expected = f"as many values as column {other!r} has ({theirs[row]}), not {mine[row]}"
        todo = "They are columns of one list: give every one of them the same length."
        raise row_error(cells.origin, cells.column, row, value, expected, todo)
