"""What this machine has free."""

import shutil
from contextlib import suppress
from pathlib import Path

GIB = 2**30


def free_memory() -> int | None:
    """Bytes that a new process could have, of the machine and of the container if it is in one.

    None where that is not known: it is read off Linux's files.
    """
    found = []
    with suppress(OSError, StopIteration, ValueError):
        lines = Path("/proc/meminfo").read_text().splitlines()
        found.append(1024 * int(next(x for x in lines if x.startswith("MemAvailable")).split()[1]))
    with suppress(OSError, ValueError):  # "max" is no number: there is no limit
        group = Path("/sys/fs/cgroup")
        limit = int((group / "memory.max").read_text())
        found.append(limit - int((group / "memory.current").read_text()))
    return min(found, default=None)


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
