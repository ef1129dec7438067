"""Where the files of a warehouse lie: a folder on disk, or a prefix of an object store (S3).

    open_storage("demo-warehouse")            a folder
    open_storage("s3://bucket/prefix")        credentials, region and AWS_ENDPOINT_URL come from
                                              the environment; pyarrow's URI options work, too

Paths are relative to the warehouse and have "/" between their parts. A file is there whole or not
at all. No two writers use one name, unless what they write may stand for each other: so a plain
rename (disk) or PUT (object store) will do, and neither locks nor hard links are needed.
"""

import atexit
import hashlib
import os
import random
import shlex
import tempfile
import time
import uuid
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import pyarrow as pa
from pyarrow import fs

from warehouse.schemas import DamagedError, WarehouseError

if TYPE_CHECKING:
    import duckdb

ATTEMPTS, FIRST_WAIT, LONGEST_WAIT = 8, 0.1, 10.0  # seconds; each wait is twice the one before
REQUESTS = 16  # at once, of an object store
FEW = 64  # files of a folder that are looked for one by one, on disk
T = TypeVar("T")
R = TypeVar("R")


class StoredFile(NamedTuple):
    """A file as a listing gives it: `modified` is by the storage's clock, in seconds."""

    path: str
    size: int
    modified: float


def open_storage(place: str | Path) -> "Storage":
    """The storage at a folder or URL. Raises WarehouseError for a URL it cannot use."""
    text = str(place)
    return ObjectStore(text) if "://" in text else Disk(Path(text))


class Storage:
    """What disk and object store have in common. Two of the same `url` are equal."""

    url: str
    checked: set[str]  # files whose content was that of their checksum when they were first opened
    keep_open = 1 << 20  # files to read: they are no more than a name
    _fs: fs.FileSystem  # relative paths in, relative paths out

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Storage) and other.url == self.url

    def __hash__(self) -> int:
        return hash(self.url)

    def retrying(self, operation: Callable[[], T]) -> T:
        """Do `operation`, again after an error that may pass."""
        return operation()

    def each(self, function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
        """`function` of each item, in order; at once where that helps."""
        return map(function, items)

    def read(self, path: str) -> bytes:
        """The content of a file. Raises FileNotFoundError."""

        def read() -> bytes:
            with self._fs.open_input_stream(path) as stream:
                return stream.read()

        return self.retrying(read)

    def open(self, path: str) -> pa.NativeFile:
        """A file to read parts of. Raises FileNotFoundError."""
        return self.retrying(lambda: self._fs.open_input_file(path))

    def files(self, folder: str, *, recursive: bool = True) -> list[StoredFile]:
        """The files below a folder; none when it does not exist."""
        where = fs.FileSelector(folder, recursive=recursive, allow_not_found=True)
        for attempt in range(ATTEMPTS):
            try:
                found = self.retrying(lambda: self._fs.get_file_info(where))
                break
            except FileNotFoundError:  # a folder that was made after pyarrow had not found it
                if attempt == ATTEMPTS - 1:
                    raise
        return [StoredFile(i.path, i.size, i.mtime_ns / 1e9) for i in found if i.is_file]

    def now(self) -> float:
        """The time by the clock that dates the files, in seconds."""
        path = f".{uuid.uuid4().hex}.tmp"
        self.write(path, b"")
        try:
            return next(f.modified for f in self.files("", recursive=False) if f.path == path)
        finally:
            self.delete(path)

    def names(self) -> list[str]:
        """The files and folders at the top."""
        where = fs.FileSelector("", allow_not_found=True)
        return [info.base_name for info in self.retrying(lambda: self._fs.get_file_info(where))]

    def linked(self, paths: Iterable[str]) -> set[str]:
        """Those of the paths that are links, or lead through one or out of the storage."""
        return set()

    def delete(self, path: str) -> None:
        """Remove a file; one that is gone already is no error.

        Raises WarehouseError for a file that is reached through a link: it may be somebody else's.
        """
        if self.linked([path]):
            raise WarehouseError(
                f"{self.url}/{path} is reached through a link, and may belong to something else. "
                "Delete it yourself, or the link."
            )
        with suppress(FileNotFoundError):
            self.retrying(lambda: self._fs.delete_file(path))

    def prune(self, folder: str) -> None:
        """Remove a folder, and those in it, where there are no files."""

    def existing(self, paths: Iterable[str]) -> set[str]:
        """Those of the paths that are files."""
        raise NotImplementedError

    def write(self, path: str, content: bytes) -> None:
        """Create a file, its folders as needed, and return when it is safe.

        Raises WarehouseError when the place cannot be written to.
        """
        raise NotImplementedError

    def local_copy(self, path: str, checksums: Mapping[str, str]) -> Path:
        """A file or folder of the warehouse on the local disk, its files with these sha256.

        Files without a checksum are taken as they are. Raises FileNotFoundError, and DamagedError
        for a file of which the storage has not what was written.
        """
        raise NotImplementedError

    def work_folder(self) -> Path:
        """A local folder for what is not finished yet; it outlives the process."""
        raise NotImplementedError

    def attach(self, connection: "duckdb.DuckDBPyConnection") -> str:
        """Let DuckDB read the storage; returns what its file names begin with."""
        return self.attach_read_only(connection)

    def attach_read_only(self, connection: "duckdb.DuckDBPyConnection") -> str:
        """The same through Python, which opens no file for writing."""
        from warehouse.duckdb_files import StorageFiles

        connection.register_filesystem(StorageFiles(self))
        _attached.add(connection)
        return f"{StorageFiles.protocol}://"


class Disk(Storage):
    """A folder; on one shared by several machines all of this holds as well."""

    keep_open = 128  # a process has as few as 1,024 descriptors

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        self.url = str(self.root)
        self.checked = set()
        self._fs = fs.SubTreeFileSystem(self.url, fs.LocalFileSystem())

    def existing(self, paths: Iterable[str]) -> set[str]:
        by_folder: dict[str, set[str]] = {}
        for path in paths:
            by_folder.setdefault(path.rpartition("/")[0], set()).add(path)
        return {path for where, some in by_folder.items() for path in self._existing(where, some)}

    def _existing(self, folder: str, paths: set[str]) -> set[str]:
        """Of paths in one folder."""
        if len(paths) <= FEW:
            return {path for path in paths if (self.root / path).is_file()}
        try:
            with os.scandir(self.root / folder) as entries:
                there = {entry.name for entry in entries if entry.is_file()}
        except (FileNotFoundError, NotADirectoryError):
            return set()
        return {path for path in paths if path.rpartition("/")[2] in there}

    def write(self, path: str, content: bytes) -> None:
        target = self.root / path
        temporary = target.with_name(f".{uuid.uuid4().hex}.tmp")
        with _explained(self.url, path):
            _make_folder(target.parent)
            try:
                with open(temporary, "xb") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
                temporary.rename(target)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise
            _sync_folder(target.parent)

    def prune(self, folder: str) -> None:
        for place, _, _ in os.walk(self.root / folder, topdown=False):
            with suppress(OSError):  # it is not empty
                os.rmdir(place)

    def linked(self, paths: Iterable[str]) -> set[str]:
        paths = set(paths)
        folders = {path.rpartition("/")[0] for path in paths}
        own = {f for f in folders if os.path.realpath(self.root / f) == f"{self.root / f}"}
        return {
            path
            for path in paths
            if path.startswith("/")
            or path.rpartition("/")[0] not in own
            or (self.root / path).is_symlink()
        }

    def local_copy(self, path: str, checksums: Mapping[str, str]) -> Path:
        found = self.root / path
        if not found.exists() or (found.is_dir() and not any(found.iterdir())):
            raise FileNotFoundError(found)
        for file, checksum in checksums.items():
            _require_checksum(self, file, self.read(file), checksum)
        return found

    def work_folder(self) -> Path:
        return self.root

    def attach(self, connection: "duckdb.DuckDBPyConnection") -> str:
        # DuckDB would take a folder's name for a pattern, and read its neighbours, too.
        return f"{self.url}/" if not set("*?[") & set(self.url) else super().attach(connection)


class ObjectStore(Storage):
    """A prefix of a bucket. Errors that may pass (500, throttling, timeouts) are tried again."""

    def __init__(self, url: str) -> None:
        self.url = options = url
        self.checked = set()
        if url.startswith("s3://") and "allow_delayed_open" not in url:
            # A small file is then one PUT, not a multipart upload of three requests.
            options += ("&" if "?" in url else "?") + "allow_delayed_open=true"
        try:
            found, prefix = self.retrying(lambda: fs.FileSystem.from_uri(options))
            self._fs = fs.SubTreeFileSystem(prefix, found)
        except (pa.ArrowException, OSError, ValueError) as error:
            raise WarehouseError(
                f"Cannot use {_without_secrets(url)}: {error}. Give a folder, or "
                "s3://bucket/prefix with AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, "
                "AWS_DEFAULT_REGION and, for a store of your own, AWS_ENDPOINT_URL in the "
                "environment."
            ) from error

    def retrying(self, operation: Callable[[], T]) -> T:
        for attempt in range(ATTEMPTS):
            try:
                return operation()
            except FileNotFoundError:
                raise
            except OSError:
                if attempt == ATTEMPTS - 1:
                    raise
                wait = min(FIRST_WAIT * 2**attempt, LONGEST_WAIT)
                time.sleep(wait * random.uniform(0.5, 1))
        raise AssertionError("unreachable")

    def each(self, function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
        with ThreadPoolExecutor(REQUESTS) as threads:
            yield from threads.map(function, items)

    def existing(self, paths: Iterable[str]) -> set[str]:
        wanted = set(paths)
        if len(wanted) <= REQUESTS:
            found = self.retrying(lambda: self._fs.get_file_info(sorted(wanted)))
            return {info.path for info in found if info.is_file}
        folders = {path.rpartition("/")[0] for path in wanted}
        listed = self.each(lambda folder: self.files(folder, recursive=False), folders)
        return wanted & {file.path for files in listed for file in files}

    def write(self, path: str, content: bytes) -> None:
        def put() -> None:
            with self._fs.open_output_stream(path) as stream:
                stream.write(content)

        with _explained(_without_secrets(self.url), path):
            self.retrying(put)

    def local_copy(self, path: str, checksums: Mapping[str, str]) -> Path:
        copy = self.work_folder() / path
        if copy.exists() and all(
            _has_checksum(self.work_folder() / file, checksum)
            for file, checksum in checksums.items()
        ):
            return copy
        copy.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=copy.parent) as folder:
            part = Path(folder, copy.name)
            inside = [file.path for file in self.files(path)] or [path]
            for file, content in zip(inside, self.each(self.read, inside), strict=True):
                if file in checksums:
                    _require_checksum(self, file, content, checksums[file])
                target = part.joinpath(file[len(path) :].lstrip("/"))
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(content)
            if missing := set(checksums) - set(inside):
                raise FileNotFoundError(", ".join(sorted(missing)))
            try:
                part.rename(copy)
            except OSError:  # there is a damaged copy, or another process was first
                if not copy.exists():
                    raise
                copy.rename(Path(folder, "replaced"))
                part.rename(copy)
        return copy

    def work_folder(self) -> Path:
        caches = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        name = hashlib.sha256(self.url.encode()).hexdigest()[:16]
        return Path(os.environ.get("SOLA_CACHE") or Path(caches, "sola")) / name


def mend_damage(storage: Storage) -> str:
    """What to do about a damaged file of the storage."""
    where = shlex.quote(storage.url)
    return f"Run `sola verify --warehouse {where} --delete-damaged`, and then what that names."


def _require_checksum(storage: Storage, path: str, content: bytes, checksum: str) -> None:
    if hashlib.sha256(content).hexdigest() != checksum:
        raise DamagedError(
            f"{storage.url}/{path} is damaged: its checksum is not the one it was published with. "
            f"{mend_damage(storage)}"
        )


def _has_checksum(file: Path, checksum: str) -> bool:
    return file.is_file() and hashlib.sha256(file.read_bytes()).hexdigest() == checksum


_attached: "weakref.WeakSet[duckdb.DuckDBPyConnection]" = weakref.WeakSet()


@atexit.register
def _close_attached() -> None:
    """A connection that reads through Python must not outlive it: that could end in an abort."""
    for connection in list(_attached):
        connection.close()


def _without_secrets(url: str) -> str:
    """The URL as it may be printed: no user, password or options."""
    scheme, _, rest = url.partition("?")[0].partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"


def _make_folder(folder: Path) -> None:
    """Make `folder` and its parents, each safe on disk in the one above it."""
    if not folder.is_dir():
        _make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        _sync_folder(folder.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _explained(place: str, path: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise WarehouseError(
            f"Cannot write {place}/{path}: {error.strerror or error}. Check that the place exists, "
            "that you may write to it and that it has space, then run again."
        ) from error
