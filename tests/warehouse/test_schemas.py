"""The table schemas, and the check of a table against them."""

import pyarrow as pa
import pytest

from warehouse import TABLES, WarehouseError
from warehouse.conform import conform

METRIC = {"run_id": ["r"], "epoch": [0], "metric": ["loss"], "value": [0.5]}


def test_every_table_and_column_is_described() -> None:
    for schema in TABLES.values():
        assert schema.metadata[b"description"]
        for field in schema:
            assert len(field.metadata[b"description"]) > 10, field


def test_conform_orders_and_casts() -> None:
    table = conform("training_metrics", pa.table(dict(reversed(METRIC.items()))))
    assert table.schema.equals(TABLES["training_metrics"], check_metadata=True)
    assert table.to_pylist() == [{"run_id": "r", "epoch": 0, "metric": "loss", "value": 0.5}]


def test_conform_casts_fixed_size_float32_tokens() -> None:
    tokens = pa.array([[1.5, -2.0]], pa.list_(pa.float32(), 2))
    row = {"dataset": ["d"], "split": ["s"], "video_id": ["v"], "track_set": ["grid"]}
    row |= {"track_id": [0], "frame_index": [0]}
    table = conform("tokens", pa.table({**row, "token": tokens}))
    assert table["token"].type == pa.list_(pa.float16())
    assert table["token"].to_pylist() == [[1.5, -2.0]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epoch": ["first"]}, "Column 'epoch' of table 'training_metrics' has type string"),
        ({"epoch": [0.5]}, "does not fit int32"),
        ({"epoch": [2**40]}, "does not fit int32"),
        ({"value": pa.array([None], pa.float64())}, "'value' .* 1 null values and allows none"),
        ({"extra": [1]}, "given the columns run_id, epoch, metric, value, extra"),
    ],
)
def test_conform_names_table_and_column(change: dict, message: str) -> None:
    with pytest.raises(WarehouseError, match=message):
        conform("training_metrics", pa.table(METRIC | change))


def test_conform_refuses_a_missing_column_and_an_unknown_table() -> None:
    with pytest.raises(WarehouseError, match="exactly these: run_id, epoch, metric, value"):
        conform("training_metrics", pa.table({"run_id": ["r"]}))
    with pytest.raises(WarehouseError, match="Unknown table 'metrics'"):
        conform("metrics", pa.table(METRIC))
