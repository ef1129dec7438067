"""Check every file of a warehouse against what the commit records say of it.

Deletion needs proof: only a file that was read twice, with the same bytes, of which a checksum
differs that is itself proven, is one to delete. What cannot be read, and what another version may
have written, is said, and left.
"""

import hashlib
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import pairwise
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from warehouse.collect import unused
from warehouse.commits import (
    CHANGED,
    STAGES,
    Commit,
    DataFile,
    Key,
    Record,
    parse_record,
    readable,
)
from warehouse.conform import readable_as, require_value
from warehouse.names import (
    FOLDERS,
    RECORDS,
    crc_in,
    crc_of,
    is_data,
    is_pack,
    is_record,
    is_temporary,
    is_weights,
)
from warehouse.packs import Pack, commit_of
from warehouse.schemas import (
    TABLES,
    DamagedError,
    NewerError,
    WarehouseError,
)
from warehouse.storage import StoredFile
from warehouse.store import Warehouse

IN_FLIGHT = 3600.0  # seconds; what is younger and named by no record may be about to be published

REDO = "redo"  # run the stage again
DELETE = "delete"  # delete the file, then run the stage again
COLLECT = "collect"  # collect garbage; it does no harm until then
RETRY = "retry"  # it could not be read: mend the disk, the rights or the connection
NEWER = "newer"  # made by a newer version: use that
LOOK = "look"  # nothing proves what it should be: somebody has to look at it

UNREADABLE = "it cannot be read, so nothing is known of it"
LINKED = "a link leads there, so it may be somebody else's: nothing deletes it"


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
    runs: dict[str, Collection[str]] = {}
    for stage in STAGES:
        records, wrong = _records(store, stage, files)
        current = _current(records)
        problems += [*wrong, *_data(store, stage, current)]
        named.update(path for _, commit in records for path in commit.paths)
        if stage == "train":
            problems += _weights(store, current, files)
            runs = {c.key.run_id: c.weights for c in current if not c.withdrawn}
    linked = store.storage.linked([file.path for file in files])
    own = [file for file in files if file.path not in linked]
    problems += [found for file in own if (found := _stranger(file.path))]
    old = [file.path for file in own if file.modified <= settled]
    if not any(problem.path.startswith(f"{RECORDS}/") for problem in problems):  # else: not known
        problems += _orphans(old, named, runs)
    problems += [_problem(p, "left by a kill", COLLECT) for p in old if is_temporary(p)]
    problems = [
        replace(problem, error=f"{problem.error}; {LINKED}", mend=LOOK)
        if problem.mend == DELETE and problem.path in linked
        else problem
        for problem in problems
    ]
    strange = {path.rpartition("/")[0] for path in linked - named if path.startswith("data/")}
    problems += [_problem(folder, LINKED, LOOK) for folder in strange]
    return sorted(problems, key=lambda problem: problem.path)


def delete_damaged(store: Warehouse, problems: Iterable[Problem]) -> None:
    """Delete the files that call for it; what they held counts as missing from then on."""
    for problem in problems:
        if problem.mend == DELETE:
            store.storage.delete(problem.path)


def _now(store: Warehouse) -> float:
    """The time by the storage's clock; by our own where nothing can be written to ask it."""
    try:
        return store.storage.now()
    except WarehouseError:
        return time.time()


def _judge(
    store: Warehouse, path: str, check: Callable[[bytes], None], stage: str, *keys: Key
) -> Problem | None:
    """What is wrong with a file, of which `check` says what is wrong with its content.

    Raises FileNotFoundError.
    """
    try:
        content = store.storage.read(path)
        try:
            check(content)
        except DamagedError as error:
            if store.storage.read(path) == content:
                return _problem(path, f"damaged: {error}", DELETE, stage, *keys)
            return _problem(
                path, f"{UNREADABLE}: it reads differently each time", RETRY, stage, *keys
            )
        except NewerError as error:
            return _problem(path, f"made by a newer version: {error}", NEWER, stage, *keys)
        except WarehouseError as error:
            return _problem(path, str(error), LOOK, stage, *keys)
    except FileNotFoundError:
        raise
    except OSError as error:
        return _problem(path, f"{UNREADABLE}: {error}", RETRY, stage, *keys)
    return None


def _records(
    store: Warehouse, stage: str, files: Iterable[StoredFile]
) -> tuple[list[tuple[Record, Commit]], list[Problem]]:
    """The records of a stage that can be read, and what is wrong with the others."""

    def read(path: str) -> tuple[list[tuple[Record, Commit]], Problem | None]:
        found: list[tuple[Record, Commit]] = []
        try:
            problem = _judge(store, path, lambda c: found.extend(_in_file(path, c)), stage)
        except FileNotFoundError:  # collected since it was listed
            return [], None
        return found, problem

    paths = [file.path for file in files if file.path.startswith(f"{RECORDS}/{stage}/")]
    results = list(store.storage.each(read, [path for path in paths if is_record(path)]))
    wrong = [problem for _, problem in results if problem]
    return [found for records, _ in results for found in records], wrong


def _in_file(path: str, content: bytes) -> list[tuple[Record, Commit]]:
    """The records in a file. Raises WarehouseError when one is not what its name says."""
    if is_pack(path):
        pack = Pack(path, content)
        found = [(record, pack.content(record)) for record in pack.records()]
    else:
        record = parse_record(path.rpartition("/")[2], path)
        assert record, path
        found = [(record, content)]
    try:
        commits = [(record, commit_of(record, text)) for record, text in found]
    except DamagedError as error:
        if is_pack(path):  # which is as it was written
            raise WarehouseError(f"it was packed with a record that is damaged: {error}") from error
        raise
    for record, commit in commits:
        if commit.files and (lacking := set(STAGES[commit.stage]) - set(commit.files)):
            raise NewerError(f"{record.name} has no file of {', '.join(sorted(lacking))}")
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


def _data(store: Warehouse, stage: str, current: Iterable[Commit]) -> list[Problem]:
    """What is wrong with the data files of a stage's current commits."""
    parts: dict[str, list[Part]] = {}
    for commit in current:
        for table, file in commit.files.items():
            parts.setdefault(file.path, []).append(Part(table, file, commit))

    def check(path: str) -> Problem | None:
        keys = tuple(part.commit.key for part in parts[path])
        try:
            return _judge(store, path, lambda c: _check_file(c, parts[path]), stage, *keys)
        except FileNotFoundError:
            return _problem(path, "is gone", REDO, stage, *keys)

    return [problem for problem in store.storage.each(check, parts) if problem]


def _check_file(content: bytes, parts: Sequence[Part]) -> None:
    """Raise WarehouseError unless the file has exactly these parts."""
    table = parts[0].table
    _check_sha256(content, parts)
    if table not in TABLES:
        raise NewerError(f"there is no table {table!r}")
    try:
        parquet = pq.ParquetFile(pa.BufferReader(content))
        schema = parquet.schema_arrow
        if not readable_as(table, schema):
            raise NewerError(f"its columns are not those of table {table!r}")
        rows = parquet.read([name for name in asdict(Key()) if name in schema.names])
    except (pa.ArrowException, OSError) as error:
        raise NewerError(f"its checksum is right, but it does not read: {error}") from error
    expected = parts[0].file.file_rows
    if rows.num_rows != expected:
        raise WarehouseError(
            f"its checksum is right, but it has {rows.num_rows} rows, not {expected}"
        )
    spans = sorted(part.file.span for part in parts)
    if spans[-1][1] > expected or any(a[1] > b[0] for a, b in pairwise(spans)):
        raise WarehouseError("two commits name the same rows of it, or rows that it has not")
    for part in parts:
        own = rows.slice(part.file.first_row, part.file.rows)
        for column, value in asdict(part.commit.key).items():
            if value and column in own.column_names:
                require_value(table, own, column, value)


def _check_sha256(content: bytes, parts: Sequence[Part]) -> None:
    """Raise DamagedError when the content is proven not to be what was written.

    A checksum in a record is proven by the CRC-32 in the file's name, or by being there twice: in
    two records, or as the name of the rows that were first published in this file. That of a
    record's own does not: an upgrade gave it to what a record of format 2, which had none, said.
    """
    files = [part.file for part in parts]
    found, stated = hashlib.sha256(content).hexdigest(), {file.file_sha256 for file in files}
    if stated == {found}:
        return
    crc = crc_in(files[0].path)
    said = [sha256 for file in files for sha256 in (file.file_sha256, file.sha256)]
    twice = len(stated) == 1 and said.count(files[0].file_sha256) > 1
    if crc_of(content) != crc if crc else twice:
        raise DamagedError(CHANGED)
    raise WarehouseError(
        "its checksum is not the one in its record, and nothing else says which of them is right"
    )


def _weights(
    store: Warehouse, runs: Iterable[Commit], files: Iterable[StoredFile]
) -> list[Problem]:
    """Weights that are gone or damaged; without checksums (a shared selector) only the former."""
    there = {file.path for file in files}
    there |= {path.rpartition("/")[0] for path in there}
    problems = []
    for commit in runs:
        gone = f"the weights of run {commit.key.run_id} are gone"
        for path, checksum in commit.weights.items():
            try:
                check = partial(_check_weights, checksum=checksum)
                problems.append(_judge(store, path, check, "train", commit.key))
            except FileNotFoundError:
                problems.append(_problem(path, gone, REDO, "train", commit.key))
        for path in [] if commit.weights else _weights_of(store, commit):
            if path not in there:
                problems.append(_problem(path, gone, REDO, "train", commit.key))
    return [problem for problem in problems if problem]


def _check_weights(content: bytes, checksum: str) -> None:
    if hashlib.sha256(content).hexdigest() != checksum:
        raise DamagedError(CHANGED)


def _weights_of(store: Warehouse, commit: Commit) -> list[str]:
    """The weights that the rows of a run name; none when they do not read, which `_data` says."""
    try:
        return store.read("runs", [commit])["weights"].to_pylist()
    except (FileNotFoundError, WarehouseError, OSError):
        return []


def _orphans(
    paths: Iterable[str], named: set[str], runs: Mapping[str, Collection[str]]
) -> list[Problem]:
    """Data that no record names, and selectors of no run."""
    problems = []
    for path in paths:
        if is_data(path) and path not in named:
            problems.append(_problem(path, "no commit record names it", COLLECT))
        elif is_weights(path) and unused(path, runs):
            problems.append(_problem(path, "no run has these weights", COLLECT))
    return problems


def _stranger(path: str) -> Problem | None:
    """What to do about a file whose name is none that this version gives."""
    folder, name, *_ = *path.split("/"), ""
    if is_temporary(path):
        return None
    if folder == "data" and not is_data(path):
        newer = name not in TABLES and path.endswith(".parquet")
    elif folder == RECORDS and not is_record(path):
        newer = name not in STAGES
    elif folder == "selectors" and not is_weights(path):
        newer = False
    else:
        return None
    if newer:
        return _problem(path, f"of a newer version: there is no {name!r} in this one", NEWER)
    return _problem(path, "not a file of a warehouse", LOOK)


def _problem(path: str, error: str, mend: str, stage: str = "", *keys: Key) -> Problem:
    return Problem(path=path, error=error, mend=mend, stage=stage, keys=keys)
