"""Reading a warehouse: what is there, what is current, and the rows of it."""

import json
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import pyarrow as pa
import pyarrow.compute as pc

from warehouse.commit_log import CommitLog
from warehouse.commit_table import key_table, keys_of
from warehouse.commits import KEY_FIELDS, STAGES, WITHDRAWN, Commit, Key, Record, readable
from warehouse.data_files import read_rows
from warehouse.lineage import Staleness, commits_table
from warehouse.names import put_at
from warehouse.planning import are_made
from warehouse.queries import open_views
from warehouse.schemas import FORMAT_VERSION, WarehouseError, schema_of
from warehouse.storage import Disk, Storage, open_storage

if TYPE_CHECKING:
    import duckdb

MARKER = "warehouse.json"
ATTEMPTS = 3  # to see a state that another process's gc does not tear apart


class Reading:
    """The part of `warehouse.store.Warehouse` that changes nothing."""

    format: ClassVar[int] = FORMAT_VERSION  # that its marker says

    def __init__(self, place: str | Path) -> None:
        self.storage = open_storage(place)
        self.log = CommitLog(self.storage)
        version = format_of(self.storage)
        if version != self.format:
            mend = "Use a newer version."
            if isinstance(version, int) and version < FORMAT_VERSION:
                mend = f"Bring it to the new format with `sola upgrade --warehouse {place}`."
            raise WarehouseError(
                f"{place} has format {version}; this version reads format {FORMAT_VERSION}. {mend}"
            )

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
            if not commit.withdrawn
            and all(getattr(commit.key, name) == want for name, want in key_filter.items())
        }
        return dict(sorted(commits.items()))

    def latest(self, stage: str) -> list[Commit]:
        """The latest commit of each key, done or failed; none of a key that was withdrawn."""
        commits = [commit for _, commit in self._select(stage, lambda records: records[-1:])]
        return sorted((c for c in commits if not c.withdrawn), key=lambda commit: commit.key)

    def failures(self, stage: str) -> dict[Key, Commit]:
        """The keys whose latest record is a failure, with that record."""
        return {c.key: c for c in self.latest(stage) if c.status == "failed"}

    def missing(self, stage: str, wanted: Mapping[Key, str]) -> list[Key]:
        """The keys, in the order given, without current data of the wanted fingerprint.

        Data whose files or weights were deleted is missing too.
        """
        keys = key_table(wanted)
        named = pa.chunked_array([list(wanted.values())], pa.string())
        made = are_made(self, stage, keys, named)
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

        `commits` has the latest record of each key, see `warehouse.lineage`: what was made, from
        which inputs, how, and at what cost. The tables of a stage with inputs have a column
        `stale`: whether what the row was made from has been replaced since.
        """
        current = {stage: self._snapshot(stage) for stage in STAGES}
        done = {(c.stage, c.key): c for each in current.values() for c in each if c.files}
        stale = Staleness(done.get)
        found = [commit for each in current.values() for commit in each if not commit.withdrawn]
        files: dict[str, list[Commit]] = {}
        for commit in found:
            for table in commit.files:
                files.setdefault(table, []).append(commit)
        commits = commits_table(found, stale)
        return open_views(self.storage, files, stale, commits, checked=checked, read_only=read_only)

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
        """The record and commit that is current for each key, or for each of these.

        One that is withdrawn has no files.
        """
        return self._select(stage, lambda records: [r for r in records if r.done][-1:], keys)

    def withdrawn_records(self, stage: str) -> list[tuple[Record, Commit]]:
        """All that is left of the records of keys whose data was withdrawn, oldest first."""

        def choose(records: list[Record]) -> list[Record]:
            current = [record for record in records if record.done][-1:]
            return records if current and current[0].fingerprint == WITHDRAWN else []

        return self._select(stage, choose)

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


def format_of(storage: Storage) -> Any:
    """The format version of the warehouse in a storage. Raises WarehouseError if there is none."""
    try:
        return json.loads(storage.read(MARKER))["format"]
    except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError) as error:
        raise WarehouseError(
            f"{storage.url} is not a warehouse: no readable {MARKER} in it. Check the path "
            "(--warehouse, SOLA_WAREHOUSE). `sola precompute` and `sola demo` make a new one."
        ) from error


def write_marker(storage: Storage, version: int = FORMAT_VERSION) -> None:
    """Make the storage a warehouse of a format, by default this version's."""
    storage.write(MARKER, json.dumps({"format": version}).encode())
