"""Id maps: against a dictionary, over appends, evictions, forgetting, and files that may be damaged."""

import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fullrank.data.code_index import CodeIndex
from fullrank.data.id_map import IdMap
from fullrank.data.id_segments import IdMapError
from fullrank.data.key_counter import NO_TIME, Counts
from fullrank.data.keys import bucket, code_of_key, codes_of_array, splitmix64
from fullrank.schema import KeySpace

SECOND = 1_000_000
GROWING = KeySpace(name="item", unknown_rows=3)


def counted(many: dict, last_seen: dict | None = None) -> Counts:
    """Counts of these keys: key -> count."""
    keys = codes_of_array(pa.array([str(key) for key in many], pa.string()))
    of_code = {code_of_key(str(key)): key for key in many}
    ordered = [of_code[code] for code in keys.unique_codes.tolist()]
    seen = [(last_seen or {}).get(key, NO_TIME) for key in ordered]
    count = np.array([many[key] for key in ordered], dtype=np.int64)
    return Counts(keys.unique_codes, count, np.array(seen, dtype=np.int64), keys.unique_texts)


def codes(*many: object) -> np.ndarray:
    return codes_of_array(pa.array([None if key is None else str(key) for key in many], pa.string())).codes


def ids(id_map: IdMap, *many: object) -> list[int]:
    return id_map.ids(codes(*many)).tolist()


def unknown(space: KeySpace, key: object) -> int:
    return 2 + code_of_key(str(key)) % space.unknown_rows


# order and special ids


def test_ids_go_by_count_then_code_and_missing_is_one() -> None:
    id_map = IdMap.empty(GROWING).extend(counted({"a": 1, "b": 5, "c": 1, "d": 1}))
    ties = sorted("acd", key=code_of_key)
    assert (id_map.first_key_id, id_map.num_rows, id_map.version) == (5, 9, 0)
    assert ids(id_map, "b", *ties, None, "") == [5, 6, 7, 8, 1, 1]
    assert ids(id_map, "zz", 7) == [unknown(GROWING, "zz"), unknown(GROWING, 7)]
    assert id_map.ids(codes("a")).dtype == np.int32
    assert id_map.ids(codes()).tolist() == []
    assert [id_map.key_of_id(id) for id in range(6)] == [
        "[padding]",
        "[missing]",
        "[unknown 0]",
        "[unknown 1]",
        "[unknown 2]",
        "b",
    ]
    assert id_map.codes_of_ids(np.array([0, 1, 4, 5])).tolist() == [0, 0, 0, code_of_key("b")]
    for id in (-1, 9):
        with pytest.raises(IdMapError, match=f"Expected an id of key space 'item' from 0 to 8, got {id}"):
            id_map.key_of_id(id)


def test_an_empty_map_sends_every_key_to_unknown() -> None:
    empty = IdMap.empty(GROWING)
    assert (empty.version, empty.num_rows) == (-1, 5)
    assert ids(empty, "a", None, 12) == [unknown(GROWING, "a"), 1, unknown(GROWING, 12)]
    assert empty.view(empty).tolist() == [0, 1, 2, 3, 4]


def test_hashes_never_change() -> None:
    id_map = IdMap.empty(GROWING)
    assert id_map.hash == "117ac5d551710f83f629ca2b989c7069"
    assert id_map.extend(counted({"a": 2, 7: 1})).hash == "159015c656c8a484781bc51a472cda46"


appends = st.lists(st.dictionaries(st.integers(0, 40), st.integers(1, 4), max_size=12), max_size=5)


@settings(deadline=None, max_examples=60)
@given(appends, st.integers(1, 4), st.integers(1, 5))
def test_growing_agrees_with_a_dictionary_and_old_ids_stay(days: list, min_count: int, unknown_rows: int) -> None:
    space = KeySpace(name="item", min_count=min_count, unknown_rows=unknown_rows)
    id_map, total, known, earlier = IdMap.empty(space), Counter(), {}, []
    for day in days:
        total.update(day)
        new = [key for key in day if key not in known and total[key] >= min_count]
        for key in sorted(new, key=lambda key: (-total[key], code_of_key(key))):
            known[key] = 2 + unknown_rows + len(known)
        id_map = id_map.extend(counted(day))
        assert ids(id_map, *range(45)) == [known.get(key, unknown(space, key)) for key in range(45)]
        assert id_map.num_rows == 2 + unknown_rows + len(known)
        assert [id_map.key_of_id(id) for id in known.values()] == [str(key) for key in known]
        assert id_map.codes_of_ids(np.array(list(known.values()), dtype=np.int32)).tolist() == [
            *map(code_of_key, known)
        ]
        for old in earlier:  # what a run that pinned it reads, is what it would have made itself
            assert id_map.view(old)[id_map.ids(codes(*range(45)))].tolist() == ids(old, *range(45))
        earlier.append(id_map)


def test_min_count_counts_over_all_appends() -> None:
    space = KeySpace(name="item", min_count=3)
    first = IdMap.empty(space).extend(counted({"a": 2, "b": 1}))
    assert first.num_rows == 3
    second = first.extend(counted({"b": 1}))
    third = second.extend(counted({"a": 1, "b": 1, "c": 9}))
    assert ids(third, "c", *sorted("ab", key=code_of_key)) == [3, 4, 5]
    assert len(third.state.pending_codes) == 0
    assert ids(first, "a", "b") == [2, 2]


def test_an_append_that_changes_nothing_is_the_same_map() -> None:
    id_map = IdMap.empty(GROWING).extend(counted({"a": 1}))
    assert id_map.extend(counted({"a": 5})) is id_map
    assert id_map.extend(counted({})) is id_map
    waiting = IdMap.empty(KeySpace(name="item", min_count=3)).extend(counted({"a": 1}))
    assert waiting.extend(counted({"a": 1})).hash != waiting.hash


def test_frozen_admits_once() -> None:
    space = KeySpace(name="item", policy="frozen", min_count=2)
    first = IdMap.empty(space).extend(counted({"a": 2, "b": 1}))
    assert ids(first, "a", "b") == [3, 2]
    assert first.extend(counted({"b": 9, "c": 9})) is first
    nothing = IdMap.empty(space).extend(counted({}))
    assert (nothing.version, nothing.num_rows) == (0, 3)
    assert nothing.extend(counted({"a": 5})) is nothing


def test_hashed_has_buckets_and_no_keys() -> None:
    space = KeySpace(name="ad", policy="hashed", buckets=50, hashes=3)
    id_map = IdMap.empty(space)
    assert id_map.extend(counted({"a": 1})) is id_map
    assert (id_map.num_rows, id_map.first_key_id) == (52, 52)
    some = codes("a", None, *range(200))
    ids_k = id_map.ids_k(some)
    assert ids_k.dtype == np.int32 and ids_k.shape == (202, 3)
    assert ids_k[1].tolist() == [1, 1, 1]
    assert id_map.ids(some).tolist() == ids_k[:, 0].tolist()
    for which in range(3):
        assert ids_k[2:, which].tolist() == (2 + bucket(some[2:], 50, which)).tolist()
    assert id_map.view(id_map).tolist() == list(range(52))
    assert id_map.key_of_id(2) == "[bucket 0]"
    assert id_map.codes_of_ids(np.array([2, 51])).tolist() == [0, 0]
    with pytest.raises(IdMapError, match="Expected a hashed key space, 'item' is growing"):
        IdMap.empty(GROWING).ids_k(some)


# time to live


def test_ttl_evicts_and_a_key_that_comes_back_gets_a_new_id() -> None:
    space = KeySpace(name="item", ttl=10)
    first = IdMap.empty(space).extend(counted({"a": 3, "b": 2}, {"a": 0, "b": 5 * SECOND}), now=6 * SECOND)
    assert ids(first, "a", "b") == [3, 4]
    at_the_limit = first.extend(counted({}), now=10 * SECOND)
    assert ids(at_the_limit, "a", "b") == [3, 4]
    second = first.extend(counted({"c": 1}, {"c": 11 * SECOND}), now=11 * SECOND)
    assert ids(second, "a", "b", "c") == [2, 4, 5]
    third = second.extend(counted({"a": 1}, {"a": 12 * SECOND}), now=12 * SECOND)
    assert ids(third, "a", "b", "c") == [6, 4, 5]
    assert [third.key_of_id(id) for id in (3, 4, 5, 6)] == ["a", "b", "c", "a"]
    seen_again = third.extend(counted({"b": 1}, {"b": 13 * SECOND}), now=20 * SECOND)
    assert ids(seen_again, "a", "b", "c") == [6, 4, 5]
    assert ids(seen_again.extend(counted({}), now=100 * SECOND), "a", "b", "c") == [2, 2, 2]
    assert ids(first, "a", "b") == [3, 4]  # the old map is what it was
    # "a" was 3, was evicted, came back as 6: whoever pinned one of these versions reads it as that version has it.
    assert third.view(first).tolist() == [0, 1, 2, 3, 4, 2, 3]
    assert third.view(second).tolist() == [0, 1, 2, 2, 4, 5, 2]
    assert third.view(third).tolist() == [0, 1, 2, 6, 4, 5, 6]
    assert second.view(first).tolist() == [0, 1, 2, 3, 4, 2]


def test_ttl_without_a_clock_and_keys_seen_too_long_ago() -> None:
    space = KeySpace(name="item", ttl=10, min_count=2)
    no_clock = IdMap.empty(space).extend(counted({"a": 2}), now=10**15)
    assert ids(no_clock.extend(counted({"b": 2}), now=10**16), "a", "b") == [3, 4]
    old = IdMap.empty(space).extend(counted({"a": 5, "b": 2}, {"a": 0, "b": 20 * SECOND}), now=20 * SECOND)
    assert ids(old, "a", "b") == [2, 3]
    assert ids(old.extend(counted({"a": 1}, {"a": 21 * SECOND}), now=21 * SECOND), "a") == [4]
    # Evicted with its count reached before: one sight is enough.
    back = old.extend(counted({}), now=99 * SECOND).extend(counted({"b": 1}, {"b": 99 * SECOND}), now=99 * SECOND)
    assert ids(back, "b") == [4]


@settings(deadline=None)
@given(st.lists(st.tuples(st.dictionaries(st.integers(0, 9), st.integers(0, 12)), st.integers(0, 9)), max_size=8))
def test_ttl_agrees_with_a_dictionary(days: list) -> None:
    """Each day: key -> how many seconds before the day's end it was last seen, and seconds since the day before."""
    space = KeySpace(name="item", ttl=6)
    id_map, now, alive, last, waiting, slots = IdMap.empty(space), 0, {}, {}, Counter(), 0
    versions = [(id_map, [2] * 10)]
    for day, later in days:
        now += later + 1
        for key, ago in day.items():
            last[key] = max(last.get(key, -(10**9)), now - ago)
        waiting.update(key for key in day if key not in alive)
        new = [key for key in day if key not in alive and last[key] >= now - 6]
        alive = {key: id for key, id in alive.items() if last[key] >= now - 6}
        for key in sorted(new, key=lambda key: (-waiting[key], code_of_key(key))):
            alive[key] = 3 + slots
            del waiting[key]
            slots += 1
        seen = {key: (now - ago) * SECOND for key, ago in day.items()}
        id_map = id_map.extend(counted(dict.fromkeys(day, 1), seen), now=now * SECOND)
        assert ids(id_map, *range(10)) == [alive.get(key, 2) for key in range(10)]
        assert id_map.num_rows == 3 + slots
        versions.append((id_map, ids(id_map, *range(10))))
        for pinned, its_ids in versions:
            view = id_map.view(pinned).tolist()
            assert view[:3] == [0, 1, 2]
            for _, written in versions:  # an id of its own that some version gave a key is read as the pinned one's
                assert all(id < 3 or view[id] == its_id for id, its_id in zip(written, its_ids, strict=True))


# forgetting


def test_forget_leaves_a_tombstone_and_no_trace(tmp_path: Path) -> None:
    space = KeySpace(name="user", min_count=2, ttl=100, unknown_rows=2)
    id_map = IdMap.empty(space).extend(counted({"anna": 5, "bert": 4, "once": 1}, {"anna": 1}), now=SECOND)
    id_map = id_map.extend(counted({"carl": 2}, {"carl": 1}), now=SECOND)
    gone = id_map.forget(code_of_key("bert")).forget(code_of_key("once"))
    assert (gone.num_rows, gone.version) == (id_map.num_rows, 0)
    assert ids(gone, "anna", "carl") == ids(id_map, "anna", "carl") == [4, 6]
    assert ids(gone, "bert", "once") == [unknown(space, "bert"), unknown(space, "once")]
    assert gone.key_of_id(5) == "[forgotten]" and gone.codes_of_ids(np.array([5])).tolist() == [0]
    assert gone.view(gone).tolist() == gone.view(id_map).tolist() == [0, 1, 2, 3, 4, 2, 6]
    assert gone.hash != id_map.hash
    files = gone.save(tmp_path)
    content = b"".join(path.read_bytes() for path in files)
    for key, there in (("anna", True), ("bert", False), ("once", False)):
        code = code_of_key(key).to_bytes(8, "little")
        assert (key.encode() in content, code in content) == (there, there)
    # Met again, it is a new key that has to be counted anew.
    again = gone.extend(counted({"bert": 1, "anna": 1}))
    assert ids(again, "bert") == [unknown(space, "bert")]
    assert ids(again.extend(counted({"bert": 1})), "bert") == [7]


def test_forget_covers_every_slot_and_a_stranger_changes_nothing() -> None:
    space = KeySpace(name="user", ttl=1)
    id_map = IdMap.empty(space).extend(counted({"a": 1}, {"a": 0}), now=0)
    id_map = id_map.extend(counted({}), now=9 * SECOND).extend(counted({"a": 1}, {"a": 9 * SECOND}), now=9 * SECOND)
    assert [id_map.key_of_id(id) for id in (3, 4)] == ["a", "a"]
    gone = id_map.forget(code_of_key("a"))
    assert [gone.key_of_id(id) for id in (3, 4)] == ["[forgotten]"] * 2
    assert gone.forget(code_of_key("a")) is gone
    assert ids(gone.extend(counted({"a": 1}, {"a": 9 * SECOND}), now=9 * SECOND), "a") == [5]
    hashed = IdMap.empty(KeySpace(name="user", policy="hashed", buckets=4))
    assert hashed.forget(code_of_key("a")) is hashed


# files

SPACE = KeySpace(name="item", min_count=2, ttl=50, unknown_rows=2)


def three_days() -> list[IdMap]:
    first = IdMap.empty(SPACE).extend(counted({"a": 2, "b": 3, "ü": 1, 7: 2}, {"a": 0, "b": 40 * SECOND}), now=0)
    second = first.extend(counted({"c": 2, "ü": 1, "d": 1}, {"c": 60 * SECOND}), now=60 * SECOND)
    return [first, second, second.extend(counted({"d": 1, "a": 1}, {"a": 70 * SECOND}), now=70 * SECOND)]


def assert_same(left: IdMap, right: IdMap) -> None:
    some = codes("a", "b", "c", "d", "ü", 7, "never", None)
    assert (left.hash, left.version, left.num_rows) == (right.hash, right.version, right.num_rows)
    assert left.ids(some).tolist() == right.ids(some).tolist()
    assert [left.key_of_id(id) for id in range(left.num_rows)] == [right.key_of_id(id) for id in range(right.num_rows)]
    later = counted({"a": 1, "new": 2, "never": 1}, {"a": 99 * SECOND})
    assert left.extend(later, now=99 * SECOND).hash == right.extend(later, now=99 * SECOND).hash


def test_save_and_load_every_version(tmp_path: Path) -> None:
    maps = three_days()
    for id_map in maps:
        id_map.save(tmp_path)
    for version, id_map in enumerate(maps):
        assert_same(IdMap.load(tmp_path, SPACE, version), id_map)
        assert_same(IdMap.load(tmp_path, SPACE, hash=id_map.hash), id_map)
    assert_same(IdMap.load(tmp_path, SPACE), maps[-1])
    assert sorted(path.name[:3] for path in tmp_path.iterdir()) == ["000", "000", "001", "001", "002", "002"]


def test_saving_writes_only_what_is_missing(tmp_path: Path) -> None:
    maps = three_days()
    maps[1].save(tmp_path)
    before = {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in tmp_path.iterdir()}
    assert len(before) == 3  # two segments, one state
    loaded = IdMap.load(tmp_path, SPACE).extend(counted({"d": 1, "a": 1}, {"a": 70 * SECOND}), now=70 * SECOND)
    files = loaded.save(tmp_path)
    assert_same(IdMap.load(tmp_path, SPACE), maps[2])
    assert {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in before} == before
    assert sorted(set(tmp_path.iterdir()) - set(before)) == sorted(set(files) - set(before))
    assert len(files) == 4


def test_leftovers_of_an_append_that_never_finished_are_in_nobodys_way(tmp_path: Path) -> None:
    maps = three_days()
    maps[0].extend(counted({"leftover": 5})).save(tmp_path)
    maps[1].save(tmp_path)
    assert_same(IdMap.load(tmp_path, SPACE, hash=maps[1].hash), maps[1])
    with pytest.raises(
        IdMapError, match=r"Expected one id map of version 1 in .*Give the hash that the manifest names"
    ):
        IdMap.load(tmp_path, SPACE, 1)


def test_maps_without_keys_need_no_files(tmp_path: Path) -> None:
    hashed = IdMap.empty(KeySpace(name="ad", policy="hashed", buckets=9))
    assert hashed.save(tmp_path) == IdMap.empty(SPACE).save(tmp_path) == list(tmp_path.iterdir()) == []
    assert IdMap.load(tmp_path, hashed.space).hash == IdMap.load(tmp_path, hashed.space, hash=hashed.hash).hash
    with pytest.raises(IdMapError, match=r"Expected hashed key space 'ad' to have hash .*prepare it anew"):
        IdMap.load(tmp_path, replace(hashed.space, buckets=8), hash=hashed.hash)
    assert IdMap.load(tmp_path, SPACE, hash=IdMap.empty(SPACE).hash).version == -1
    nothing = IdMap.empty(GROWING).extend(counted({}))
    nothing.save(tmp_path)
    assert IdMap.load(tmp_path, GROWING).hash == nothing.hash


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(IdMapError, match=r"Expected an id map in .*, found versions \[\]"):
        IdMap.load(tmp_path, SPACE)
    three_days()[1].save(tmp_path)
    with pytest.raises(IdMapError, match=r"Expected an id map of version 4 in .*, found versions \[1\]"):
        IdMap.load(tmp_path, SPACE, 4)
    with pytest.raises(IdMapError, match=r"Expected an id map of hash abc in "):
        IdMap.load(tmp_path, SPACE, hash="abc")
    next(tmp_path.glob("000-*.arrow")).unlink()
    with pytest.raises(IdMapError, match=r"Expected id map file .*000-[0-9a-f]+\.arrow, found none"):
        IdMap.load(tmp_path, SPACE)


def test_another_meaning_of_ids_is_an_error(tmp_path: Path) -> None:
    three_days()[0].save(tmp_path)
    with pytest.raises(
        IdMapError, match=r"Expected ids of key space 'item' with .*\"unknown_rows\": 4.*prepare it anew"
    ):
        IdMap.load(tmp_path, replace(SPACE, unknown_rows=4))
    assert IdMap.load(tmp_path, replace(SPACE, min_count=9)).num_rows == 7  # says who gets an id, not what ids mean


def test_a_damaged_file_is_named_whatever_byte_it_is(tmp_path: Path) -> None:
    whole = three_days()[1]
    for path in whole.save(tmp_path / "whole"):
        content = path.read_bytes()
        damaged = [content[:size] for size in (0, 1, 8, len(content) // 2, len(content) - 1)]
        rng = np.random.default_rng(len(content))
        for place in rng.choice(len(content), 80, replace=False):
            damaged.append(content[:place] + bytes([content[place] ^ (1 << rng.integers(8))]) + content[place + 1 :])
        refused = 0
        for number, changed in enumerate(damaged):
            folder = tmp_path / f"{path.name}-{number}"
            shutil.copytree(tmp_path / "whole", folder)
            (folder / path.name).write_bytes(changed)
            try:
                loaded = IdMap.load(folder, SPACE)
            except IdMapError as error:
                assert path.name in str(error)
                refused += 1
            else:  # a byte that means nothing, like padding
                assert_same(loaded, whole)
            shutil.rmtree(folder)
        assert refused > 5


# lookup


@given(st.lists(st.integers(1, 2**64 - 1), unique=True, max_size=30), st.lists(st.integers(0, 2**64 - 1), max_size=30))
def test_the_index_agrees_with_a_dictionary(known: list[int], asked: list[int]) -> None:
    """Any numbers, also such as no hash would give: all in one bucket, the very least and greatest."""
    asked = asked + known + [0, 1, 2**64 - 1]
    index = CodeIndex(np.array(known, dtype=np.uint64), np.arange(len(known), dtype=np.int64) * 3)
    expected = {code: 3 * place for place, code in enumerate(known)}
    found = index.find(np.array(asked, dtype=np.uint64))
    assert found.dtype == np.int32
    assert found.tolist() == [expected.get(code, -1) for code in asked]
    assert len(index) == len(known)


def test_the_index_takes_few_steps_among_many_keys() -> None:
    known = splitmix64(np.arange(200_000, dtype=np.uint64))
    index = CodeIndex(known, np.arange(200_000))
    assert np.array_equal(index.find(known[::-1]), np.arange(200_000)[::-1])
    assert np.diff(index._starts).max() < 12
