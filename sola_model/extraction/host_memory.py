"""How much memory of the host is free."""

import os
from contextlib import suppress
from pathlib import Path

MEMINFO, OWN_GROUPS, GROUPS = (
    Path(name) for name in ("/proc/meminfo", "/proc/self/cgroup", "/sys/fs/cgroup")
)
# Of a control group: its limit, what it uses, and the name of what of that is cached files.
VERSION_1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
VERSION_2 = ("memory.max", "memory.current", "inactive_file")


def free_memory() -> int:
    """Bytes that this process can take before something is swapped out or killed.

    By what Linux says of the machine, and of the control groups (1 or 2) that this process is in;
    elsewhere all memory that there is.
    """
    free = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    with suppress(OSError, LookupError, ValueError):
        free.append(1024 * _numbers(MEMINFO)["MemAvailable:"])
    with suppress(OSError, LookupError, ValueError):
        for line in OWN_GROUPS.read_text().splitlines():
            _, controllers, name = line.split(":", 2)
            if controllers in ("", "memory"):
                root = GROUPS / controllers
                group = root / name.lstrip("/")
                around = [group, *group.parents]
                free += [
                    _left(folder, *(VERSION_1 if controllers else VERSION_2))
                    for folder in around[: around.index(root) + 1]
                    if (folder / "memory.stat").is_file()
                ]
    return max(min(free), 0)


def _left(group: Path, limit: str, used: str, cached: str) -> int:
    """What a control group may still take; a very large number if it has no limit."""
    most = (group / limit).read_text().strip() if (group / limit).is_file() else "max"
    if most == "max":
        return 2**63
    reclaimable = _numbers(group / "memory.stat")[cached]
    return int(most) - int((group / used).read_text()) + reclaimable


def _numbers(file: Path) -> dict[str, int]:
    """The first number after each name that begins a line."""
    return {words[0]: int(words[1]) for words in map(str.split, file.read_text().splitlines())}
