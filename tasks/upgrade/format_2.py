"""Format 2 -> 3: tracks get their track set, and commits what they were made from.

Only records are written, and the few rows of `runs`: tokens and all other data files stay as they
are. The new records become those of the warehouse in one step, the last.
"""

import json
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa

from sola_model.recipes import Recipe
from tasks import stages
from tasks.runs import TRAIN, find_run
from tasks.search.vectors import REFERENCES, SEARCH, Searched
from tasks.stage import Plan, Stage, Unit, plain
from tasks.stages.baseline import BASELINE
from tasks.stages.detect import DETECT
from tasks.stages.evaluate import EVALUATE
from tasks.stages.ingest import INGEST
from tasks.stages.label import LABEL
from tasks.stages.precompute import BOX_TRACKS, PRECOMPUTE
from tasks.track_sets import BoxSource, TrackSet, make_default, remember
from tasks.training.training_set import video_contents
from tasks.upgrade.candidates import (
    Candidates,
    candidates_of,
    extraction_in_format_2,
    found,
)
from tasks.upgrade.parts import (
    Parts,
    baseline_parts,
    detection_parts,
    grid_parts,
    label_parts,
    score_parts,
    vector_parts,
)
from warehouse import TABLES, Key, Warehouse, WarehouseError
from warehouse.commits import Commit, Input, Making
from warehouse.corruptions import CORRUPTIONS
from warehouse.data_files import read_rows, write_table
from warehouse.errors import DamagedError
from warehouse.format_2 import OldCommit, Upgraded, digest, format_2, old_commits, remove_old

Split = tuple[str, str]
"""(data set, split)"""


def upgrade(
    place: str,
    recipe: str | None = None,
    changes: Sequence[str] = (),
    checkpoints: Sequence[str] = (),
) -> int:
    """Bring a warehouse of format 2 to the format of today; gives how many commits it took over.

    Nobody else may use the warehouse meanwhile. `recipe` with `changes`, and `checkpoints` of
    SAM2, are what tracks and labels may have been made with, beside those that are known.

    Raises:
        WarehouseError: it has another format, or something was made with settings not known.
        ValueError: there is no such recipe or setting, or a file is no checkpoint.
    """
    count = 0
    if store := format_2(place):
        old = old_commits(store.storage)
        runs = _rows(store, "runs", old["train"]).to_pylist()
        splits = [each.commit.key.split for each in old["precompute"]]
        known = candidates_of(runs, splits, recipe, changes, checkpoints)
        store.start()
        _Upgrade(store, old, known).carry_out()
        store.finish()
        count = sum(map(len, old.values()))
    remove_old(Warehouse(place))
    return count


class _Upgrade:
    """The work of one warehouse: stage after stage, as each reads what was written before."""

    def __init__(
        self, store: Upgraded, old: Mapping[str, Sequence[OldCommit]], known: Candidates
    ) -> None:
        self._store, self._old, self._known = store, old, known
        self._set_of: dict[Key, TrackSet] = {}  # by video
        self._default: dict[Split, TrackSet] = {}
        self._tracked: dict[Key, OldCommit] = {}  # by video: the tracks of its grid

    def carry_out(self) -> None:
        self._ingest()
        for split, olds in self._by_split(PRECOMPUTE).items():
            self._track_sets(split, olds)
        self._of_tracks(PRECOMPUTE, grid_parts)
        self._of_tracks(DETECT, detection_parts)
        self._of_tracks(BOX_TRACKS, self._box_parts)
        self._labels()
        self._runs()
        self._of_runs(EVALUATE, score_parts, lambda run: find_run(self._store, run))
        for stage in (stages.EXPERIMENT, REFERENCES):
            self._add(stage, ((old, old.commit) for old in self._old[stage.name]))
        self._of_runs(SEARCH, vector_parts, self._searched)
        self._baselines()

    # --- stages -------------------------------------------------------------------------------

    def _ingest(self) -> None:
        olds = self._old[INGEST.name]
        done = [old for old in olds if old.commit.files]
        hashes = _rows(self._store, "videos", done)["content_hash"].to_pylist()
        contents = {id(old): {"frames": content} for old, content in zip(done, hashes, strict=True)}
        making = Making(version=INGEST.version)
        new = [
            (old, replace(old.commit, contents=contents[id(old)], making=making))
            if id(old) in contents
            else (old, old.commit)
            for old in olds
        ]
        self._add(INGEST, new)

    def _track_sets(self, split: Split, olds: Sequence[OldCommit]) -> None:
        """Find out which track sets there are, and which of them the videos of a split have."""
        groups: dict[tuple[str, str], list[OldCommit]] = {}
        for old in olds:
            if old.commit.files:
                made_of = old.parts.get("weights", ""), old.parts.get("settings", "")
                groups.setdefault(made_of, []).append(old)
        largest_first = sorted(groups.items(), key=lambda group: -len(group[1]))
        for place, (made_of, group) in enumerate(largest_first):
            keys = {old.commit.key for old in group}
            track_set = self._track_set(split, *made_of, keys)
            remember(self._store, *split, track_set)
            if place == 0:
                make_default(self._store, *split, track_set.name)
                self._default[split] = track_set
            self._set_of |= dict.fromkeys(keys, track_set)
            self._tracked |= {old.commit.key: old for old in group}

    def _track_set(
        self, split: Split, weights: str, settings: str, keys: Collection[Key]
    ) -> TrackSet:
        """The set of these videos' tracks, from digests of weights and settings."""
        about = f"the tracks of {len(keys)} videos of {'/'.join(split)}"
        recipe = found(self._known.grid(settings), about, "extraction.FIELD")
        unknown = f"{recipe.sam2}@{weights[:8]}", None
        checkpoint, identity = self._known.weights(weights) or unknown
        extraction = recipe.extraction
        boxed = [old.parts["settings"] for old in self._done(BOX_TRACKS, keys)]
        if boxed:
            ((most, _),) = Counter(boxed).most_common(1)
            as_boxed = found(self._known.boxes(most), about, "extraction.boxes.FIELD")
            extraction = replace(extraction, boxes=as_boxed.extraction.boxes)
        return TrackSet(
            checkpoint=checkpoint,
            weights=identity,
            extraction=extraction,
            precision=None,
            corruption=_corruption_of(split[1]),
            boxes=self._detector(split, self._done(DETECT, keys)),
        )

    def _detector(self, split: Split, detected: Sequence[OldCommit]) -> BoxSource | None:
        """Where boxes are from."""
        if not detected:
            return None
        if imported := sorted(old.parts["boxes"] for old in detected if "boxes" in old.parts):
            return BoxSource(name="boxes", identity=f"format-2:{digest(imported)}")
        of, settings = (
            Counter(old.parts[name] for old in detected).most_common(1)[0][0]
            for name in ("detector", "settings")
        )
        about = f"the boxes of {'/'.join(split)}"
        name, identity = self._known.detector(of) or ("detector", f"format-2:{of}")
        recipe = found(self._known.detection(settings), about, "detection.FIELD")
        return BoxSource(name=name, identity=identity, settings=recipe.detection)

    def _of_tracks(self, stage: Stage, parts: Callable[[Unit], Parts]) -> None:
        """Carry over what was made for the tracks of each video."""
        self._carry(stage, parts, self._placed(stage, lambda _, track_set: track_set))

    def _labels(self) -> None:
        def recipe_of(old: OldCommit, _: TrackSet) -> Recipe:
            asked = old.parts.get("threshold", ""), old.parts.get("empty_frames", "")
            about = f"the pseudo-labels of {'/'.join(_split_of(old))}"
            return found(self._known.labels(*asked), about, "label_threshold")

        self._carry(LABEL, label_parts, self._placed(LABEL, recipe_of))

    def _runs(self) -> None:
        """The rows of runs say which track sets they were trained on."""
        ingested, tracked = (self._store.current(stage.name) for stage in (INGEST, PRECOMPUTE))
        labelled = [
            key
            for key in self._store.current(LABEL.name)
            if key in tracked and INGEST.key(key) in ingested
        ]
        trained = dict(zip(video_contents(self._store, labelled), labelled, strict=True))
        new = []
        for old in self._old[TRAIN.name]:
            commit = old.commit
            if commit.files:
                rows = _rows(self._store, "runs", [old])
                (row,) = rows.to_pylist()
                keys = [trained[content] for content in row["videos"] if content in trained]
                sets = {self._set_of[key.of(track_set="")] for key in keys}
                tracks = json.dumps([each.as_known() for each in sorted(sets, key=_name)])
                column = pa.array([tracks], pa.string())
                rows = rows.set_column(rows.column_names.index("tracks"), "tracks", column)
                file = write_table(self._store.storage, "runs", commit.key, rows)
                making = Making(settings=json.loads(row["config"]), version=TRAIN.version)
                commit = replace(commit, files=commit.files | {"runs": file}, making=making)
            new.append((old, commit))
        self._add(TRAIN, new)

    def _of_runs(
        self, stage: Stage, parts: Callable[[Unit], Parts], subject_of: Callable[[str], Any]
    ) -> None:
        """Carry over what runs made of the tracks of each video."""
        subjects = {key.run_id: subject_of(key.run_id) for key in self._store.current(TRAIN.name)}
        placed = self._placed(stage, lambda old, _: subjects.get(old.commit.key.run_id))
        self._carry(stage, parts, placed)

    def _searched(self, run_id: str) -> Searched:
        run, key = find_run(self._store, run_id), Key(run_id=run_id)
        commits = self._store.current(REFERENCES.name, [key]).values()
        texts = self._store.read("search_references", commits).sort_by("position")["text"]
        return Searched(run, tuple(texts.to_pylist()))

    def _baselines(self) -> None:
        """Their precision is not known, so they keep the names that they have as runs."""
        stage = replace(BASELINE, settings=lambda run: {"run": run})
        olds = self._old[BASELINE.name]
        keyed = [(old, old.commit.key, old.commit.key.run_id) for old in olds]
        self._carry(stage, baseline_parts, keyed)

    # --- commits ------------------------------------------------------------------------------

    def _placed(
        self, stage: Stage, subject_of: Callable[[OldCommit, TrackSet], Any]
    ) -> list[tuple[OldCommit, Key, Any]]:
        """The commits of a stage, each with its key in a track set and what it was told.

        What was made for tracks that are not there is left out; failures stay, wherever.
        """
        placed = []
        for old in self._old[stage.name]:
            key, done = old.commit.key, bool(old.commit.files)
            track_set = self._set_of.get(key.of(run_id=""), self._default.get(_split_of(old)))
            if track_set:
                subject = subject_of(old, track_set) if done else None
                placed.append((old, key.of(track_set=track_set.name), subject))
            elif not done:
                placed.append((old, key, None))
        return placed

    def _carry(
        self,
        stage: Stage,
        parts: Callable[[Unit], Parts],
        keyed: Iterable[tuple[OldCommit, Key, Any]],
    ) -> None:
        """Take commits over under new keys, with what they were made from and how."""
        by_subject: dict[Any, list[tuple[OldCommit, Key]]] = {}
        failed = []
        for old, key, subject in keyed:
            if old.commit.files:
                by_subject.setdefault(subject, []).append((old, key))
            else:
                failed.append((old, replace(old.commit, key=key)))
        self._add(stage, failed)
        for subject, some in by_subject.items():
            plan = Plan(stage, self._store, [key for _, key in some], subject)
            self._add(stage, [(old, _as_planned(old, key, plan, parts)) for old, key in some])

    def _add(self, stage: Stage, new: Iterable[tuple[OldCommit, Commit]]) -> None:
        self._store.add(stage.name, ((old.version, commit) for old, commit in new))

    def _done(self, stage: Stage, keys: Collection[Key]) -> list[OldCommit]:
        olds = self._old[stage.name]
        return [old for old in olds if old.commit.files and old.commit.key in keys]

    def _by_split(self, stage: Stage) -> dict[Split, list[OldCommit]]:
        found: dict[Split, list[OldCommit]] = {}
        for old in self._old[stage.name]:
            found.setdefault(_split_of(old), []).append(old)
        return found

    def _box_parts(self, unit: Unit) -> Parts:
        tracks = self._tracked[unit.key.of(track_set="")].commit.fingerprint
        masks = unit.commit(PRECOMPUTE).content("masks")
        extraction = extraction_in_format_2(unit.subject.extraction)
        return {
            PRECOMPUTE: {"tracks": tracks, "masks": masks},
            DETECT: {"detections": unit.commit(DETECT).content("detections")},
            None: {"settings": extraction, "version": BOX_TRACKS.version},
        }


# --- commits --------------------------------------------------------------------------------------


def _as_planned(old: OldCommit, key: Key, plan: Plan, parts_of: Callable[[Unit], Parts]) -> Commit:
    """A commit that the plan wants, or one that is stale, where it was made from something else.

    Where its settings are others it keeps its fingerprint, which is not the one that is wanted.
    """
    stage = plan.stage
    versions = {digest(version): version for version in range(1, stage.version + 1)}
    making = Making(
        settings=plain(stage.settings(plan.subject)),
        version=versions.get(old.parts.get("version", ""), stage.version),
    )
    commit = replace(old.commit, key=key, making=making)
    if key not in plan.wanted:  # what it was made from is not there
        gone = [read for read in stage.reads(plan.subject) if read not in stage.optional]
        return replace(commit, inputs=tuple(_gone(read, key) for read in gone))
    differ = {read for read, parts in parts_of(plan.unit(key)).items() if old.differs(parts)}
    named = {read.name for read in differ if read}
    inputs = tuple(_replaced(i) if i.stage in named else i for i in plan.inputs(key))
    named_as_planned = old.commit.fingerprint if differ else plan.wanted[key]
    return replace(commit, inputs=inputs, fingerprint=named_as_planned)


def _gone(read: Stage, key: Key) -> Input:
    return Input(stage=read.name, key=read.key(key), fingerprint="")


def _replaced(given: Input) -> Input:
    """An input that was another: its contents are not known."""
    return replace(given, fingerprint="", contents=dict.fromkeys(given.contents, ""))


def _rows(store: Warehouse, table: str, olds: Iterable[OldCommit]) -> pa.Table:
    """The rows of commits of format 2.

    Raises:
        WarehouseError: they are gone or damaged.
    """
    commits = [old.commit for old in olds if old.commit.files]
    try:
        return pa.concat_tables(
            [TABLES[table].empty_table(), *read_rows(store.storage, table, commits)]
        )
    except (FileNotFoundError, DamagedError) as error:
        raise WarehouseError(
            f"{error}. Nothing was changed. Let the version that wrote the warehouse mend it "
            "(`sola verify`), then upgrade."
        ) from error


def _split_of(old: OldCommit) -> Split:
    return old.commit.key.dataset, old.commit.key.split


def _corruption_of(split: str) -> str | None:
    """The corruption of the frames of a split such as valid_u@gaussian_noise-3."""
    _, _, name = split.partition("@")
    return name if name.startswith(CORRUPTIONS) else None


def _name(track_set: TrackSet) -> str:
    return track_set.name
