"""Compaction: many small files become few, and readers notice nothing but the speed.

The rows of a group of commits are copied to one file per table; then one pack of records, each
the next version of a commit that is current, makes the copies the current ones in a single step.
What was copied stays where it is, for `sola gc` to remove later. A new version ranks above its
commit and below everything published after that, so a concurrent publish is never undone; of two
concurrent compactions one wins, record by record, and the other's files are removed later.
"""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import groupby

from warehouse.commits import STAGES, Commit, Record, record_name
from warehouse.data_files import merge_files
from warehouse.schemas import NewerError
from warehouse.store import Warehouse

TARGET_BYTES = 128 << 20  # of the files that commits share; those below half of it are merged
PILE = 1000  # videos of a stage in files of their own: SQL over 2,000 takes 2 to 36 times as long
RECORD_FILES = 16  # when more files than these hold the records of a stage, one pack replaces them

Unit = list[tuple[Record, Commit]]  # commits that have the same files


@dataclass(frozen=True, kw_only=True)
class Compacted:
    """What compaction did: how many commits it moved, from and to how many data files."""

    commits: int
    files_before: int
    files_after: int


def compact(store: Warehouse, target_bytes: int = TARGET_BYTES) -> Compacted:
    """Merge the small data files and the records of every stage. Safe at any time.

    Commits whose files are gone are passed over, and what a newer version wrote, which would lose
    what this one does not know. Raises DamagedError for damaged files.
    """
    moved, before, after = 0, 0, 0
    for stage in STAGES:
        for units in _groups(store, stage, target_bytes):
            group = [member for unit in units for member in unit]
            try:
                _merge(store, stage, group)
            except FileNotFoundError:  # superseded and collected meanwhile, or lost: see verify
                continue
            except NewerError:
                continue
            moved += len(group)
            before += len({path for _, commit in group for path in commit.paths})
            after += len(STAGES[stage])
        _pack_records(store, stage)
    return Compacted(commits=moved, files_before=before, files_after=after)


def compact_pile(store: Warehouse, stage: str) -> Compacted | None:
    """`compact`, when PILE videos of a stage have files of their own; None when they have not.

    Raises WarehouseError for damaged files.
    """
    try:
        piled = store.log.unpacked(stage) >= PILE
    except FileNotFoundError:  # another process is collecting garbage
        return None
    return compact(store) if piled else None


def _groups(store: Warehouse, stage: str, target_bytes: int) -> Iterator[list[Unit]]:
    """The units whose files are to become one per table, of a split each, in order of their keys.

    A unit whose files are large enough stays as it is until half of the rows are superseded, or one
    was withdrawn.
    """
    sizes = {
        file.path: file.size
        for table in STAGES[stage]
        for file in store.storage.files(f"data/{table}")
    }
    withdrawn = {path for _, commit in store.withdrawn_records(stage) for path in commit.paths}
    units: dict[tuple[str, ...], Unit] = {}
    for record, commit in store.current_records(stage):
        if commit.files and not commit.newer and all(path in sizes for path in commit.paths):
            units.setdefault(tuple(commit.paths), []).append((record, commit))

    def split(unit: Unit) -> tuple[str, str]:
        return unit[0][1].key.dataset, unit[0][1].key.split

    def run_and_video(unit: Unit) -> tuple[str, str]:
        return unit[0][1].key.run_id, unit[0][1].key.video_id

    ordered = sorted(units.values(), key=lambda unit: (split(unit), run_and_video(unit)))
    for _, same_split in groupby(ordered, key=split):
        group: list[Unit] = []
        size = 0.0
        for unit in same_split:
            live = _live(unit)
            paths = unit[0][1].paths
            unit_size = live * sum(sizes[path] for path in paths)
            if unit_size >= target_bytes / 2 and live >= 0.5 and withdrawn.isdisjoint(paths):
                continue
            if size + unit_size > target_bytes:
                yield from _worthwhile(group)
                group, size = [], 0.0
            group.append(unit)
            size += unit_size
        yield from _worthwhile(group)


def _worthwhile(group: list[Unit]) -> list[list[Unit]]:
    return [group] if len(group) > 1 or any(_live(unit) < 1 for unit in group) else []


def _live(unit: Unit) -> float:
    """Which share of the rows in the unit's files is current."""
    rows = sum(commit.rows for _, commit in unit)
    return rows / (sum(file.file_rows for file in unit[0][1].files.values()) or 1) if rows else 1.0


def _merge(store: Warehouse, stage: str, group: Unit) -> None:
    commits = [commit for _, commit in group]
    merged = {table: merge_files(store.storage, table, commits) for table in commits[0].files}
    versions = {}
    for index, (record, commit) in enumerate(group):
        moved = replace(commit, files={table: files[index] for table, files in merged.items()})
        versions[record_name(moved, record.version + 1)] = moved
    pack = store.log.append_pack(stage, versions)
    if len(store.intact(versions.values())) < len(versions):  # collected: it took too long
        store.storage.delete(pack)
        raise FileNotFoundError(pack)


def _pack_records(store: Warehouse, stage: str) -> None:
    """One pack of all that readers take of a stage, when too many files hold it."""
    readable = [found for found in store.readable_records(stage) if not found[1].newer]
    if len({record.place for record, _ in readable}) > RECORD_FILES:
        with suppress(FileNotFoundError):  # collected meanwhile: another one has packed them
            store.log.copy_to_pack(stage, [record for record, _ in readable])
