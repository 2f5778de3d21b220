"""The chain of versions: who may read what."""

import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from fullrank.data.id_map import IdMap
from fullrank.data.key_counter import Counts
from fullrank.data.keys import code_of_key, codes_of_array
from fullrank.data.lineage import Lineage, LineageError, Pin
from fullrank.schema import KeySpace


def counts(*names: str) -> Counts:
    keys = codes_of_array(pa.array(names))
    ones = np.ones(len(keys.unique_codes), dtype=np.int64)
    return Counts(keys.unique_codes, ones, ones, keys.unique_texts)


def maps_of(*days: tuple[str, ...]) -> dict[str, IdMap]:
    item = IdMap.empty(KeySpace(name="item"))
    for day in days:
        item = item.extend(counts(*day))
    return {"item": item, "ad": IdMap.empty(KeySpace(name="ad", policy="hashed", buckets=10))}


def chain() -> Lineage:
    lineage = Lineage().extend(maps_of(("a", "b")))
    lineage = lineage.extend(maps_of(("a", "b"), ("c",)))
    return lineage.extend(maps_of(("a", "b"), ("c",), ("d",)))


def test_hashes_never_change() -> None:
    assert [version.hash for version in chain().versions] == [
        "3f73b693046c74713e1ab15557f7ff14",
        "93ee05de85c2e739308824bd6c19a4f4",
        "67fae2b80fee36375ac78670dab172e0",
    ]


def test_each_version_records_rows_and_hashes() -> None:
    maps = maps_of(("a", "b"))
    version = Lineage().extend(maps).versions[0]
    assert {name: space.num_rows for name, space in version.spaces.items()} == {"item": 5, "ad": 12}
    assert {name: space.hash for name, space in version.spaces.items()} == {n: m.hash for n, m in maps.items()}
    assert Lineage().extend(dict(reversed(maps.items()))) == Lineage().extend(maps)


def test_every_earlier_version_is_contained_and_no_other() -> None:
    lineage = chain()
    for number, version in enumerate(lineage.versions):
        assert lineage.contains(Pin(number, version.hash))
        assert not lineage.contains(Pin(number + 1, version.hash))
    assert lineage.pin == Pin(2, lineage.versions[2].hash)
    short = replace(lineage, versions=lineage.versions[:2])
    assert not short.contains(lineage.pin)  # a run of later data cannot read earlier data
    fork = short.extend(maps_of(("a", "b"), ("c",), ("e",)))
    assert not fork.contains(lineage.pin) and fork.contains(short.pin)
    assert not lineage.contains(Pin(-1, lineage.versions[-1].hash))


def test_the_error_says_both_hashes_and_what_to_do() -> None:
    lineage, other = chain(), Lineage().extend(maps_of(("x",)))
    other.check(other.pin)
    with pytest.raises(LineageError, match="was trained on") as info:
        lineage.check(other.pin, "runs/one")
    for part in (other.pin.hash, lineage.pin.hash, "version 0", "version 2", "runs/one", "or train on this data"):
        assert part in str(info.value)
    with pytest.raises(LineageError, match="no version"):
        Lineage().check(other.pin)
    with pytest.raises(LineageError, match="Prepare data first"):
        _ = Lineage().pin


def test_forgetting_starts_a_lineage_that_old_runs_may_read() -> None:
    old = chain()
    maps = maps_of(("a", "b"), ("c",), ("d",))
    maps["item"] = maps["item"].forget(code_of_key("b"))
    new = old.forgotten(maps)
    assert len(new.versions) == 1 and new.pin.hash not in [version.hash for version in old.versions]
    assert new.versions[0].spaces["item"].num_rows == old.versions[-1].spaces["item"].num_rows
    for number, version in enumerate(old.versions):
        assert new.contains(Pin(number, version.hash))
    assert not old.contains(new.pin)
    maps["item"] = maps["item"].forget(code_of_key("c"))
    newest = new.forgotten(maps)
    assert all(newest.contains(Pin(number, version.hash)) for number, version in enumerate(old.versions))
    assert newest.contains(new.pin)
    # The same maps under another past are another lineage.
    assert Lineage().extend(maps).pin != newest.pin


def test_json_round_trip_and_a_changed_manifest() -> None:
    lineage = chain().forgotten(maps_of(("z",))).extend(maps_of(("z",), ("y",)))
    text = json.dumps(lineage.to_json())
    assert Lineage.from_json(json.loads(text)) == lineage
    assert Lineage.from_json(Lineage().to_json()) == Lineage()
    changed = json.loads(text)
    changed["versions"][1]["spaces"]["item"]["num_rows"] += 1
    with pytest.raises(LineageError, match=r"Expected version 1 of the lineage to have hash .*changed or damaged"):
        Lineage.from_json(changed)
