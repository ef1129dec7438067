"""Garbage collection: what no reader takes any more, and nobody is about to publish, is removed.

A thing goes when it has been of no use for longer than a grace period, by the clock that dates
the files: so long readers that are open stay whole, and so long a publish has from its first file
to its record. (One that takes longer notices that its files are gone, and writes them again.)
Records go before the files they name, so that a kill leaves less garbage than before, and no more.
Only files that have a name of ours go, and none that is reached through a link.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import groupby

from warehouse.commits import STAGES, Commit, Record
from warehouse.names import (
    FOLDERS,
    RECORDS,
    is_data,
    is_pack,
    is_record,
    is_temporary,
    is_weights,
)
from warehouse.schemas import WarehouseError
from warehouse.storage import StoredFile
from warehouse.store import Warehouse


@dataclass(frozen=True, kw_only=True)
class Garbage:
    """Files that may go; `weights` are selectors and checkpoints."""

    records: list[StoredFile] = field(default_factory=list)
    data: list[StoredFile] = field(default_factory=list)
    weights: list[StoredFile] = field(default_factory=list)
    temporary: list[StoredFile] = field(default_factory=list)

    @property
    def files(self) -> list[StoredFile]:
        return [*self.records, *self.data, *self.weights, *self.temporary]


def collect_garbage(store: Warehouse, older_than: float) -> Garbage:
    """Remove what has been of no use for `older_than` seconds; says what was removed.

    Raises WarehouseError when a commit record is damaged or one of a newer version: what it names
    is then not known.
    """
    garbage = find_garbage(store, older_than)
    for some in (garbage.records, [*garbage.data, *garbage.weights, *garbage.temporary]):
        list(store.storage.each(lambda file: store.storage.delete(file.path), some))
    return garbage


def find_garbage(store: Warehouse, older_than: float) -> Garbage:
    """What `collect_garbage` would remove now."""
    if older_than < 0:
        raise WarehouseError(f"older_than is {older_than}; give 0 or more seconds.")
    settled = store.storage.now() - older_than
    # Listed before the records are read: a file that none of them names is not one of theirs.
    files = [file for folder in FOLDERS for file in store.storage.files(folder)]
    files += store.storage.files("", recursive=False)
    _require_known(store, files)
    linked = store.storage.linked([file.path for file in files])
    files = [file for file in files if file.path not in linked]
    old = {file.path: file for file in files if file.modified <= settled}
    busy = {_folder(file.path) for file in files if file.modified > settled}
    garbage, named = Garbage(), set[str]()
    finished: dict[str, set[str]] = {}
    for stage in STAGES:
        kept, useless = _sort_records(store, stage, old)
        garbage.records.extend(old[path] for path in sorted(useless))
        for commit in kept:
            named.update(commit.paths)
            if stage == "train" and commit.files:
                finished.setdefault(commit.key.run_id, set()).update(commit.weights)
    for path, file in old.items():
        top, _, rest = path.partition("/")
        if is_temporary(path):
            if not (is_temporary(_folder(path)) and _folder(path) in busy):
                garbage.temporary.append(file)
        elif is_data(path):
            if path not in named:
                garbage.data.append(file)
        elif (is_weights(path) and unused(path, finished)) or (
            top == "checkpoints" and rest.removesuffix(".pt") in finished
        ):
            garbage.weights.append(file)
    return garbage


def unused(path: str, runs: Mapping[str, Collection[str]]) -> bool:
    """Whether a file of weights is of no run; `runs` has the files of each, if its commit does."""
    run = path.split("/")[1]
    return run not in runs or (bool(runs[run]) and path not in runs[run])


def _require_known(store: Warehouse, files: Iterable[StoredFile]) -> None:
    """Raise WarehouseError for records that this version cannot read: they name files, too."""
    for path in (file.path for file in files if file.path.startswith(f"{RECORDS}/")):
        stage = path.split("/")[1]
        if path.endswith((".json", ".parquet")) and not is_record(path):
            what = f"commits of {stage}" if stage not in STAGES else f"the commit record {path}"
            raise WarehouseError(
                f"{store.url} has {what}, which this version does not know. Collect garbage with "
                "the version that wrote it, or move it away if it is no part of the warehouse."
            )


def _folder(path: str) -> str:
    return path.rpartition("/")[0]


def _sort_records(
    store: Warehouse, stage: str, old: Mapping[str, StoredFile]
) -> tuple[list[Commit], set[str]]:
    """The commits of a stage to keep, and the files of records that may go.

    A record may go when a later one, itself old, has taken its place; a copy of a record, when an
    old pack that is newer than the copy has it, too.
    """
    kept: list[Record] = []
    places: set[str] = set()
    needed: set[str] = set()
    for records in store.log.by_slug(stage).values():
        places.update(record.place for record in records)
        settled = [record for record in records if record.place in old]
        latest = settled[-1].order if settled else None
        current = next((record.order for record in reversed(settled) if record.done), None)
        for _, same in groupby(records, key=lambda record: record.order):
            copies = list(same)
            successor = current if copies[0].done else latest
            if successor and copies[0].order < successor:
                continue
            packs = [copy for copy in copies if copy.place in old and is_pack(copy.place)]
            newest = max(packs, key=lambda c: (old[c.place].modified, c.place), default=None)
            kept.append(newest or copies[0])
            needed.update([newest.place] if newest else [copy.place for copy in copies])
    try:
        return store.log.load(kept), (places - needed) & set(old)
    except FileNotFoundError:  # another process is collecting, too
        return _sort_records(store, stage, old)
