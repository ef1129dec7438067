"""The files of a storage as DuckDB reads them through Python: read-only, and never changing."""

import threading
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from fsspec import AbstractFileSystem

if TYPE_CHECKING:
    from warehouse.storage import Storage


class StorageFiles(AbstractFileSystem):
    """An fsspec file system over a storage: `warehouse://<path in the warehouse>`."""

    protocol = "warehouse"
    cachable = False

    def __init__(self, storage: "Storage") -> None:
        super().__init__()
        self._storage = storage
        self._opened: dict[str, pa.NativeFile] = {}  # the last used is last
        self._lock = threading.Lock()

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        return {"name": path, "size": self._file(path).size(), "type": "file"}

    def glob(self, path: str, **_: Any) -> list[str]:
        return [path]  # the views name their files one by one

    def exists(self, path: str, **_: Any) -> bool:
        return True

    def modified(self, path: str) -> datetime:
        return datetime.fromtimestamp(0, UTC)

    def _open(self, path: str, mode: str = "rb", **_: Any) -> "_File":
        if mode != "rb":
            raise PermissionError(f"{path} is open for reading only")
        return _File(self._storage, self._file(path))

    def _file(self, path: str) -> pa.NativeFile:
        path = self._strip_protocol(path)
        with self._lock:
            file = self._opened.pop(path, None)
        if file is None:
            file = self._storage.open(path)
        with self._lock:
            self._opened[path] = file
            if len(self._opened) > self._storage.keep_open:
                del self._opened[next(iter(self._opened))]
        return file


class _File:
    """A file to read. Each thread has a position of its own: DuckDB seeks and reads in several."""

    def __init__(self, storage: "Storage", file: pa.NativeFile) -> None:
        self._storage = storage
        self._file = file
        self._at = threading.local()

    def seek(self, position: int, whence: int = 0) -> int:
        base = (0, self.tell(), self._file.size())[whence]
        self._at.position = base + position
        return self._at.position

    def tell(self) -> int:
        return getattr(self._at, "position", 0)

    def read(self, count: int = -1) -> bytes:
        start = self.tell()
        count = self._file.size() - start if count < 0 else count
        content = self._storage.retrying(lambda: self._file.read_at(count, start))
        self._at.position = start + len(content)
        return content

    def close(self) -> None:
        """Others may be reading the same file: it is closed when nobody has it any more."""
