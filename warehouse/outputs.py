"""Places that commands write to: refused before any work where writing would do harm."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from warehouse.images import IMAGE_SUFFIXES
from warehouse.storage import Disk
from warehouse.store import Warehouse
from warehouse.video_files import VIDEO_SUFFIXES


class OutputError(ValueError):
    """A place that cannot be written to, or must not be; the message names it."""


def check_output(out: Path, read: Iterable[Path]) -> None:
    """Raise OutputError unless `out` can become a file, and is none of the files that are read.

    `read` are files, and folders for all files in them. Links, symbolic and hard, are the file
    that they lead to. Nothing is looked at while `out` is a new name.
    """
    folder = out.absolute().parent
    if not folder.is_dir():
        raise OutputError(f"{out}: there is no folder {folder}; make it, or write elsewhere")
    if out.is_dir():
        raise OutputError(f"{out}: is a folder; give the name of a file")
    check_unread([out], read)


def check_unread(outs: Iterable[Path], read: Iterable[Path]) -> None:
    """Raise OutputError if one of `outs` is one of the files that are read, as `check_output`."""
    there = {_identity(out): out for out in outs if out.exists()}
    for file in _files(read) if there else ():
        if out := there.get(_identity(file)):
            raise OutputError(
                f"{out}: writing it would destroy {file}, which is read; write elsewhere"
            )


def folder_of(store: Warehouse) -> list[Path]:
    """The warehouse's own folder, if it has one."""
    return [store.root] if isinstance(store.storage, Disk) else []


def files_of(store: Warehouse, out: Path) -> Iterator[Path]:
    """What commands over a warehouse read that `out` could be.

    The warehouse's own files, and its videos where `out` is named like an image or a video.
    """
    yield from folder_of(store)
    if out.suffix.lower() in (*IMAGE_SUFFIXES, *VIDEO_SUFFIXES):
        paths = store.read("videos", store.current("ingest").values())["path"]
        yield from map(Path, paths.unique().to_pylist())


def _files(paths: Iterable[Path]) -> Iterator[Path]:
    for path in paths:
        found = path.rglob("*") if path.is_dir() else [path]
        yield from (file for file in found if file.is_file())


def _identity(file: Path) -> tuple[int, int]:
    """What two names of one file have in common."""
    stat = file.stat()
    return stat.st_dev, stat.st_ino
