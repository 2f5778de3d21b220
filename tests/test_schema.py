"""Schemas that can't be meant are refused, and the message says what was expected, what came and what to do."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from fullrank.schema import (
    EventFeature,
    EventOutcome,
    Feature,
    History,
    KeySpace,
    Roles,
    Schema,
    SchemaError,
    Task,
)

LOG = Roles(user="u", item="i", time="t")
AGE = Feature(name="age", kind="numeric", of="user")


def test_a_member_is_called_after_its_column_and_shares_ids_by_key_space() -> None:
    schema = Schema(
        roles=LOG,
        features=(Feature(name="genre", kind="categorical", of="item"), AGE),
        histories=(History(name="h", features=(EventFeature(name="g", key_space="genre"), EventFeature(name="a"))),),
        key_spaces=(KeySpace(name="a", min_count=3),),
    )
    assert [f.name for f in schema.all_features()] == ["user", "item", "genre", "age"]
    assert schema.feature("item").column == "i"
    assert schema.feature("genre").column == "genre"
    assert schema.used_key_spaces() == ("user", "item", "genre", "a")
    assert schema.key_space("a").min_count == 3
    assert schema.key_space("genre") == KeySpace(name="genre")
    assert LOG.columns() == {"user": "u", "item": "i", "time": "t"}
    assert schema.history("h").time_is_known(schema)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Feature(name="a/b", kind="text"), r"name of a feature to be 1 to 80 .* got 'a/b'\..* `column`"),
        (lambda: Feature(name="", kind="text"), "got ''"),
        (lambda: Feature(name="x" * 81, kind="text"), "1 to 80"),
        (lambda: Feature(name="a\n", kind="text"), r"got 'a\\n'"),
        (lambda: Feature(name="..", kind="text"), r"got '\.\.'"),
        (lambda: Feature(name="a", kind="categorical", key_space="../a"), "name of a key space"),
        (lambda: KeySpace(name="-a"), "name of a key space"),
        (lambda: Task(name="a.b"), "name of a task"),
        (lambda: History(name="@h"), "name of a history"),
        (lambda: Feature(name="a", kind="numerical"), r"kind to be one of .* 'numerical'\. Did you mean 'numeric'\?"),
        (lambda: Feature(name="a", kind="numeric", key_space="b"), "only categorical and multi have a key_space"),
        (lambda: Feature(name="a", kind="numeric", weights="b"), "is numeric: only multi features have weights"),
        (lambda: Feature(name="a", kind="vector"), "is vector with dim 0"),
        (lambda: Feature(name="a", kind="numeric", dim=3), "is numeric with dim 3"),
        (lambda: Feature(name="a", kind="categorical", scale="log"), "only numeric features have a scale"),
        (lambda: Feature(name="a", kind="text", of="user"), "is text of user: text is kept with the item"),
        (lambda: Feature(name="a", kind="categorical", of="user", mutable=True), "only categorical features"),
        (lambda: EventFeature(name="a", kind="numeric", key_space="b"), "only categorical ones have a key_space"),
        (lambda: EventFeature(name="a", scale="log"), "only numeric ones have a scale"),
        (lambda: EventOutcome(name="a", window=-1), r"outcome 'a' window >= 0, got -1"),
        (lambda: History(name="h", layout="inline"), "is inline, .* needs `item`"),
        (lambda: History(name="h", layout="inline", item="i", source="file"), "neither source 'file'"),
        (lambda: History(name="h", source="file", where="c"), "has `where`"),
        (lambda: History(name="h", max_length=0), "max_length >= 1, got 0"),
        (lambda: History(name="h", lag=-1), "lag >= 0, got -1"),
        (lambda: History(name="h", features=(EventFeature(name="age"),)), "has a feature 'age': every event has"),
        (
            lambda: History(name="h", features=(EventFeature(name="a"),), outcomes=(EventOutcome(name="a"),)),
            "history 'h' feature and outcome name once, got 'a' 2 times",
        ),
        (lambda: Task(name="a", classes=3), "is binary with 3 classes"),
        (lambda: Task(name="a", kind="multiclass"), "is multiclass with 0 classes"),
        (lambda: Task(name="a", window=-5), "window >= 0, got -5"),
        (lambda: KeySpace(name="a", policy="hashed"), r"\(hashed\) to have buckets >= 1, got 0"),
        (lambda: KeySpace(name="a", buckets=5), "belong to 'hashed'"),
        (lambda: KeySpace(name="a", policy="frozen", ttl=5), "ttl belongs to 'growing'"),
        (lambda: KeySpace(name="a", min_count=0), "key space 'a' min_count >= 1, got 0"),
        (lambda: Schema(features=(AGE, AGE)), "every feature name once, got 'age' 2 times"),
        (
            lambda: Schema(roles=LOG, features=(Feature(name="item", kind="numeric"),)),
            "every feature name once, got 'item' 2 times",
        ),
        (lambda: Schema(roles=Roles(time="t", order="o")), "got both"),
        (lambda: Schema(roles=Roles(order="o")), "'position' with role order, got 's'"),
        (lambda: Schema(roles=Roles(time="t"), time_unit="position"), "with role time, got 'position'"),
        (lambda: Schema(histories=(History(name="h"),)), "needs the role `user`"),
        (lambda: Schema(roles=Roles(user="u"), histories=(History(name="h"),)), "needs the role `time` or `order`"),
        (
            lambda: Schema(features=(Feature(name="brand", kind="categorical", of="item"),)),
            "'brand' is of the item: it needs the role `item`, or of = 'pair'",
        ),
        (
            lambda: Schema(features=(Feature(name="f", kind="numeric", column="click"),), tasks=(Task(name="click"),)),
            "Feature 'f' reads column 'click', the label of task 'click'",
        ),
        (lambda: Schema(tasks=(Task(name="a", parent="b"),)), r"parent 'b'; the tasks are \['a'\]"),
        (lambda: Schema(tasks=(Task(name="click"), Task(name="a", parent="clik"))), "Did you mean 'click'"),
        (lambda: Schema(tasks=(Task(name="a", parent="b"), Task(name="b", parent="a"))), "their own parents"),
        (
            lambda: Schema(tasks=(Task(name="a", kind="regression"), Task(name="b", parent="a"))),
            "'b' has parent 'a', which is regression, not binary",
        ),
        (lambda: Schema(tasks=(Task(name="a", scenarios=("feed",)),)), "needs the role `scenario`"),
        (
            lambda: Schema(roles=LOG, key_spaces=(KeySpace(name="itme"),)),
            r"No feature or history uses key space 'itme', only \['user', 'item'\]\. Did you mean 'item'\?",
        ),
    ],
)
def test_what_cannot_be_meant_is_refused(build: Callable[[], object], message: str) -> None:
    with pytest.raises(SchemaError, match=message):
        build()


def test_a_name_that_is_not_there_brings_the_nearest() -> None:
    schema = Schema(roles=LOG, features=(AGE,), histories=(History(name="clicks"),))
    with pytest.raises(SchemaError, match=r"No feature 'agee'; .* Did you mean 'age'\?"):
        schema.feature("agee")
    with pytest.raises(SchemaError, match=r"No history 'click'; .* Did you mean 'clicks'\?"):
        schema.history("click")


def test_an_age_needs_the_clock_of_the_request_and_of_the_event() -> None:
    inline = History(name="h", layout="inline", item="items", time="times")
    clock, none, order = (
        Schema(roles=Roles(user="u", item="i", time="t"), histories=(inline,)),
        Schema(roles=Roles(user="u", item="i"), histories=(inline,)),
        Schema(roles=Roles(user="u", item="i", order="p"), time_unit="position", histories=(inline,)),
    )
    assert [inline.time_is_known(schema) for schema in (clock, none, order)] == [True, False, False]
    assert not History(name="h", layout="inline", item="items").time_is_known(clock)
    assert History(name="h").time_is_known(clock)
