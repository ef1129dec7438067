"""Check every file of a warehouse against what the commit records say of it."""

import hashlib
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from warehouse.collect import FOLDERS, is_temporary
from warehouse.commit_log import Pack, is_pack
from warehouse.commits import STAGES, Commit, DataFile, Key, Record, parse_record, readable
from warehouse.schemas import WarehouseError, readable_as, require_value
from warehouse.storage import StoredFile
from warehouse.store import Warehouse

IN_FLIGHT = 3600.0  # seconds; what is younger and named by no record may be about to be published

REDO = "redo"  # run the stage again
DELETE = "delete"  # delete the file, then run the stage again
COLLECT = "collect"  # collect garbage; it does no harm until then
LOOK = "look"  # nothing of ours puts such a file there: somebody has to look at it

CHANGED = "its checksum is not the one it was published with"


@dataclass(frozen=True, kw_only=True)
class Problem:
    """What is wrong with a file, and how it is mended; `keys` are those whose data it holds."""

    path: str
    error: str
    mend: str
    stage: str = ""
    keys: tuple[Key, ...] = ()


class Part(NamedTuple):
    """The rows of a table that a commit has in a file."""

    table: str
    file: DataFile
    commit: Commit


def verify(store: Warehouse, in_flight: float = IN_FLIGHT) -> list[Problem]:
    """Everything that is wrong, by path; nothing is changed.

    Every record is read. Every file that a current commit names is there, has its checksum, the
    schema of its table and its number of rows, and the rows have the key they are published
    under. Files that no record names, or that a kill left, count when older than `in_flight`
    seconds.
    """
    files = [file for folder in FOLDERS for file in store.storage.files(folder)]
    files += store.storage.files("", recursive=False)
    settled = _now(store) - in_flight
    problems: list[Problem] = []
    named: set[str] = set()
    runs: set[str] = set()
    for stage in STAGES:
        records, damaged = _records(store, stage, files)
        current = _current(records)
        problems += [*damaged, *_data(store, stage, current)]
        named.update(path for _, commit in records for path in commit.paths)
        if stage == "train":
            problems += _weights(store, current, files)
            runs = {commit.key.run_id for commit in current}
    old = [file.path for file in files if file.modified <= settled]
    if not any(problem.path.startswith("commits/") for problem in problems):  # else: not known
        problems += _orphans(old, named, runs)
    problems += [_problem(p, "left by a kill", COLLECT) for p in old if is_temporary(p)]
    problems += [
        _problem(file.path, "not a file of a warehouse", LOOK)
        for file in files
        if not (is_temporary(file.path) or _is_ours(file.path))
    ]
    return sorted(problems, key=lambda problem: problem.path)


def delete_damaged(store: Warehouse, problems: Iterable[Problem]) -> None:
    """Delete the files whose problem that mends: what they held counts as missing from then on."""
    for problem in problems:
        if problem.mend == DELETE:
            store.storage.delete(problem.path)


def _now(store: Warehouse) -> float:
    """The time by the storage's clock; by our own where nothing can be written to ask it."""
    try:
        return store.storage.now()
    except WarehouseError:
        return time.time()


def _records(
    store: Warehouse, stage: str, files: Iterable[StoredFile]
) -> tuple[list[tuple[Record, Commit]], list[Problem]]:
    """The records of a stage that can be read, and what is wrong with the others."""

    def read(path: str) -> list[tuple[Record, Commit]] | Problem:
        try:
            return _in_file(path, store.storage.read(path))
        except FileNotFoundError:  # collected since it was listed
            return []
        except (WarehouseError, pa.ArrowException, OSError, KeyError) as error:
            return _problem(path, f"damaged commit record: {error}", DELETE, stage)

    paths = [file.path for file in files if file.path.startswith(f"commits/{stage}/")]
    results = list(store.storage.each(read, [path for path in paths if _is_ours(path)]))
    damaged = [result for result in results if isinstance(result, Problem)]
    return [r for result in results if isinstance(result, list) for r in result], damaged


def _in_file(path: str, content: bytes) -> list[tuple[Record, Commit]]:
    """The records in a file. Raises WarehouseError when one is not what its name says."""
    if is_pack(path):
        pack = Pack(path, content)
        found = [(record, pack.content(record)) for record in pack.records()]
    else:
        record = parse_record(path.rpartition("/")[2], path)
        assert record, path
        found = [(record, content)]
    commits = [(record, Commit.from_json(text)) for record, text in found]
    for record, commit in commits:
        status = "done" if record.done else "failed"
        named = (record.slug, record.generation, record.fingerprint, status)
        if named != (commit.key.slug, commit.generation, commit.fingerprint, commit.status):
            raise WarehouseError(f"{record.name} holds another commit, of {commit.key}")
        if record.done and set(commit.files) != set(STAGES[commit.stage]):
            raise WarehouseError(f"{record.name} names files of {', '.join(commit.files)}")
    return commits


def _current(records: Iterable[tuple[Record, Commit]]) -> list[Commit]:
    by_key: dict[Key, dict[Record, Commit]] = {}
    for record, commit in records:
        by_key.setdefault(commit.key, {})[record] = commit
    return [
        found[record]
        for found in by_key.values()
        for record in readable(sorted(found))
        if record.done
    ]


def _data(store: Warehouse, stage: str, commits: Iterable[Commit]) -> list[Problem]:
    """What is wrong with the data files of a stage's current commits."""
    parts: dict[str, list[Part]] = {}
    for commit in commits:
        for table, file in commit.files.items():
            parts.setdefault(file.path, []).append(Part(table, file, commit))

    def check(path: str) -> Problem | None:
        keys = tuple(part.commit.key for part in parts[path])
        try:
            _check_file(store.storage.read(path), parts[path])
        except FileNotFoundError:
            return Problem(path=path, error="is gone", mend=REDO, stage=stage, keys=keys)
        except (WarehouseError, pa.ArrowException, OSError) as error:
            return Problem(path=path, error=str(error), mend=DELETE, stage=stage, keys=keys)
        return None

    return [problem for problem in store.storage.each(check, parts) if problem]


def _check_file(content: bytes, parts: Sequence[Part]) -> None:
    """Raise WarehouseError, or what pyarrow does, unless the file has exactly these parts."""
    table, file, _ = parts[0]
    if hashlib.sha256(content).hexdigest() != file.file_sha256:
        raise WarehouseError(CHANGED)
    parquet = pq.ParquetFile(pa.BufferReader(content))
    schema = parquet.schema_arrow
    if not readable_as(table, schema):
        raise WarehouseError(f"its schema is not that of table {table!r}")
    if parquet.metadata.num_rows != file.file_rows:
        raise WarehouseError(f"it has {parquet.metadata.num_rows} rows, not {file.file_rows}")
    spans = sorted(part.file.span for part in parts)
    if spans[-1][1] > file.file_rows or any(a[1] > b[0] for a, b in pairwise(spans)):
        raise WarehouseError("two commits name the same rows of it, or rows that it has not")
    rows = parquet.read([name for name in asdict(Key()) if name in schema.names])
    for part in parts:
        own = rows.slice(part.file.first_row, part.file.rows)
        for column, value in asdict(part.commit.key).items():
            if value and column in own.column_names:
                require_value(table, own, column, value)


def _weights(
    store: Warehouse, runs: Iterable[Commit], files: Iterable[StoredFile]
) -> list[Problem]:
    """Weights that are gone or damaged; without checksums (a shared selector) only the former."""
    there = {file.path for file in files}
    folders = {path.rpartition("/")[0] for path in there}
    problems = []
    for commit in store.intact(list(runs)):
        for path, checksum in commit.weights.items():
            if path not in there:
                error = f"the weights of run {commit.key.run_id} are gone"
                problems.append(_problem(path, error, REDO, "train", commit.key))
            elif hashlib.sha256(store.storage.read(path)).hexdigest() != checksum:
                problems.append(_problem(path, CHANGED, DELETE, "train", commit.key))
        if commit.weights:
            continue
        for run in store.read("runs", [commit]).to_pylist():
            if run["weights"] not in there | folders:
                error = f"the weights of run {run['run_id']} are gone"
                problems.append(_problem(run["weights"], error, REDO, "train", commit.key))
    return problems


def _orphans(paths: Iterable[str], named: set[str], runs: set[str]) -> list[Problem]:
    """Data that no record names, and selectors of no run."""
    problems = []
    for path in paths:
        folder, _, rest = path.partition("/")
        if folder == "data" and path.endswith(".parquet") and path not in named:
            problems.append(_problem(path, "no commit record names it", COLLECT))
        elif folder == "selectors" and rest.partition("/")[0] not in runs:
            problems.append(_problem(path, "no run has these weights", COLLECT))
    return problems


def _is_ours(path: str) -> bool:
    """Whether a path is one that this package gives to a file."""
    folder, _, rest = path.partition("/")
    if folder == "commits":
        record = parse_record(path.rpartition("/")[2], path)
        return rest.partition("/")[0] in STAGES and (is_pack(path) or record is not None)
    return folder != "data" or path.endswith(".parquet")


def _problem(path: str, error: str, mend: str, stage: str = "", *keys: Key) -> Problem:
    return Problem(path=path, error=error, mend=mend, stage=stage, keys=keys)
