"""A warehouse of format 2, as version 0.2.0 wrote it, with and without compaction.

Five training videos of the embedded data, one of them not labelled, and four of valid_u; tracks of
the grid and of detected boxes by the embedded SAM2 of then; a run, its scores and search vectors.
`expected.json` has what 0.2.0 counted in it.
"""

import json
import shutil
import tarfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

FOLDER = Path(__file__).parent
EXPECTED: dict[str, Any] = json.loads((FOLDER / "expected.json").read_text())


def unpack(root: Path, compacted: bool = True) -> Path:
    """The warehouse in a new folder; not `compacted`: as it was before that."""
    with tarfile.open(FOLDER / "warehouse.tar.xz") as archive:
        archive.extractall(root, filter="data")
    if not compacted:
        for folder in root.glob("commits/*/packs"):
            shutil.rmtree(folder)
        for file in root.glob("data/**/merged-*.parquet"):
            file.unlink()
    return root


def written_rows(root: Path) -> dict[str, pa.Table]:
    """The rows of each table as they lie in the files that were first published."""
    return {
        folder.name: pa.concat_tables(
            pq.ParquetFile(file).read()
            for file in sorted(folder.rglob("*.parquet"))
            if not file.name.startswith("merged-")
        )
        for folder in root.glob("data/*")
    }


def as_floats(table: pa.Table) -> pa.Table:
    """The table with float32 in place of float16, which DuckDB does not take from Arrow."""
    halves = pa.list_(pa.float16())
    for index, field in enumerate(table.schema):
        if field.type == halves:
            values = table.column(index).cast(pa.list_(pa.float32()))
            table = table.set_column(index, field.name, values)
    return table


def records(root: Path, stage: str) -> list[Path]:
    """The records of a stage that are files of their own."""
    return sorted(root.glob(f"commits/{stage}/??/*.json"))


def rewrite(record: Path, **changes: Any) -> None:
    """Change fields of a record; those of `parts` one by one."""
    found = json.loads(record.read_text())
    parts = found["parts"] | changes.pop("parts", {})
    record.write_text(json.dumps(found | {"parts": parts} | changes))
