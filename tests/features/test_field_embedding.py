import pytest
import torch

from fullrank.data.batch import Bag, FeatureBlock
from fullrank.data.inputs import Field
from fullrank.features.field_embedding import FieldEmbedding
from fullrank.features.numeric import NumericEmbedding
from fullrank.features.tables import EmbeddingTables, TableOptimizer, TablePlan, TableSpec

NAN = float("nan")
FIELDS = (
    Field(name="genres", kind="multi", key_space="genre"),
    Field(name="age", kind="numeric"),
    Field(name="user", kind="categorical", key_space="user"),
    Field(name="image", kind="vector", dim=4),
    Field(name="item", kind="categorical", key_space="item"),
    Field(name="price", kind="numeric"),
    Field(name="friend", kind="categorical", key_space="user"),
)
DENSE = TableOptimizer(semantics="dense")


def make_tables(width: int = 3, item_optimizer: TableOptimizer | None = None) -> EmbeddingTables:
    specs = []
    for name in ("user", "item", "genre"):
        optimizer = item_optimizer if name == "item" and item_optimizer else TableOptimizer()
        for at in ("main", "second"):
            specs.append(TableSpec(key_space=name, num_rows=6, width=width, set=at, init_std=1.0, optimizer=optimizer))
    return EmbeddingTables(TablePlan(tuple(specs)), 0)


def block() -> FeatureBlock:
    return FeatureBlock(
        ids_nF=torch.tensor([[1, 2, 3], [5, 0, 1]]),
        numbers_nF=torch.tensor([[0.5, NAN], [NAN, 2.0]]),
        bags=(Bag(torch.tensor([2, 3]), torch.tensor([0, 2, 2]), torch.tensor([1.0, 3.0])),),
        vectors_nD=(torch.tensor([[1.0, 2.0, 3.0, 4.0], [1.0, NAN, 0.0, 0.0]]),),
    )


@pytest.mark.parametrize("item_optimizer", [None, DENSE], ids=["one arena", "two arenas"])
@pytest.mark.parametrize("set_", ["main", "second"])
def test_fields_come_out_in_their_order(item_optimizer, set_):
    tables = make_tables(item_optimizer=item_optimizer)
    embedding = FieldEmbedding(FIELDS, tables, 3, set=set_)
    assert len(embedding.gathers) == (2 if item_optimizer else 1)
    x_nFD = embedding(block())
    rows = tables.logical_tables()
    user, item, genre = rows[f"user.{set_}"], rows[f"item.{set_}"], rows[f"genre.{set_}"]
    numeric, image = embedding.numeric, embedding.vectors[0]
    assert numeric is not None
    expected = [
        [
            (genre[2] + 3 * genre[3]) / 4,
            0.5 * numeric.weight_FD[0] + numeric.bias_FD[0],
            user[1],
            image.linear(torch.tensor([1.0, 2.0, 3.0, 4.0])),
            item[2],
            numeric.missing_FD[1],
            user[3],
        ],
        [
            torch.zeros(3),
            numeric.missing_FD[0],
            user[5],
            image.missing_D,
            torch.zeros(3),
            2 * numeric.weight_FD[1] + numeric.bias_FD[1],
            user[1],
        ],
    ]
    torch.testing.assert_close(x_nFD, torch.stack([torch.stack(row) for row in expected]))


def test_fields_of_one_kind_need_no_reordering():
    tables = make_tables()
    fields = tuple(field for field in FIELDS if field.kind == "categorical")
    embedding = FieldEmbedding(fields, tables, 3)
    assert embedding.order is None
    x_nFD = embedding(FeatureBlock(block().ids_nF, torch.empty(2, 0)))
    assert torch.equal(x_nFD[0, 1], tables.logical_tables()["item.main"][2])


def test_tables_are_referred_to_and_follow_growth():
    tables = make_tables()
    embedding = FieldEmbedding(FIELDS, tables, 3)
    names = [name for name, _ in embedding.named_parameters()]
    assert names and not any("arena" in name for name in names)
    before = embedding(block())
    tables.grow({"user": 9})
    assert torch.equal(embedding(block()), before)


def test_missing_values_leak_no_nan_and_teach_only_the_missing_vector():
    tables = make_tables()
    embedding = FieldEmbedding(FIELDS, tables, 3)
    all_missing = FeatureBlock(
        ids_nF=torch.ones(2, 3, dtype=torch.int64),
        numbers_nF=torch.full((2, 2), NAN),
        bags=(Bag(torch.empty(0, dtype=torch.int64), torch.zeros(3, dtype=torch.int64)),),
        vectors_nD=(torch.full((2, 4), NAN),),
    )
    x_nFD = embedding(all_missing)
    x_nFD.square().sum().backward()
    assert bool(x_nFD.isfinite().all())
    for name, parameter in embedding.named_parameters():
        assert parameter.grad is not None and bool(parameter.grad.isfinite().all()), name
        assert bool(parameter.grad.abs().sum() > 0) == ("missing" in name), name


def test_numeric_embedding_is_linear_in_the_value():
    torch.manual_seed(0)
    embedding = NumericEmbedding(2, 3)
    x_nFD = embedding(torch.tensor([[0.0, 0.0], [1.0, 1.0], [-2.0, 4.0]]))
    torch.testing.assert_close(x_nFD[0], embedding.bias_FD)
    slope_FD = x_nFD[1] - x_nFD[0]
    torch.testing.assert_close(x_nFD[2] - x_nFD[0], slope_FD * torch.tensor([[-2.0], [4.0]]))
    with pytest.raises(ValueError, match=r"numbers of 2 fields, got shape \(5, 1\)"):
        embedding(torch.zeros(5, 1))


def test_numeric_embedding_and_its_gradients_are_those_of_choosing_by_where():
    torch.manual_seed(1)
    embedding = NumericEmbedding(3, 4)
    numbers_nF = torch.randn(6, 3)
    numbers_nF[torch.tensor([0, 2, 5]), torch.tensor([1, 1, 2])] = NAN
    chosen = [parameter.detach().clone().requires_grad_() for parameter in embedding.parameters()]
    weight_FD, bias_FD, missing_FD = chosen
    missing_nF1 = numbers_nF.isnan().unsqueeze(-1)
    expected = torch.where(missing_nF1, missing_FD, numbers_nF.nan_to_num().unsqueeze(-1) * weight_FD + bias_FD)
    x_nFD = embedding(numbers_nF)
    torch.testing.assert_close(x_nFD, expected)
    assert torch.equal(x_nFD[0, 1], missing_FD[1])
    slope = torch.randn(6, 3, 4)
    (x_nFD * slope).sum().backward()
    (expected * slope).sum().backward()
    for ours, theirs in zip(embedding.parameters(), chosen, strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)


def test_wrong_fields_and_tables_are_refused():
    with pytest.raises(ValueError, match="at least one field"):
        FieldEmbedding((), make_tables(), 3)
    with pytest.raises(ValueError, match=r"table 'genre\.main' of width 4, got 3"):
        FieldEmbedding(FIELDS, make_tables(), 4)
    with pytest.raises(ValueError, match=r"No table 'genres\.main'; .* Did you mean 'genre\.main'\?"):
        FieldEmbedding((Field(name="g", kind="multi", key_space="genres"),), make_tables(), 3)
