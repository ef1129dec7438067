"""A stage as a value, and the one way in which all of them plan and make the data of a video.

A stage says what it reads, which part of the settings it depends on and how it makes its tables.
What is wanted, missing, stale and published follows from that, here, the same for all.
"""

import hashlib
import logging
import time
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from sola_model.settings import essential
from tasks.own_video import DATASET, SPLIT
from tasks.track_sets import GIVEN
from tasks.worker import Clock
from warehouse import Commit, Key, Warehouse, fingerprint
from warehouse.commit_table import BATCH, KEYS, content_column, key_table, keys_of, with_fields
from warehouse.commits import ABSENT, Input, Making
from warehouse.commits import STAGES as TABLES_OF
from warehouse.planning import are_made, commits_named, rows_of

log = logging.getLogger(__name__)

PAUSES_S = (0.5, 4.0)  # before the second and the third try of what the system refused
CHANGED = "what it is made from changed while it was made; run the same command again"

Reads = Mapping["Stage", Sequence[str]]
"""The stages that are read -> the contents that make a difference, see `Commit.content`."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Stage:
    """What is made of one video (and track set, and run), and from what.

    name: of its commits, whose tables `warehouse.commits.STAGES` lists.
    command: of `sola`, that makes it, with the options that cannot be told from a key.
    keyed_by: the fields of its keys.
    reads: what is read, for the given subject (track set, recipe or run).
    settings: the part of the subject that it depends on: JSON values and configurations.
    make: a unit of work -> its tables.
    warm_up: loads what `make` needs in this process; no video is charged for it.
    optional: stages that are read where there is something to read.
    uses_gpu: whether it computes on a GPU where there is one, and so has a process for each GPU;
        else it has one for each CPU core.
    version: raised when the same inputs and settings give other rows.
    covers: the modules that this version speaks for; a test watches them.
    """

    name: str
    command: str
    keyed_by: tuple[str, ...] = ("dataset", "split", "video_id")
    reads: Callable[[Any], Reads] = lambda _: {}
    settings: Callable[[Any], Any] = lambda _: None
    make: "Callable[[Unit], dict[str, pa.Table]] | None" = None
    warm_up: Callable[[Any], object] = lambda _: None
    optional: tuple["Stage", ...] = ()
    uses_gpu: bool = False
    version: int = 1
    covers: tuple[str, ...] = ()

    @property
    def publishes(self) -> tuple[str, ...]:
        """The tables it publishes."""
        return TABLES_OF[self.name]

    def redo(self, key: Key) -> str:
        """The command that makes a key's data again, for all videos of its split."""
        if (key.dataset, key.split) == (DATASET, SPLIT):
            return "the same `sola segment` command"
        words = ["sola", self.command]
        words += ["--dataset", key.dataset, "--split", key.split] if key.dataset else []
        words += ["--run", key.run_id] if key.run_id and "run_id" in self.keyed_by else []
        named = " ".join(words)
        if not key.track_set:
            return f"`{named}`"
        if key.track_set.startswith(f"{GIVEN}-"):
            named = named.replace("precompute --root DIR", "import-tracks FILE")
        if self.command.startswith("precompute"):
            return f"`{named}` with the settings of track set {key.track_set}"
        return f"`{named} --tracks {key.track_set}`"

    def key(self, key: Key) -> Key:
        """The stage's own key for the video that another stage's key is about."""
        return Key(**{name: getattr(key, name) for name in self.keyed_by})


class Unit(NamedTuple):
    """The work of one key: where it reads, the commits that are there for it, and the settings.

    left_out: what its `make` notes there, see `warehouse.commits.Making`.
    """

    store: Warehouse
    key: Key
    commits: Mapping[Stage, Commit]
    subject: Any
    left_out: list[str]

    def commit(self, stage: Stage) -> Commit:
        """The commit of a stage that is read."""
        return self.commits[stage]

    def tracks(self, *stages: Stage) -> tuple[Commit, ...]:
        """The commits of these stages, of those that are there."""
        return tuple(self.commits[stage] for stage in stages if stage in self.commits)


class Outcome(NamedTuple):
    """How one video went: `status` is "done" or "failed", `message` the error if it failed.

    seconds: that it took; 0 if it failed, or was there.
    """

    video_id: str
    status: str
    message: str = ""
    seconds: float = 0.0


class Plan:
    """What a stage is to make for some keys, with these settings.

    Keys whose inputs are not there are not wanted. The keys are the rows of a table, see
    `warehouse.commit_table`; only what is asked for by `Key` becomes an object.
    """

    def __init__(
        self, stage: Stage, store: Warehouse, keys: Iterable[Key] | pa.Table, subject: Any
    ) -> None:
        self.stage, self.store, self.subject = stage, store, subject
        self._all_keys = keys if isinstance(keys, pa.Table) else key_table(keys)
        reads = stage.reads(subject)
        self._reads = {read: sorted(reads[read]) for read in sorted(reads, key=lambda s: s.name)}

    @property
    def keys(self) -> pa.Table:
        """The wanted keys, as rows."""
        return self._named[0]

    @property
    def wanted(self) -> dict[Key, str]:
        """The fingerprint of each wanted key: as many objects."""
        keys, fingerprints = self._named
        return dict(zip(keys_of(keys), fingerprints.to_pylist(), strict=True))

    def to_make(self) -> dict[Key, str]:
        """The wanted keys whose data is not there, or was made from something else."""
        keys, fingerprints = self._named
        left = pc.invert(are_made(self.store, self.stage.name, keys, fingerprints))
        return dict(
            zip(keys_of(keys.filter(left)), fingerprints.filter(left).to_pylist(), strict=True)
        )

    def missing(self) -> list[Key]:
        """The keys of `to_make`."""
        return list(self.to_make())

    def unit(self, key: Key) -> Unit:
        """The work of a wanted key."""
        found = {read: commits.get(read.key(key)) for read, commits in self._commits.items()}
        there = {read: commit for read, commit in found.items() if commit}
        return Unit(self.store, key, there, self.subject, [])

    def inputs(self, key: Key) -> tuple[Input, ...]:
        """The commits that a key's data is made from, and those that it would be made from, too."""
        there = self.unit(key).commits
        return tuple(
            Input(
                stage=read.name,
                key=there[read].key,
                fingerprint=there[read].fingerprint,
                contents={name: there[read].content(name) for name in names},
            )
            if read in there
            else Input(stage=read.name, key=read.key(key), fingerprint=ABSENT)
            for read, names in self._reads.items()
        )

    def fingerprint(self, key: Key) -> str | None:
        """What names a key's data: the contents that it reads, the settings, the version.

        It goes with `unit`. None when an input is not there.
        """
        commits = self.unit(key).commits
        if not commits.keys() >= set(self._required):
            return None
        contents = [
            pa.chunked_array(
                [[commits[read].content(name) if read in commits else None]], pa.string()
            )
            for read, names in self._reads.items()
            for name in names
        ]
        named: str = self._fingerprints(contents, 1)[0].as_py()
        return named

    def provenance(self, key: Key) -> dict[str, Any]:
        """From what and how a key's data is made, as `Warehouse.publish` takes it."""
        making = Making(
            settings=plain(self.stage.settings(self.subject)),
            version=self.stage.version,
            precision=getattr(self.subject, "precision", None) or "",
        )
        return {"inputs": self.inputs(key), "making": making}

    @cached_property
    def _commits(self) -> dict[Stage, dict[Key, Commit]]:
        """What there is for each stage that is read, as of the first unit."""
        keys = list(keys_of(self._all_keys))
        return {
            read: self.store.current(read.name, {read.key(key) for key in keys})
            for read in self._reads
        }

    @cached_property
    def _named(self) -> tuple[pa.Table, pa.ChunkedArray]:
        """The wanted keys and their fingerprints, as of the first time."""
        keys, contents = self._all_keys, []
        wanted = pa.chunked_array([pa.repeat(True, keys.num_rows)])
        for read, names in self._reads.items():
            others = {name: "" for name in KEYS.names if name not in read.keyed_by}
            found = rows_of(self.store, read.name, with_fields(keys, **others), names)
            if read in self._required:
                wanted = pc.and_(wanted, pc.is_valid(found["fingerprint"]))
            contents += [found[content_column(name)] for name in names]
        if not pc.all(wanted).as_py():
            contents = [column.filter(wanted) for column in contents]
            keys = keys.filter(wanted)
        return keys, self._fingerprints(contents, keys.num_rows)

    @cached_property
    def _common(self) -> str:
        """What the fingerprints of all keys depend on."""
        return fingerprint(
            reads={read.name: names for read, names in self._reads.items()},
            settings=essential(self.stage.settings(self.subject)),
            version=self.stage.version,
        )

    @property
    def _required(self) -> list[Stage]:
        return [read for read in self._reads if read not in self.stage.optional]

    def _fingerprints(self, contents: Sequence[pa.ChunkedArray], count: int) -> pa.ChunkedArray:
        """The fingerprints of so many keys, from a column for each of the contents."""
        parts = []
        for start in range(0, count, BATCH):
            texts = pc.binary_join_element_wise(
                pa.repeat(self._common, min(BATCH, count - start)),
                *(column.slice(start, BATCH).combine_chunks() for column in contents),
                "\n",
                null_handling="replace",
            )
            parts.append(pa.array([_digest(text) for text in texts.to_pylist()], pa.string()))
        return pa.chunked_array(parts, pa.string())


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def make_each(
    stage: Stage, store: Warehouse, wanted: Mapping[Key, str], subject: Any
) -> list[Outcome]:
    """Make and publish the stage's data of each key; say how each went.

    `wanted` has the fingerprints of the plan that it is part of. Tables that were made before under
    a fingerprint are used again. An error becomes a failed commit; it neither stops the other
    videos nor hides what the key had before. What the operating system refuses (OSError) is tried
    again after a pause.
    """
    assert stage.make, f"{stage.name} is made by a command of its own"
    make, plan = stage.make, Plan(stage, store, list(wanted), subject)
    left_out: dict[Key, list[str]] = {}

    def tables(key: Key) -> dict[str, pa.Table]:
        if plan.fingerprint(key) != wanted[key]:
            raise RuntimeError(CHANGED)
        unit = plan.unit(key)
        made = make(unit)
        left_out[key] = unit.left_out
        return made

    def provenance(key: Key) -> dict[str, Any]:
        given = plan.provenance(key)
        making = replace(given["making"], left_out=left_out.get(key, []))
        return given | {"making": making}

    def warm_up() -> None:
        stage.warm_up(subject)

    return publish_each(store, stage.name, wanted, tables, provenance, warm_up)


def publish_each(
    store: Warehouse,
    stage: str,
    wanted: Mapping[Key, str],
    make: Callable[[Key], dict[str, pa.Table]],
    provenance: Callable[[Key], dict[str, Any]],
    warm_up: Callable[[], None] = lambda: None,
) -> list[Outcome]:
    """`make_each` of any tables.

    `provenance`, as `Warehouse.publish` takes it, is asked again when they are made. `warm_up` is
    called before each, outside of its time.
    """
    outcomes = []
    for key, named in wanted.items():
        try:
            seconds = _publish_one(store, stage, key, named, make, provenance, warm_up)
            outcomes.append(Outcome(key.video_id, "done", seconds=seconds))
        except Exception as error:
            log.debug("%s %s\n%s", stage, key.video_id, traceback.format_exc())
            message = f"{type(error).__name__}: {error}"
            store.publish_failure(stage, key, named, message)
            outcomes.append(Outcome(key.video_id, "failed", message))
    return outcomes


def _publish_one(
    store: Warehouse,
    stage: str,
    key: Key,
    named: str,
    make: Callable[[Key], dict[str, pa.Table]],
    provenance: Callable[[Key], dict[str, Any]],
    warm_up: Callable[[], None],
) -> float:
    """The seconds that it took to make; 0 when it was there."""
    for pause in (*PAUSES_S, None):
        try:
            if store.reuse(stage, key, named, provenance(key)["inputs"]):
                return 0.0
            warm_up()
            clock = Clock()
            tables = make(key)
            given = provenance(key)
            making = replace(given["making"], **clock.cost())
            store.publish(stage, key, named, tables, **given | {"making": making})
            return making.wall_seconds
        except OSError as error:
            if pause is None:
                raise
            log.warning("%s %s: %s; trying again in %s s", stage, key.video_id, error, pause)
            time.sleep(pause)
    raise AssertionError("the last try returns or raises")


def adopt(plan: Plan) -> None:
    """Publish planned data that the warehouse has of the same inputs under another key.

    That is another split with the same videos, or another track set that makes no difference.
    """
    stage, store, missing = plan.stage, plan.store, plan.to_make()
    there = commits_named(store, stage.name, missing.values())
    found = {key: there[named] for key, named in missing.items() if named in there}
    part = Plan(stage, store, found, plan.subject)
    for key, commit in found.items():
        if part.fingerprint(key) == missing[key] and store.intact([commit]):
            tables = {n: _of(store.read(n, [commit]), key) for n in stage.publishes}
            free = replace(commit.making, wall_seconds=0.0, cpu_seconds=0.0)
            given = part.provenance(key) | {"making": free}
            store.publish(stage.name, key, missing[key], tables, **given)


def _of(table: pa.Table, key: Key) -> pa.Table:
    """The rows under another key."""
    for name in set(Key.__slots__) & set(table.column_names):
        values = pa.array([getattr(key, name)] * table.num_rows, pa.string())
        table = table.set_column(table.column_names.index(name), name, values)
    return table


def plain(value: Any) -> Any:
    """Settings as JSON values: dataclasses become objects."""
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value))
    if isinstance(value, Mapping):
        return {name: plain(member) for name, member in value.items()}
    return [plain(member) for member in value] if isinstance(value, list | tuple) else value
