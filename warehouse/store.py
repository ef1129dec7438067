"""The warehouse: immutable Parquet files, made visible by immutable commit records.

    warehouse.json                                         format version
    data/<table>/<dataset>/<split>/<name>.parquet          rows; unseen until a record names them
    commits/<stage>/...                                    the records, see warehouse/commit_log.py
    selectors/<run_id>/                                    weights, named by the rows of `runs`

A data file has a unique name and is safe in the storage before the record that names it appears,
and neither is ever overwritten: writers need no lock, a kill leaves at worst an orphan file, and
the files of a reader stay as they are until `sola gc` finds them superseded long enough. What is
read is checked: every file has a checksum, in its own name or in the record that names it.
"""

import hashlib
import json
import uuid
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from warehouse.commit_log import CommitLog
from warehouse.commit_table import key_table, keys_of
from warehouse.commits import (
    STAGES,
    Commit,
    DataFile,
    Input,
    Key,
    Record,
    printable,
    readable,
    tables_of,
)
from warehouse.data_files import read_rows, write_table
from warehouse.lineage import Staleness, commit_row, printable_key
from warehouse.names import is_temporary, put_at
from warehouse.planning import are_made
from warehouse.queries import open_views
from warehouse.schemas import (
    FORMAT_VERSION,
    WarehouseError,
    conform,
    require_value,
    schema_of,
)
from warehouse.storage import Disk, open_storage

if TYPE_CHECKING:
    import duckdb

MARKER = "warehouse.json"
KEY_FIELDS = tuple(asdict(Key()))
COMMITS = pa.schema(
    [(name, pa.string()) for name in ("stage", *KEY_FIELDS, "fingerprint", "status", "error")]
    + [("rows", pa.int64()), ("created_at", pa.timestamp("us")), ("stale", pa.bool_())]
    + [("settings", pa.string()), ("version", pa.int64())]
    + [(name, pa.string()) for name in ("code", "host", "device", "precision")]
    + [(name, pa.float64()) for name in ("wall_seconds", "cpu_seconds")]
    + [(name, pa.int64()) for name in ("host_bytes", "device_bytes")]
    + [
        (
            "inputs",
            pa.list_(
                pa.struct([(name, pa.string()) for name in ("stage", *KEY_FIELDS, "fingerprint")])
            ),
        )
    ]
)
WITHDRAWN = "withdrawn"  # the fingerprint of a commit without files
ATTEMPTS = 3  # to see or publish a state that another process's gc does not tear apart


class Warehouse:
    """The warehouse in a folder, or at a URL such as s3://bucket/prefix.

    Raises WarehouseError when there is none.
    """

    def __init__(self, place: str | Path) -> None:
        self.storage = open_storage(place)
        self.log = CommitLog(self.storage)
        try:
            version = json.loads(self.storage.read(MARKER))["format"]
        except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError) as error:
            raise WarehouseError(
                f"{place} is not a warehouse: no readable {MARKER} in it. Check the path, or "
                f"make a new warehouse with Warehouse.create({str(place)!r})."
            ) from error
        if version != FORMAT_VERSION:
            mend = "Use a newer version."
            if isinstance(version, int) and version < FORMAT_VERSION:
                mend = f"Bring it to the new format with `sola upgrade --warehouse {place}`."
            raise WarehouseError(
                f"{place} has format {version}; this version reads format {FORMAT_VERSION}. {mend}"
            )

    @classmethod
    def create(cls, place: str | Path) -> "Warehouse":
        """Make the place a warehouse and open it; one that is there already is just opened.

        Raises WarehouseError when the place has something else in it, or cannot be written to.
        """
        storage = open_storage(place)
        others = [name for name in storage.names() if not is_temporary(name)]
        if not storage.existing([MARKER]):  # looked for last: another process may be creating it
            if others:
                raise WarehouseError(
                    f"{place} is no warehouse and not empty: it has {', '.join(others[:3])}"
                    f"{', ...' if len(others) > 3 else ''}. Give a new or empty folder: garbage "
                    "collection is for folders in which everything is the warehouse's."
                )
            storage.write(MARKER, json.dumps({"format": FORMAT_VERSION}).encode())
        return cls(place)

    @property
    def url(self) -> str:
        """What opens this warehouse in another process: its absolute path or URL."""
        return self.storage.url

    @property
    def root(self) -> Path:
        """Its folder. Raises WarehouseError when it is on an object store."""
        if not isinstance(self.storage, Disk):
            raise WarehouseError(f"{self.url} is not on disk. Use `url`, or `local_copy(path)`.")
        return self.storage.root

    # --- writing ------------------------------------------------------------------------------

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
        if latest and latest.weights == (weights or {}):
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
        """Take out what a commit published: its key has no data from then on."""
        self.log.append(commit.stage, commit.key, WITHDRAWN, files={})

    def reuse(
        self, stage: str, key: Key, fingerprint: str, inputs: tuple[Input, ...] = ()
    ) -> Commit | None:
        """Make an earlier commit of this fingerprint the current one again, without recomputing.

        None when the key has no done commit of the fingerprint with all its files. The rows are
        copied: garbage collection may be about to remove the earlier files. `inputs`: those that
        there are now, of the same contents.
        """
        if latest := self._if_latest(stage, key, fingerprint):
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

    # --- reading ------------------------------------------------------------------------------

    def current(
        self, stage: str, keys: Collection[Key] | None = None, /, **key_filter: str
    ) -> dict[Key, Commit]:
        """The current done commit of each key, for example `current("label", split="train")`.

        With `keys` only of these: of a large warehouse that is much faster.
        """
        if unknown := set(key_filter) - set(KEY_FIELDS):
            raise WarehouseError(
                f"Unknown key field {', '.join(sorted(unknown))}. Fields are: "
                f"{', '.join(KEY_FIELDS)}."
            )

        commits = {
            commit.key: commit
            for _, commit in self.current_records(stage, keys)
            if commit.files
            and all(getattr(commit.key, name) == want for name, want in key_filter.items())
        }
        return dict(sorted(commits.items()))

    def latest(self, stage: str) -> list[Commit]:
        """The latest commit of each key, done or failed."""
        commits = [commit for _, commit in self._select(stage, lambda records: records[-1:])]
        return sorted(commits, key=lambda commit: commit.key)

    def failures(self, stage: str) -> dict[Key, Commit]:
        """The keys whose latest record is a failure, with that record."""
        return {c.key: c for c in self.latest(stage) if c.status == "failed"}

    def missing(self, stage: str, wanted: Mapping[Key, str]) -> list[Key]:
        """The keys, in the order given, without current data of the wanted fingerprint.

        Data whose files or weights were deleted is missing too.
        """
        keys = key_table(wanted)
        made = are_made(self, stage, keys, pa.chunked_array([list(wanted.values())], pa.string()))
        return list(keys_of(keys.filter(pc.invert(made))))

    def intact(self, commits: Collection[Commit]) -> list[Commit]:
        """Those of the commits that have all their files."""
        there = self.storage.existing({path for commit in commits for path in commit.paths})
        return [commit for commit in commits if there.issuperset(commit.paths)]

    def read(self, table: str, commits: Iterable[Commit]) -> pa.Table:
        """The rows of `table` in exactly these commits, in the table's schema even when empty."""
        schema = schema_of(table)
        commits = list(commits)
        for commit in commits:
            if table not in commit.files:
                raise WarehouseError(
                    f"A {commit.stage} commit that is {commit.status} has no table {table!r}. It "
                    f"has: {', '.join(commit.files) or 'none'}."
                )
        try:
            parts = read_rows(self.storage, table, commits)
        except FileNotFoundError:
            self._require_intact(commits)
            raise
        return pa.concat_tables([schema.empty_table(), *parts])

    def connect(
        self, checked: bool = True, *, read_only: bool = False
    ) -> "duckdb.DuckDBPyConnection":
        """An in-memory DuckDB connection that sees every table, as of now, as a view.

        The first query of a table reads its files and compares their checksums, unless `checked`
        is False. A damaged file ends the query. With `read_only`, for SQL of others: it reads the
        warehouse's files and no others, writes none, and uses at most half of the machine's memory.

        `commits` has the latest record of each key, see COMMITS: what was made, from which inputs,
        how, and at what cost. The tables of a stage with inputs have a column `stale`: whether what
        the row was made from has been replaced since.
        """
        current = {stage: self._snapshot(stage) for stage in STAGES}
        done = {(c.stage, c.key): c for each in current.values() for c in each if c.files}
        stale = Staleness(done.get)
        files: dict[str, list[Commit]] = {}
        latest: dict[tuple[str, Key], Commit] = {}
        for commit in (commit for of_stage in current.values() for commit in of_stage):
            if commit.status == "done" and not commit.files:  # withdrawn
                continue
            latest[commit.stage, commit.key] = commit
            for table in commit.files:
                files.setdefault(table, []).append(commit)
        rows = [commit_row(commit, stale(commit)) for _, commit in sorted(latest.items())]
        table = pa.Table.from_pylist(rows, schema=COMMITS)
        return open_views(self.storage, files, stale, table, checked=checked, read_only=read_only)

    def stale(self, commits: Collection[Commit]) -> list[Commit]:
        """Those of the commits that were made from something that has been replaced since."""
        known: dict[tuple[str, Key], Commit | None] = {}
        waiting = list(commits)
        while waiting:  # the inputs of these, then theirs
            wanted: dict[str, set[Key]] = {}
            for given in (given for commit in waiting for given in commit.inputs):
                if (given.stage, given.key) not in known:
                    wanted.setdefault(given.stage, set()).add(given.key)
            waiting = []
            for stage, keys in wanted.items():
                found = self.current(stage, keys)
                known |= {(stage, key): found.get(key) for key in keys}
                waiting += found.values()
        stale = Staleness(known.get)
        return [commit for commit in commits if stale(commit)]

    def current_records(
        self, stage: str, keys: Collection[Key] | None = None
    ) -> list[tuple[Record, Commit]]:
        """The record and commit that is current for each key, or for each of these."""
        return self._select(stage, lambda records: [r for r in records if r.done][-1:], keys)

    def readable_records(self, stage: str) -> list[tuple[Record, Commit]]:
        """What readers take of each key: the current record, and a failure after it."""
        return self._select(stage, readable)

    def local_copy(self, path: str) -> Path:
        """A file or folder that was put into the warehouse, on the local disk; do not change it.

        Raises WarehouseError when it is gone, and DamagedError when a file of it is not what its
        run was published with.
        """
        inside = self._weights(path)
        stored = next((f[: len(path) + len(f) - len(put_at(f))] for f in inside), path)
        try:
            return self.storage.local_copy(stored, inside)
        except FileNotFoundError as error:
            raise WarehouseError(f"{self.url}/{path} is gone. Make it again.") from error

    def work_folder(self) -> Path:
        """A local folder for what is not finished: on disk the warehouse itself, else a cache."""
        return self.storage.work_folder()

    def _snapshot(self, stage: str) -> list[Commit]:
        """What readers take of a stage, all its files there when it was looked."""
        for _ in range(ATTEMPTS):
            commits = [commit for _, commit in self.readable_records(stage)]
            if len(self.intact(commits)) == len(commits):
                return commits
        self._require_intact(commits)
        return commits

    def _require_intact(self, commits: Collection[Commit]) -> None:
        there = self.storage.existing({path for commit in commits for path in commit.paths})
        for commit in commits:
            for path in sorted(set(commit.paths) - there):
                raise WarehouseError(
                    f"{self.url}/{path} is gone, and {commit.key} needs it. Run the "
                    f"{commit.stage} stage again: it counts as missing."
                )

    def _select(
        self,
        stage: str,
        choose: Callable[[list[Record]], list[Record]],
        keys: Collection[Key] | None = None,
    ) -> list[tuple[Record, Commit]]:
        """The records of each key that `choose` takes of them, loaded."""
        for attempt in range(ATTEMPTS):
            by_slug = self.log.by_slug(stage, keys)
            chosen = [record for records in by_slug.values() for record in choose(records)]
            try:
                return list(zip(chosen, self.log.load(chosen), strict=True))
            except FileNotFoundError:  # collected since it was listed: it is in a pack by now
                if attempt == ATTEMPTS - 1:
                    raise
        raise AssertionError("unreachable")

    def _if_latest(self, stage: str, key: Key, fingerprint: str) -> Commit | None:
        """The key's latest commit, when it is done with this fingerprint and intact."""
        latest = [commit for _, commit in self._select(stage, lambda r: r[-1:], [key])]
        fits = [c for c in latest if c.status == "done" and c.fingerprint == fingerprint]
        return next(iter(self._with_weights(self.intact(fits))), None)

    def _weights(self, path: str) -> dict[str, str]:
        """The sha256 of each file that was put at `path` or below it, by where it is stored."""
        folder, _, rest = path.partition("/")
        run = Key(run_id=rest.partition("/")[0])
        commits = self.current("train", [run]).values() if folder == "selectors" else ()
        return {
            file: checksum
            for commit in commits
            for file, checksum in commit.weights.items()
            if f"{put_at(file)}/".startswith(f"{path}/")
        }

    def _with_weights(self, commits: Collection[Commit]) -> list[Commit]:
        there = self.storage.existing({path for commit in commits for path in commit.weights})
        return [commit for commit in commits if there.issuperset(commit.weights)]


def _printable(key: Key) -> Key:
    return Key(**printable_key(key))
