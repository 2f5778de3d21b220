import pytest

from fullrank.features.tables import TableOptimizer, TablePlan, TableSpec

DENSE = TableOptimizer(semantics="dense")


def spec(key_space: str, num_rows: int = 4, width: int = 2, **more) -> TableSpec:
    return TableSpec(key_space=key_space, num_rows=num_rows, width=width, **more)


def test_tables_of_one_width_and_optimizer_share_an_arena():
    plan = TablePlan(
        (
            spec("user", 5),
            spec("item", 7, width=3),
            spec("genre", 3),
            spec("day", 2, optimizer=DENSE),
            spec("user", 5, set="second"),
        )
    )
    assert [[table.name for table in arena.tables] for arena in plan.arenas] == [
        ["user.main", "genre.main", "user.second"],
        ["item.main"],
        ["day.main"],
    ]
    assert plan.arenas[0].bases == (0, 5, 8) and plan.arenas[0].num_rows == 13
    assert plan.place("user.second")[:2] == (0, 8)


def test_growing_moves_bases_in_every_set_and_leaves_the_old_plan():
    plan = TablePlan((spec("user", 5), spec("genre", 3), spec("user", 5, set="second")))
    grown = plan.grown({"user": 9})
    assert grown.arenas[0].bases == (0, 9, 12) and grown.arenas[0].num_rows == 21
    assert plan.arenas[0].num_rows == 13


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"semantics": "lazzy"}, r"semantics to be one of .* got 'lazzy'\. Did you mean 'lazy'\?"),
        ({"rule": "adagard", "semantics": "dense"}, r"Did you mean 'adagrad'\?"),
        ({"semantics": "lazy", "rule": "adagrad"}, r"'lazy' has a rule of its own: rule 'adagrad' belongs to 'dense'"),
        ({"rule": "adagrad"}, r"'rowwise_adagrad' has a rule of its own"),
        ({"betas": (0.8, 0.9)}, r"Adagrad has no betas, got \(0\.8, 0\.9\)"),
        ({"semantics": "dense", "rule": "adagrad", "betas": (0.8, 0.9)}, "Adagrad has no betas"),
        ({"semantics": "lazy", "betas": (0.8, 1.0)}, r"betas to be two numbers in \[0, 1\)"),
        ({"weight_decay": 0.1}, r"'rowwise_adagrad' has no weight decay, got 0\.1\. Use 'lazy'"),
        ({"semantics": "lazy", "lr": 2.0, "weight_decay": 0.5}, r"lr \* weight_decay < 1, got 2\.0 \* 0\.5"),
        ({"lr": 0.0}, r"lr > 0, eps > 0 and weight_decay >= 0, got lr 0\.0"),
        ({"eps": 0.0}, r"eps 0\.0"),
    ],
)
def test_meaningless_optimizers_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        TableOptimizer(**options)


def test_plan_errors_name_the_table():
    plan = TablePlan((spec("user", 5),))
    near = r"No table 'usr\.main'; the tables are \['user\.main'\]\. Did you mean 'user\.main'\?"
    with pytest.raises(ValueError, match=near):
        plan.place("usr.main")
    with pytest.raises(ValueError, match=r"No table of key space 'users'; .* Did you mean 'user'\?"):
        plan.grown({"users": 9})
    with pytest.raises(ValueError, match=r"'user\.main' has 5 rows and can only grow, got 4"):
        plan.grown({"user": 4})
    with pytest.raises(ValueError, match=r"every table once, got 'user\.main' 2 times"):
        TablePlan((spec("user"), spec("user")))
    with pytest.raises(ValueError, match=r"'user\.main' to have at least one row and one .*got 4 rows of width 0"):
        spec("user", width=0)
