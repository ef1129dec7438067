"""Files that are written once: whole and safe on disk, or not there at all."""

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from warehouse.schemas import WarehouseError


def write_once(path: Path, content: bytes) -> bool:
    """Create `path` with `content`; False, and nothing changed, when it is there already.

    Its folders are made as needed. Raises WarehouseError when the place cannot be written to.
    """
    temporary = path.with_name(f".{uuid.uuid4().hex}.tmp")
    with _explained(path):
        _make_folder(path.parent)
        try:
            with open(temporary, "xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.link(temporary, path)  # unlike a rename, this never replaces a file
        except FileExistsError:
            return False
        finally:
            temporary.unlink(missing_ok=True)
        _sync_folder(path.parent)
    return True


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
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise WarehouseError(
            f"Cannot write {path}: {error.strerror}. Check that the folder exists, that you may "
            "write to it and that the disk has space, then run again."
        ) from error
