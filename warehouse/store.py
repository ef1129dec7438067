"""The warehouse: immutable Parquet files, made visible by immutable commit records.

    warehouse.json                                         format version
    data/<table>/<dataset>/<split>/<name>.parquet          rows; unseen until a record names them
    records/<stage>/...                                    the records, see warehouse/commit_log.py
    selectors/<run_id>/                                    weights, named by the rows of `runs`

A data file has a unique name and is safe in the storage before the record that names it appears,
and neither is ever overwritten: writers need no lock, a kill leaves at worst an orphan file, and
the files of a reader stay as they are until `sola gc` finds them superseded long enough. What is
read is checked: every file has a checksum, in its own name or in the record that names it.
"""

import hashlib
import os
import uuid
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from warehouse.commits import STAGES, WITHDRAWN, Commit, DataFile, Input, Key, printable, tables_of
from warehouse.conform import conform, require_value
from warehouse.data_files import write_table
from warehouse.lineage import printable_key
from warehouse.names import is_temporary, put_at
from warehouse.reading import ATTEMPTS, MARKER, Reading, write_marker
from warehouse.schemas import WarehouseError
from warehouse.storage import Disk, open_storage


class Warehouse(Reading):
    """The warehouse in a folder, or at a URL such as s3://bucket/prefix.

    Raises WarehouseError when there is none.
    """

    @classmethod
    def create(cls, place: str | Path) -> "Warehouse":
        """Make the place a warehouse and open it; one that is there already is just opened.

        Raises WarehouseError when the place has something else in it, or cannot be written to.
        """
        if not cls.check_place(place):
            write_marker(open_storage(place))
        return cls(place)

    @classmethod
    def check_place(cls, place: str | Path) -> bool:
        """Whether a warehouse is there; nothing is written.

        Raises WarehouseError when `create` could not make or open one.
        """
        storage = open_storage(place)
        others = [name for name in storage.names() if not is_temporary(name)]
        if storage.existing([MARKER]):  # looked for last: another process may be creating it
            cls(place)
            return True
        if others:
            raise WarehouseError(
                f"{place} is no warehouse and not empty: it has {', '.join(others[:3])}"
                f"{', ...' if len(others) > 3 else ''}. Give a new or empty folder: garbage "
                "collection is for folders in which everything is the warehouse's."
            )
        if isinstance(storage, Disk):
            folders = (storage.root, *storage.root.parents)
            above = next(folder for folder in folders if folder.exists())
            if not (above.is_dir() and os.access(above, os.W_OK | os.X_OK)):
                raise WarehouseError(
                    f"{place}: cannot be written to, {above} is no folder that you may write to"
                )
        return False

    def publish(
        self,
        stage: str,
        key: Key,
        fingerprint: str,
        tables: Mapping[str, pa.Table],
        weights: Mapping[str, str] | None = None,
        **provenance: Any,
    ) -> Commit:
        """Make the rows of all the stage's tables visible in one step.

        `weights` is what `put_folder` gave for files that belong to them. `provenance`: `contents`,
        `inputs` and `making` of the commit. One fingerprint stands for one content: when the key's
        latest record is done with the same fingerprint and inputs, and its files are there, that
        commit is returned and nothing is written.
        Raises WarehouseError for tables that do not fit the stage, their schema or the key.
        """
        if set(tables) != set(tables_of(stage)):
            raise WarehouseError(
                f"Stage {stage!r} publishes exactly {', '.join(STAGES[stage])}; received "
                f"{', '.join(tables) or 'nothing'}. Without rows, pass TABLES[name].empty_table()."
            )
        if key != _printable(key):
            raise WarehouseError(
                f"{_printable(key)} is not Unicode. Rename what it is named after."
            )
        conformed = {name: conform(name, tables[name]) for name in STAGES[stage]}
        for name, table in conformed.items():
            for column, value in asdict(key).items():
                if value and column in table.column_names:
                    require_value(name, table, column, value)
        latest = self._if_latest(stage, key, fingerprint)
        inputs = provenance.get("inputs", ())
        if latest and (latest.weights, latest.inputs) == (weights or {}, inputs):
            return latest
        return self._publish(stage, key, fingerprint, conformed, {}, weights, **provenance)

    def publish_failure(
        self, stage: str, key: Key, fingerprint: str, error: str, **provenance: Any
    ) -> Commit:
        """Record that the stage failed on the key; data that is done stays visible."""
        return self.log.append(
            stage, _printable(key), fingerprint, error=printable(error), **provenance
        )

    def withdraw(self, commit: Commit) -> None:
        """Take out what a commit published: its key has no data until it is published again.

        That is so of what another process publishes at the same moment, too.
        """
        self.log.append(commit.stage, commit.key, WITHDRAWN, files={})

    def reuse(
        self, stage: str, key: Key, fingerprint: str, inputs: tuple[Input, ...] = ()
    ) -> Commit | None:
        """Make an earlier commit of this fingerprint the current one again, without recomputing.

        None when the key has no done commit of the fingerprint with all its files. The rows are
        copied: garbage collection may be about to remove the earlier files. `inputs`: those that
        there are now, of the same contents.
        """
        latest = self._if_latest(stage, key, fingerprint)
        if latest and (not inputs or latest.inputs == inputs):
            return latest
        for record in reversed(self.log.of_key(stage, key)):
            if record.done and record.fingerprint == fingerprint:
                try:
                    (commit,) = self.log.load([record])
                    rows = {name: self.read(name, [commit]) for name in commit.files}
                except (FileNotFoundError, WarehouseError):
                    continue
                return self._publish(
                    stage,
                    key,
                    fingerprint,
                    rows,
                    commit.files,
                    commit.weights,
                    contents=commit.contents,
                    inputs=inputs or commit.inputs,
                    making=commit.making,
                )
        return None

    def _publish(
        self,
        stage: str,
        key: Key,
        fingerprint: str,
        tables: Mapping[str, pa.Table],
        earlier: Mapping[str, DataFile],
        weights: Mapping[str, str] | None,
        **provenance: Any,
    ) -> Commit:
        """Write the files, then the record. Rows that were in `earlier` files keep their names."""

        def write(name: str) -> DataFile:
            file = write_table(self.storage, name, key, tables[name])
            return replace(file, sha256=earlier[name].sha256) if name in earlier else file

        for _ in range(ATTEMPTS):
            files = dict(zip(tables, self.storage.each(write, tables), strict=True))
            commit = self.log.append(
                stage, key, fingerprint, files=files, weights=weights, **provenance
            )
            if self._with_weights(self.intact([commit])):
                return commit
        raise WarehouseError(
            f"The files of {stage} {key} vanish while they are published. Something removes them: "
            "give `sola gc` an --older-than longer than a publish takes."
        )

    def put_folder(self, path: str, folder: Path) -> dict[str, str]:
        """Store the files of a local folder for `publish`, at selectors/<run_id> or below it.

        Gives the path in the warehouse and the sha256 of each. Nothing is written when the run has
        them. Where other files are, they go into a folder of their own, selectors/<run_id>/<uuid>:
        garbage collection may be about to remove what is there. `local_copy` finds them by `path`.
        """
        files = sorted(file for file in folder.rglob("*") if file.is_file())
        names = [f"{path}/{file.relative_to(folder).as_posix()}" for file in files]
        contents = [file.read_bytes() for file in files]
        checksums = [hashlib.sha256(content).hexdigest() for content in contents]
        published = self._weights(path)
        there = self.storage.existing([*names, *published])
        if there >= set(published) and dict(zip(names, checksums, strict=True)) == {
            put_at(name): checksum for name, checksum in published.items()
        }:
            return published
        if there:
            unique = uuid.uuid4().hex
            names = ["/".join([*n.split("/")[:2], unique, *n.split("/")[2:]]) for n in names]
        for name, content in zip(names, contents, strict=True):
            self.storage.write(name, content)
        return dict(zip(names, checksums, strict=True))


def _printable(key: Key) -> Key:
    return Key(**printable_key(key))
