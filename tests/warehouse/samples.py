"""Small rows for tests of the warehouse."""

import json
from typing import Any

import pyarrow as pa

from warehouse import TABLES, Key, Warehouse
from warehouse.commits import STAGES, _checksum

KEY = Key("mevis", "train", "v1")


def a_value(kind: pa.DataType) -> Any:
    if pa.types.is_list(kind):
        return [a_value(kind.value_type), a_value(kind.value_type)]
    if pa.types.is_string(kind):
        return "text"
    return True if pa.types.is_boolean(kind) else 1.5 if pa.types.is_floating(kind) else 3


def one_row(table: str, key: Key) -> pa.Table:
    """A row of `table` that belongs to `key`."""
    schema = TABLES[table]
    row = {field.name: getattr(key, field.name, None) or a_value(field.type) for field in schema}
    return pa.Table.from_pylist([row], schema=schema)


def stage_tables(stage: str, key: Key) -> dict[str, pa.Table]:
    return {table: one_row(table, key) for table in STAGES[stage]}


def labels(miou: float, key: Key = KEY, rows: int = 1) -> dict[str, pa.Table]:
    """Pseudo-labels of this mIoU, for tracks 0, 1, ..."""
    row = one_row("pseudo_labels", key).to_pylist()[0]
    made = [row | {"miou": miou, "track_id": track} for track in range(rows)]
    return {"pseudo_labels": pa.Table.from_pylist(made, schema=TABLES["pseudo_labels"])}


def visible_mious(warehouse: Warehouse) -> list[float]:
    table = warehouse.read("pseudo_labels", warehouse.current("label").values())
    return table["miou"].to_pylist()


def paths(warehouse: Warehouse, folder: str = "") -> list[str]:
    """Every file of the warehouse."""
    return sorted(file.path for file in warehouse.storage.files(folder))


def rewrite_record(warehouse: Warehouse, path: str, fields: dict[str, Any]) -> str:
    """Put a record with these fields, and their checksum, in the place of one; gives its path."""
    start, _, _ = path.rpartition("-")
    warehouse.storage.delete(path)
    path = f"{start}-{_checksum(fields)}.json"
    warehouse.storage.write(path, json.dumps(fields).encode())
    return path
