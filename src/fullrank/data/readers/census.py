"""Adult and Census-Income (KDD): what people earn and whether they are married, two tasks on one table.

Barry Becker, Ronny Kohavi: Adult, UCI Machine Learning Repository 1996. Census-Income (KDD), UCI 2000. As two tasks:
Jiaqi Ma et al.: Modeling Task Relationships in Multi-task Learning with Multi-gate Mixture-of-Experts, KDD 2018.
"""

# pyarrow.compute makes its functions when it is imported, where pyright does not see them:
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fullrank.data.bundle import Bundle
from fullrank.data.columns import DataError
from fullrank.data.readers.delimited import ColumnKind
from fullrank.data.readers.public import ROW, PublicLog, numbered, with_columns
from fullrank.data.source import LogChunk
from fullrank.data.splits import ByHash, GivenFiles, Split
from fullrank.schema import Feature, Roles, Schema, Task

ADULT = (
    "age", "workclass", "fnlwgt", "education", "education_num", "marital_status", "occupation", "relationship",
    "race", "sex", "capital_gain", "capital_loss", "hours_per_week", "native_country", "income",
)  # fmt: skip
CENSUS = (
    "age", "class_of_worker", "industry_code", "occupation_code", "education", "wage_per_hour",
    "enrolled_in_education", "marital_status", "major_industry", "major_occupation", "race", "hispanic_origin", "sex",
    "union_member", "reason_for_unemployment", "employment", "capital_gains", "capital_losses", "stock_dividends",
    "tax_filer", "region_before", "state_before", "household_detail", "household_summary", "instance_weight",
    "migration_msa", "migration_region", "migration_within_region", "same_house", "migration_sunbelt",
    "persons_worked_for", "parents_present", "country_of_father", "country_of_mother", "country_of_birth",
    "citizenship", "own_business", "veterans_questionnaire", "veterans_benefits", "weeks_worked", "year", "income",
)  # fmt: skip
_ADULT_NUMBERS = ("age", "education_num", "capital_gain", "capital_loss", "hours_per_week")
_CENSUS_NUMBERS = (
    "age", "wage_per_hour", "capital_gains", "capital_losses", "stock_dividends", "persons_worked_for", "weeks_worked",
)  # fmt: skip
_SKEWED = ("wage_per_hour", "capital_gain", "capital_loss", "capital_gains", "capital_losses", "stock_dividends")
_INCOME = {"<=50K": 0, ">50K": 1, "- 50000": 0, "50000+": 1}
_NO_FEATURE = ("marital_status", "income", "fnlwgt", "instance_weight")  # two answers, and two sampling weights


def census_schema(name: str, columns: tuple[str, ...], numbers: tuple[str, ...]) -> Schema:
    """Tasks `income` (over 50,000 dollars a year) and `never_married`, and all other columns of the file but the
    sampling weight, which both sets' makers keep out of classifiers. The marital status is no feature; what speaks of
    it (`relationship`, `tax_filer`, `household_detail`) still is, as in the paper, so `never_married` is an easy task.
    A row is a person asked once: no user, no item, no time."""
    return Schema(
        name=name,
        roles=Roles(impression=ROW),
        features=tuple(
            Feature(name=column, kind="numeric", scale="log" if column in _SKEWED else "standard")
            if column in numbers
            else Feature(name=column, kind="categorical")
            for column in columns
            if column not in _NO_FEATURE
        ),
        tasks=(Task(name="income"), Task(name="never_married")),
    )


class _CensusTable(PublicLog):
    """Lines of values with a comma and a space between, `?` for a missing one. Where there is a train and a test file,
    the test file's first half validates and the second tests (our choice of halves; the paper halves it too)."""

    _COLUMNS: tuple[str, ...]
    _NUMBERS: tuple[str, ...]

    def __init__(self, path: Path | str, train: str, test: str) -> None:
        bundle = Bundle(path)
        self._train, self._test = bundle.either(train), bundle.either(test)
        files = [name for name in (self._train, self._test) if bundle.has([name])] or [self._train]
        schema = census_schema(self.NAME, self._COLUMNS, self._NUMBERS)
        split: Split = GivenFiles() if len(files) == 2 else ByHash(key="impression")
        super().__init__(schema, bundle, files, split)

    def chunks(self) -> Iterator[LogChunk]:
        row = 0
        for name in self._files:
            first_row, where = 0, self._bundle.label(name)
            half = self._count(name) // 2 if name == self._test and len(self._files) == 2 else 0
            for records in self._rows(name):
                whole = numbered(_typed(records, where, first_row), row)
                count = whole.num_rows
                if len(self._files) == 1:
                    parts = {"": whole}
                elif name == self._train:
                    parts = {"train": whole}
                else:
                    cut = min(max(half - first_row, 0), count)
                    parts = {"valid": whole.slice(0, cut), "test": whole.slice(cut)}
                done = first_row
                for split, part in parts.items():
                    if part.num_rows:
                        yield LogChunk(part, where, done, split)
                    done += part.num_rows
                first_row, row = first_row + count, row + count

    def _rows(self, name: str) -> Iterator[pa.RecordBatch]:
        with self._bundle.open(name) as stream:
            skip = int(stream.read(1) == b"|")  # the official adult.test begins with a remark
        kinds: dict[str, ColumnKind] = dict.fromkeys(self._COLUMNS, "text")
        return self._delimited(name, kinds, header=self._COLUMNS, skip=skip)

    def _count(self, name: str) -> int:
        return sum(records.num_rows for records in self._rows(name))


class Adult(_CensusTable):
    """`adult.data` (32,561 people, trains) and `adult.test` (16,281), in a folder or the official `adult.zip`."""

    NAME = "adult"
    _COLUMNS, _NUMBERS = ADULT, _ADULT_NUMBERS

    def __init__(self, path: Path | str) -> None:
        super().__init__(path, "adult.data", "adult.test")


class CensusIncome(_CensusTable):
    """`census-income.data` (199,523 people, trains) and `census-income.test` (99,762), plain or gzipped. Where only
    one is at hand its rows are split by hash of their number."""

    NAME = "census-income"
    _COLUMNS, _NUMBERS = CENSUS, _CENSUS_NUMBERS

    def __init__(self, path: Path | str) -> None:
        super().__init__(path, "census-income.data", "census-income.test")


def _typed(records: pa.RecordBatch, where: str, first_row: int) -> pa.RecordBatch:
    """Values without the spaces, `?` as missing, and the two labels."""
    columns: dict[str, pa.Array] = {}
    for name in records.schema.names:
        text = pc.utf8_trim_whitespace(records[name])
        columns[name] = pc.if_else(pc.equal(text, "?"), pa.scalar(None, pa.string()), text)
    income = pc.utf8_rtrim(columns["income"], ".")
    columns["income"] = _mapped(income, _INCOME, "income", where, first_row)
    married = pc.equal(pc.utf8_lower(pc.replace_substring(columns["marital_status"], "-", " ")), "never married")
    if married.null_count:
        bad = int(np.argmin(married.is_valid().to_numpy(zero_copy_only=False)))
        raise DataError(f"{where}, row {first_row + bad + 1}: expected a marital status, got none. Mend the row.")
    return with_columns(records, columns | {"never_married": married.cast(pa.int8())})


def _mapped(
    texts: pa.Array, values: Mapping[str, int], column: str, where: str, first_row: int
) -> pa.Array:
    place = pc.index_in(texts, value_set=pa.array(list(values)))
    if place.null_count:
        bad = int(np.argmin(place.is_valid().to_numpy(zero_copy_only=False)))
        raise DataError(
            f"{where}, column {column!r}, row {first_row + bad + 1}: expected one of {list(values)}, got "
            f"{texts[bad].as_py()!r}. Mend the row, or get the file again."
        )
    return pa.array(list(values.values()), pa.int8()).take(place)
