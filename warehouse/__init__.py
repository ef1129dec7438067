"""The warehouse: Parquet tables, their commit records, and DuckDB over both."""

from warehouse.commits import Commit, Key, fingerprint
from warehouse.own_video import read_video
from warehouse.schemas import TABLES, WarehouseError
from warehouse.store import Warehouse

__all__ = ["TABLES", "Commit", "Key", "Warehouse", "WarehouseError", "fingerprint", "read_video"]
