"""The warehouse on disk: immutable Parquet files, made visible by immutable commit records.

    warehouse.json                                         format version
    data/<table>/<dataset>/<split>/<name>-<uuid>.parquet   rows; unseen until a record names them
    commits/<stage>/...json                                the records, see warehouse/commits.py

A data file has a unique name and is safe on disk before the record that names it appears, and
nothing is ever overwritten: writers need no lock, a kill leaves at worst an orphan file, and the
files of a reader stay as they are.
"""

import hashlib
import json
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from warehouse.commits import (
    STAGES,
    Commit,
    CommitLog,
    DataFile,
    Key,
    file_safe,
    tables_of,
)
from warehouse.files import write_once
from warehouse.queries import open_views
from warehouse.schemas import (
    FORMAT_VERSION,
    WarehouseError,
    conform,
    require_value,
    schema_of,
)

if TYPE_CHECKING:
    import duckdb

MARKER = "warehouse.json"
KEY_FIELDS = tuple(asdict(Key()))
COMMITS = pa.schema(
    [(name, pa.string()) for name in ("stage", *KEY_FIELDS, "fingerprint", "status", "error")]
    + [("rows", pa.int64()), ("created_at", pa.timestamp("us"))]
)


class Warehouse:
    """The warehouse in folder `root`. Raises WarehouseError when there is none."""

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root).resolve()
        self._log = CommitLog(self.root / "commits")
        try:
            version = json.loads((self.root / MARKER).read_bytes())["format"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise WarehouseError(
                f"{self.root} is not a warehouse: no readable {MARKER} in it. Check the path, or "
                f"make a new warehouse with Warehouse.create({str(root)!r})."
            ) from error
        if version != FORMAT_VERSION:
            raise WarehouseError(
                f"{self.root} has format {version}; this version reads format {FORMAT_VERSION}. "
                "Open it with the version that wrote it, or create a new warehouse."
            )

    @classmethod
    def create(cls, root: str | Path) -> "Warehouse":
        """Make the folder a warehouse and open it; one that is there already is just opened.

        Raises WarehouseError when the place cannot be written to.
        """
        marker = Path(root).resolve() / MARKER
        write_once(marker, json.dumps({"format": FORMAT_VERSION}).encode())
        return cls(root)

    def publish(
        self, stage: str, key: Key, fingerprint: str, tables: Mapping[str, pa.Table]
    ) -> Commit:
        """Make the rows of all the stage's tables visible in one step.

        One fingerprint stands for one content: when the key's latest record is done with the
        same fingerprint and its files are there, that commit is returned and nothing is written.
        Raises WarehouseError for tables that do not fit the stage, their schema or the key.
        """
        if set(tables) != set(tables_of(stage)):
            raise WarehouseError(
                f"Stage {stage!r} publishes exactly {', '.join(STAGES[stage])}; received "
                f"{', '.join(tables) or 'nothing'}. Without rows, pass TABLES[name].empty_table()."
            )
        conformed = {name: conform(name, tables[name]) for name in STAGES[stage]}
        for name, table in conformed.items():
            for column, value in asdict(key).items():
                if value and column in table.column_names:
                    require_value(name, table, column, value)
        if latest := self._if_latest(stage, key, fingerprint):
            return latest
        files = {name: self._write(name, key, table) for name, table in conformed.items()}
        return self._log.append(stage, key, fingerprint, files=files)

    def publish_failure(self, stage: str, key: Key, fingerprint: str, error: str) -> Commit:
        """Record that the stage failed on the key; data that is done stays visible."""
        return self._log.append(stage, key, fingerprint, error=error)

    def reuse(self, stage: str, key: Key, fingerprint: str) -> Commit | None:
        """Make an earlier commit of this fingerprint the current one again, without recomputing.

        None when the key has no done commit of the fingerprint with all its files.
        """
        if latest := self._if_latest(stage, key, fingerprint):
            return latest
        for record in reversed(self._log.of_key(stage, key)):
            if record.done and record.fingerprint == fingerprint:
                commit = self._log.load(stage, record)
                if self._intact(commit):
                    return self._log.append(stage, key, fingerprint, files=commit.files)
        return None

    def current(self, stage: str, **key_filter: str) -> dict[Key, Commit]:
        """The current done commit of each key, for example `current("label", split="train")`."""
        if unknown := set(key_filter) - set(KEY_FIELDS):
            raise WarehouseError(
                f"Unknown key field {', '.join(sorted(unknown))}. Fields are: "
                f"{', '.join(KEY_FIELDS)}."
            )
        commits = {}
        for records in self._log.by_key(stage).values():
            done = [record for record in records if record.done]
            if done:
                commit = self._log.load(stage, done[-1])
                if all(getattr(commit.key, name) == want for name, want in key_filter.items()):
                    commits[commit.key] = commit
        return dict(sorted(commits.items()))

    def failures(self, stage: str) -> dict[Key, Commit]:
        """The keys whose latest record is a failure, with that record."""
        return {
            commit.key: commit
            for commit in sorted(self._log.latest(stage), key=lambda commit: commit.key)
            if commit.status == "failed"
        }

    def missing(self, stage: str, wanted: Mapping[Key, str]) -> list[Key]:
        """The keys, in the order given, without current data of the wanted fingerprint.

        Data whose files were deleted is missing too.
        """
        current = self.current(stage)
        return [
            key
            for key, want in wanted.items()
            if key not in current
            or current[key].fingerprint != want
            or not self._intact(current[key])
        ]

    def read(self, table: str, commits: Iterable[Commit]) -> pa.Table:
        """The rows of `table` in exactly these commits, in the table's schema even when empty."""
        schema = schema_of(table)
        # Many small files: reading each in this thread is faster than sharing out its columns.
        paths = self._paths(table, commits)
        parts = [pq.ParquetFile(path).read(use_threads=False) for path in paths]
        return pa.concat_tables([schema.empty_table(), *parts]).cast(schema)

    def connect(self) -> "duckdb.DuckDBPyConnection":
        """An in-memory DuckDB connection that sees every table, as of now, as a view.

        `commits` has the latest record of each key: stage, dataset, split, video_id, run_id,
        fingerprint, status, error, rows, created_at (UTC).
        """
        files = {}
        for stage, tables in STAGES.items():
            current = self.current(stage).values()  # once: a stage's tables belong together
            files |= {table: self._paths(table, current) for table in tables}
        commits = [
            asdict(commit.key)
            | asdict(commit)
            | {
                "rows": commit.rows,
                "created_at": datetime.fromisoformat(commit.created_at).replace(tzinfo=None),
            }
            for stage in STAGES
            for commit in self._log.latest(stage)
        ]
        return open_views(files, pa.Table.from_pylist(commits, schema=COMMITS))

    def _if_latest(self, stage: str, key: Key, fingerprint: str) -> Commit | None:
        """The key's latest commit, when it is done with this fingerprint and intact."""
        records = self._log.of_key(stage, key)
        if records and records[-1].done and records[-1].fingerprint == fingerprint:
            commit = self._log.load(stage, records[-1])
            return commit if self._intact(commit) else None
        return None

    def _intact(self, commit: Commit) -> bool:
        return all((self.root / file.path).is_file() for file in commit.files.values())

    def _paths(self, table: str, commits: Iterable[Commit]) -> list[Path]:
        paths = []
        for commit in commits:
            if table not in commit.files:
                raise WarehouseError(
                    f"A {commit.stage} commit that is {commit.status} has no table {table!r}. It "
                    f"has: {', '.join(commit.files) or 'none'}."
                )
            path = self.root / commit.files[table].path
            if not path.is_file():
                raise WarehouseError(
                    f"{path} is gone, and {commit.key} needs it. Run the {commit.stage} stage "
                    "again: it counts as missing."
                )
            paths.append(path)
        return paths

    def _write(self, name: str, key: Key, table: pa.Table) -> DataFile:
        buffer = pa.BufferOutputStream()
        # Tokens do not repeat: a dictionary would only make them larger.
        repeating = [column for column in table.column_names if column != "token"]
        pq.write_table(table, buffer, compression="zstd", use_dictionary=repeating)
        content = buffer.getvalue().to_pybytes()
        folders = [file_safe(part) for part in (key.dataset, key.split) if part]
        names = [file_safe(part) for part in (key.run_id, key.video_id) if part]
        file_name = "-".join([*names, uuid.uuid4().hex]) + ".parquet"
        path = self.root.joinpath("data", name, *folders, file_name)
        written = write_once(path, content)
        assert written, f"{path} is a unique name"
        return DataFile(
            path=path.relative_to(self.root).as_posix(),
            rows=table.num_rows,
            sha256=hashlib.sha256(content).hexdigest(),
        )
