"""Whose a column is and what kind of input it makes, from the sample of a log; each with its reason."""

# pyright: reportAttributeAccessIssue=false
# (pyarrow.compute makes its functions when it is imported: a type checker can't see them)
from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fullrank.data.infer_names import (
    AMOUNT_WORDS,
    CODE_WORDS,
    ITEM_WORDS,
    TEXT_WORDS,
    USER_WORDS,
    WEIGHT_WORDS,
    is_time_name,
)
from fullrank.data.infer_sample import Column
from fullrank.data.normalise_lists import SEPARATOR
from fullrank.schema import FeatureKind, Owner, Scale

_EVIDENCE = 10  # disagreements that chance alone would make, before we believe that there are none for a reason
_SOME = 0.02  # of a column's texts hold a separator: then it may part values (our choice)
_MOST = 0.5  # of a column's texts are numbers: then the others are worth a word
_REPEATS = 20  # an integer that comes this often on average is rather a code than an amount


@dataclass(frozen=True)
class Owned:
    of: Owner
    reason: str


@dataclass(frozen=True)
class Kind:
    """`kind` is None where the column can't be an input."""

    kind: FeatureKind | None
    reason: str
    scale: Scale = "standard"
    dim: int = 0


def one_value_per_key(column: Column, key: Column) -> bool | None:
    """Whether every key has one value of the column (missing ones aside); None where the sample can't tell.

    It can't if a column of the same frequencies, shuffled, would hardly disagree with itself either: too few keys
    come more than once, or nearly all rows hold one value.
    """
    known = (column.codes >= 0) & (key.codes >= 0)
    values, keys = column.codes[known], key.codes[known]
    if not len(values):
        return None
    pairs = len(np.unique(keys * (values.max() + 1) + values))
    num_keys = len(np.unique(keys))
    if pairs > num_keys:
        return False
    share = np.bincount(values) / len(values)
    expected = (len(values) - num_keys) * (1.0 - float(np.sum(share**2)))
    return True if expected >= _EVIDENCE else None


def owner_of(column: Column, user: Column | None, item: Column | None, request: Column | None) -> Owned:
    """Of the item or the user where it has one value for each, else of the context, or of the pair where it differs
    between rows of one request."""
    by_name: Owner | None = None
    if column.words and column.words[0] in ITEM_WORDS and item:
        by_name = "item"
    elif column.words and column.words[0] in USER_WORDS and user:
        by_name = "user"
    of_item = one_value_per_key(column, item) if item else False
    of_user = one_value_per_key(column, user) if user else False
    if item and of_item and not (of_user and by_name == "user"):
        return Owned("item", f"of the item: each of {item.distinct:,} has one value in the sample")
    if user and of_user:
        return Owned("user", f"of the user: each of {user.distinct:,} has one value in the sample")
    undecided = {"item": of_item, "user": of_user}.get(by_name or "") is None
    if by_name and undecided:
        return Owned(by_name, f"of the {by_name} by its name: the sample has too few repeats to tell")
    if request is None:
        return Owned("context", "of the context: no column says which rows were one request")
    of_request = one_value_per_key(column, request)
    if of_request is False:
        return Owned("pair", "of the pair: it differs between rows of one request")
    if of_request:
        return Owned("context", "of the context: one value in each request")
    return Owned("context", "of the context: too few rows share a request to tell")


def why_useless(column: Column) -> str:
    """Why the column can't be an input, whosever it is; an empty string if it can."""
    if column.type == "empty":
        return "all missing in the sample"
    if column.type == "other":
        return f"type {column.array.type}: spread it over plain columns"
    if column.type == "time":
        return "a time besides the row's: derive a number or a category from it (an hour, an age)"
    if column.type == "text" and is_time_name(column) and _looks_like_time(column):
        first = column.array.drop_null()[0].as_py()
        return f"named like a time, but {first!r} is not ISO 8601 (2025-01-31 09:30:00): convert it"
    if not column.is_list and column.distinct == 1 and column.present == column.rows > 1:
        return f"constant: {_shown(column.flat[0].as_py())} in all {column.rows:,} rows"
    return ""


def kind_of(column: Column, owned: Owned) -> Kind:
    """What kind of input the column makes."""
    count = f"{column.distinct:,} distinct value{'s' * (column.distinct != 1)} in {column.rows:,} rows"
    if column.is_list:
        return _kind_of_list(column)
    if column.type == "number":
        return Kind("numeric", f"numeric: numbers with fractions, {_range(column)}", _scale(column))
    if column.type == "bool":
        return Kind("categorical", "categorical: true or false")
    if column.type == "text" and _is_split(column):
        return Kind("multi", f"multi: texts with {SEPARATOR!r} between values")
    if column.type == "text" and _is_free(column, owned):
        if owned.of == "item":
            return Kind("text", f"text: {count}; kept with the item, nothing encodes it yet")
        return Kind(None, f"free text, {count}: derive categories or a vector from it")
    if column.distinct > 0.95 * column.present and column.present > 20 and owned.of != "item":
        return Kind(None, f"{count}: a value that does not come again teaches nothing")
    if column.type == "text":
        return Kind("categorical", f"categorical: texts, {count}{_oddity(column)}")
    return _kind_of_integer(column, count)


def _kind_of_integer(column: Column, count: str) -> Kind:
    words = set(column.words)
    if words & CODE_WORDS and column.words[-1] not in AMOUNT_WORDS:
        word = next(word for word in column.words if word in CODE_WORDS)
        return Kind("categorical", f"categorical: {count}, integers named like a code ({word!r})")
    if words & AMOUNT_WORDS and column.distinct > 2:
        word = next(word for word in column.words if word in AMOUNT_WORDS)
        reason = f"numeric: {count}, integers named like an amount ({word!r}), {_range(column)}"
        return Kind("numeric", reason, _scale(column))
    if column.distinct <= max(100, column.rows // _REPEATS):
        return Kind("categorical", f"categorical: {count}, integers that come again and again")
    return Kind("numeric", f"numeric: {count}, integers with many values, {_range(column)}", _scale(column))


def _looks_like_time(column: Column) -> bool:
    """Digits with the signs between them that dates and times have."""
    spelled = pc.match_substring_regex(column.array.drop_null(), r"^[0-9A-Za-z]{1,4}[-/.: ][0-9A-Za-z]{1,3}[-/.: ]?")
    return pc.all(spelled).as_py()


def _kind_of_list(column: Column) -> Kind:
    values = f"{column.distinct:,} distinct values in {'JSON arrays' if column.is_json else 'lists'}"
    if column.type != "numbers":
        return Kind("multi", f"multi: {values} of {np.mean(column.lengths):.1f} on average")
    lengths = column.lengths[column.lengths > 0]
    if len(lengths) and lengths.min() == lengths.max() > 1:
        return Kind("vector", f"vector: {lengths[0]} numbers in every list", dim=int(lengths[0]))
    return Kind(None, "lists of numbers with fractions, of different lengths: neither a vector nor values with ids")


def weights_for(column: Column, lists: list[Column]) -> Column | None:
    """The list column of numbers that holds the weight of each value of `column`: the same lengths in every row."""
    for other in lists:
        stem = {word.rstrip("s") for word in other.words if word not in WEIGHT_WORDS}
        if (
            other is not column
            and other.type in ("numbers", "integers")
            and set(other.words) & WEIGHT_WORDS
            and stem <= {word.rstrip("s") for word in column.words}
            and np.array_equal(other.lengths, column.lengths)
        ):
            return other
    return None


def _scale(column: Column) -> Scale:
    """`log` for amounts of very different size, else `standard` (our choice)."""
    values = column.numbers
    if len(values) and values.min() >= 0:
        upper = np.quantile(values, 0.99)
        if upper > 20 * max(float(np.median(values)), 1e-9) and upper > 10:
            return "log"
    return "standard"


def _range(column: Column) -> str:
    return f"from {column.numbers.min():g} to {column.numbers.max():g}"


def _is_split(column: Column) -> bool:
    present = column.array.drop_null()
    split = pc.sum(pc.match_substring(present, SEPARATOR)).as_py()
    pieces = pc.unique(pc.split_pattern(present, SEPARATOR).flatten())
    return split >= _SOME * len(present) and len(pieces) < max(column.distinct, 3)


def _oddity(column: Column) -> str:
    """What looks unlike the rest in a column of texts, and the edit that would make more of it."""
    present = column.array.drop_null()
    split = (pc.sum(pc.match_substring(present, SEPARATOR)).as_py() or 0) / max(len(present), 1)
    if split >= _SOME:
        return f". {split:.0%} of them hold {SEPARATOR!r}: if that parts values, set kind = 'multi'"
    numbers = pc.match_substring_regex(column.array, r"^\s*-?[0-9]+(\.[0-9]+)?\s*$")
    share = (pc.sum(numbers).as_py() or 0) / max(len(present), 1)
    if _MOST <= share < 1:
        other = pc.index(pc.fill_null(numbers, True), False).as_py()
        value = _shown(column.array[other].as_py())
        first = f"{share:.1%} of them are numbers, the first other is {value} in row {other + 1:,}"
        return f". {first}: if that is a slip, mend the log and set kind = 'numeric'"
    return ""


def _is_free(column: Column, owned: Owned) -> bool:
    """Sentences, or names that an item has for itself."""
    words = pc.mean(pc.add(pc.count_substring(pc.unique(column.array.drop_null()), " "), 1)).as_py()
    if words >= 5 and column.distinct > 20:
        return True
    named = bool(set(column.words) & TEXT_WORDS)
    return named and owned.of == "item" and words >= 1.5 and column.distinct > 20


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."


def share_known(values: pa.Array, keys: pa.Array) -> float:
    """The share of distinct `values` (as text) that are also among `keys`."""
    mine = pc.unique(values.drop_null().cast(pa.string()))
    known = pc.is_in(mine, value_set=pc.unique(keys.drop_null().cast(pa.string())))
    return (pc.sum(known).as_py() or 0) / max(len(mine), 1)
