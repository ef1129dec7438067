"""How much disk is free, and bytes as people read them."""

import shutil
from pathlib import Path

GIB = 2**30


def free_disk(place: str) -> tuple[int, Path] | None:
    """Bytes that are free where a folder is or is going to be, and the folder that is there.

    None for an object store.
    """
    if "://" in place:
        return None
    path = Path(place).absolute()
    above = next(folder for folder in (path, *path.parents) if folder.exists())
    return shutil.disk_usage(above).free, above


def for_people(size: float) -> str:
    """Bytes for people: 3.41 GiB, 12 MiB."""
    return f"{size / GIB:.3g} GiB" if size >= GIB else f"{size / 2**20:.3g} MiB"
