"""Train a selector on the object tokens and pseudo-labels of the warehouse."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
from prefect import task
from prefect.cache_policies import NO_CACHE

from sola_model.recipes import Recipe
from sola_model.selector.calibration import Calibration
from sola_model.selector.checkpoints import load_selector, save_selector
from sola_model.settings import essential
from sola_model.text.encoder import text_encoder_identity
from sola_model.training.loop import EpochMetrics, Progress, Trained, train_selector
from sola_model.training.validation import calibrate, choose_tau
from tasks.runs import TRAIN, Run, find_run
from tasks.stage import plain
from tasks.stages import to_mend
from tasks.stages.label import label_plan
from tasks.track_sets import (
    TrackSet,
    check_tokens,
    differences,
    made_as,
    sets_of,
    tracks_for,
)
from tasks.training.judge import SelectionJudge
from tasks.training.training_set import TrainingSet, training_set, video_contents
from tasks.worker import Clock, device
from warehouse import TABLES, Key, Warehouse, WarehouseError, fingerprint
from warehouse.commits import Making

FEWEST_TO_KEEP_FROM = 5  # videos; of fewer, all are trained on
Split = tuple[str, str]
"""(data set, split)"""


@dataclass(frozen=True, kw_only=True)
class Training:
    """What a run is asked to be: splits to train on together, others to validate on, the recipe.

    parent: a run to start from, whose videos are left out unless `everything` is asked for. limit:
    only the first videos of each split. tracks: names of track sets; each split takes the one of
    these that it has, or else its default. mixed: these may be made in different ways.
    """

    training: Sequence[Split]
    validation: Sequence[Split]
    recipe: Recipe
    parent: str | None = None
    everything: bool = False
    limit: int | None = None
    tracks: Sequence[str] = ()
    mixed: bool = False


@task(cache_policy=NO_CACHE)
def train_run(
    warehouse: str, asked: Training, on_progress: Callable[[Progress], None] | None = None
) -> str:
    """Train, publish the run and give its run id.

    The run id is made from everything the weights depend on: the same data and recipe give the
    same run, which is trained once; one that was interrupted continues where it was.

    Raises:
        WarehouseError: nothing is labelled, or labelled for other tracks than there are now;
            track sets are mixed; nothing is new since the parent.
        ValueError: no label is positive.
    """
    store = Warehouse(warehouse)
    plan = _plan(store, asked)
    key = Key(run_id=plan.run_id)
    if not store.missing("train", {key: plan.identity}):
        return plan.run_id
    clock, work, recipe = Clock(), store.work_folder(), plan.recipe
    cache = work / "cache" / "training"
    data = training_set(store, plan.keys, recipe, cache, inference=False)
    kept_out = training_set(store, plan.kept_out, recipe, cache, inference=True)
    held_out = training_set(store, plan.held_out, recipe, cache, inference=True)
    trained = train_selector(
        data.videos,
        held_out.videos,
        recipe,
        checkpoint=work / "checkpoints" / f"{plan.run_id}.pt",
        start=load_selector(store.local_copy(plan.before.weights)) if plan.before else None,
        judge=SelectionJudge(store, held_out),
        on_progress=on_progress,
        device=device(),
    )
    final = trained.best if recipe.training.final_weights == "best" else trained.last
    if recipe.tau is None:
        judge = SelectionJudge(store, kept_out)
        chosen = choose_tau(final, kept_out.videos, recipe, judge, device())
        recipe = replace(recipe, tau=chosen)
    fitted_on = kept_out if recipe.training.kept_out else held_out
    calibration = calibrate(final, fitted_on.videos, plan.recipe, device())
    with TemporaryDirectory() as folder:
        save_selector(trained.last.cpu(), Path(folder, "last"))
        save_selector(trained.best.cpu(), Path(folder, "best"))
        checksums = store.put_folder(f"selectors/{plan.run_id}", Path(folder))
    row = _row(plan, asked, recipe, trained, calibration, data, kept_out)
    tables = {
        "runs": pa.Table.from_pylist([row], schema=TABLES["runs"]),
        "training_metrics": _metric_rows(plan.run_id, trained.metrics),
    }
    making = Making(
        settings=plain(recipe),
        version=TRAIN.version,
        left_out=[*data.left_out, *kept_out.left_out, *held_out.left_out],
        **clock.cost(),
    )
    store.publish("train", key, plan.identity, tables, checksums, making=making)
    return plan.run_id


def present_run(warehouse: str, asked: Training) -> str | None:
    """The id of the run that `train_run` would give, if it is there."""
    store = Warehouse(warehouse)
    plan = _plan(store, asked)
    missing = store.missing("train", {Key(run_id=plan.run_id): plan.identity})
    return None if missing else plan.run_id


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """What a run is trained and validated on.

    kept_out: training videos for tau and probabilities. before: the parent. seen: contents of all
    videos that the run and its parents were given. identity: of everything the weights depend on.
    recipe: with the settings that the tracks were made with.
    """

    keys: list[Key]
    kept_out: list[Key]
    held_out: list[Key]
    before: Run | None
    seen: frozenset[str]
    identity: str
    recipe: Recipe
    track_sets: list[TrackSet]

    @property
    def run_id(self) -> str:
        return f"{self.recipe.name}-{self.identity[:8]}"


def _plan(store: Warehouse, asked: Training) -> _Plan:
    sets = _track_sets(store, asked)
    recipe = made_as(next(iter(sets.values())), asked.recipe)
    labelled = {
        split: _labelled(store, split, track_set, recipe, empty=split not in asked.training)
        for split, track_set in sets.items()
    }
    keys = [key for split in asked.training for key in labelled[split][: asked.limit]]
    contents = dict(zip(keys, video_contents(store, keys), strict=True))
    before = find_run(store, asked.parent) if asked.parent else None
    known = before.videos if before else frozenset()
    if before and not asked.everything:
        keys = [key for key in keys if contents[key] not in known]
        if not keys:
            raise WarehouseError(
                f"nothing is new in {_names(asked.training)} since run {asked.parent}. Precompute "
                "and label more, or train it on everything again with --everything."
            )
    held_out = [key for split in asked.validation for key in labelled[split]]
    identity = fingerprint(
        recipe=essential(recipe),
        text_encoder=text_encoder_identity(recipe.text_encoder),
        data=[contents[key] for key in keys],
        validation=video_contents(store, held_out),
        parent=asked.parent,
        version=TRAIN.version,
    )
    kept = _kept_out(keys, recipe.training.kept_out)
    return _Plan(
        keys=[key for key in keys if key not in kept],
        kept_out=list(kept),
        held_out=held_out,
        before=before,
        seen=known | {contents[key] for key in keys},
        identity=identity,
        recipe=recipe,
        track_sets=[sets[split] for split in dict.fromkeys(asked.training)],
    )


def _track_sets(store: Warehouse, asked: Training) -> dict[Split, TrackSet]:
    """The track set of each split, training splits first.

    Raises:
        WarehouseError: a name is of no split's set, a set has no tokens, or sets are mixed and
            nobody asked for it.
    """
    splits = list(dict.fromkeys([*asked.training, *asked.validation]))
    there = {split: sets_of(store, *split) for split in splits}
    known = {name for sets in there.values() for name in sets}
    if unknown := set(asked.tracks) - known:
        raise WarehouseError(
            f"none of {_names(splits)} has a track set {', '.join(sorted(unknown))}. There are: "
            f"{', '.join(sorted(known)) or 'none yet; run `sola precompute`'}."
        )
    chosen = {
        split: check_tokens(
            tracks_for(store, *split, next((n for n in asked.tracks if n in sets), None))
        )
        for split, sets in there.items()
        if sets or split in asked.training
    }
    first, *others = chosen.items()
    for split, track_set in others:
        if track_set.tokens != first[1].tokens and not asked.mixed:
            raise WarehouseError(
                f"the tracks of {'/'.join(first[0])} and {'/'.join(split)} were made in different "
                f"ways: {differences(first[1].tokens, track_set.tokens)}. Choose sets that were "
                "made alike with --tracks (`sola tracks` lists them), or ask for a mixture with "
                "--mixed."
            )
    return chosen


def _row(
    plan: _Plan,
    asked: Training,
    recipe: Recipe,
    trained: Trained,
    calibration: Calibration | None,
    data: TrainingSet,
    kept_out: TrainingSet,
) -> dict:
    """The row of `runs`."""
    return {
        "run_id": plan.run_id,
        "parent": asked.parent,
        "dataset": "+".join(dict.fromkeys(dataset for dataset, _ in asked.training)),
        "split": "+".join(dict.fromkeys(split for _, split in asked.training)),
        "recipe": recipe.name,
        "config": json.dumps(asdict(recipe)),
        "seed": recipe.training.seed,
        "parameters": sum(p.numel() for p in trained.last.parameters() if p.requires_grad),
        "epochs": len(trained.metrics),
        "best_epoch": trained.best_epoch,
        "weights": f"selectors/{plan.run_id}/{recipe.training.final_weights}",
        "tau_videos": len(kept_out.videos) if plan.recipe.tau is None else None,
        "temperature": calibration and calibration.temperature,
        "bias": calibration and calibration.bias,
        "train_videos": len(data.videos),
        "train_expressions": sum(len(video.texts) for video in data.videos),
        "videos": sorted(plan.seen),
        "tracks": json.dumps([track_set.as_known() for track_set in plan.track_sets]),
    }


def _kept_out(keys: Sequence[Key], share: float) -> dict[Key, None]:
    """The share of the videos with the smallest hashes, at least one; none of fewer than five."""
    if not share or len(keys) < FEWEST_TO_KEEP_FROM:
        return {}
    by_hash = sorted(keys, key=lambda key: hashlib.sha256(_video(key).encode()).digest())
    return dict.fromkeys(by_hash[: max(1, round(share * len(keys)))])


def _video(key: Key) -> str:
    """A video's name in hashes, whatever its track set, as it was before there were any."""
    named = f"dataset={key.dataset!r}, split={key.split!r}, video_id={key.video_id!r}"
    return f"Key({named}, run_id='', experiment='')"


def run_recipe(warehouse: str, run_id: str) -> Recipe:
    """The recipe that a run was trained with; its tau is None where it was chosen."""
    run = find_run(Warehouse(warehouse), run_id)
    return run.recipe if run.tau_videos is None else replace(run.recipe, tau=None)


def run_metrics(warehouse: str, run_id: str) -> dict[str, float]:
    """The metrics of the epoch that a run's weights are of, by name."""
    store = Warehouse(warehouse)
    run = find_run(store, run_id)
    epoch = run.best_epoch if Path(run.weights).name == "best" else run.epochs
    commit = store.current("train")[Key(run_id=run_id)]
    rows = store.read("training_metrics", [commit]).to_pylist()
    return {row["metric"]: row["value"] for row in rows if row["epoch"] == epoch}


def _labelled(
    store: Warehouse, split: Split, track_set: TrackSet, recipe: Recipe, empty: bool
) -> list[Key]:
    """The keys of a split's pseudo-labels for a track set, all of them up to date."""
    dataset, name = split
    labelled = store.current("label", dataset=dataset, split=name, track_set=track_set.name)
    command = f"`{_label_command(split, track_set, recipe)}`"
    if not labelled and not empty:
        raise WarehouseError(
            f"there are no pseudo-labels of {dataset}/{name}, tracks {track_set.name}, in "
            f"{store.url}. Run {command} first."
        )
    wanted = {}
    if labelled:
        wanted = label_plan(store, dataset, name, track_set.name, recipe).wanted
    stale = [
        key.video_id for key, commit in labelled.items() if commit.fingerprint != wanted.get(key)
    ]
    replaced = [] if stale else store.stale(labelled.values())
    if replaced:
        raise WarehouseError(
            f"the tracks of {len(replaced)} of {len(labelled)} videos of {dataset}/{name} "
            f"({', '.join(commit.key.video_id for commit in replaced[:3])}) are of frames that "
            f"were replaced since. Run {to_mend(store, replaced)}."
        )
    if stale:
        raise WarehouseError(
            f"the pseudo-labels of {len(stale)} of {len(labelled)} videos of {dataset}/{name} "
            f"({', '.join(stale[:3])}{', ...' if len(stale) > 3 else ''}) were made from other "
            f"tracks, annotations or settings than there are now. Run {command} again."
        )
    return list(labelled)


def _label_command(split: Split, track_set: TrackSet, recipe: Recipe) -> str:
    """What makes labels for a recipe: its settings, and nothing of a recipe that has others."""
    dataset, name = split
    return (
        f"sola label --dataset {dataset} --split {name} --tracks {track_set.name} "
        f"--set label_threshold={recipe.label_threshold:g} --set empty_frames={recipe.empty_frames}"
    )


def _names(splits: Sequence[Split]) -> str:
    return ", ".join("/".join(split) for split in splits)


def _metric_rows(run_id: str, metrics: Sequence[EpochMetrics]) -> pa.Table:
    rows = [
        {"run_id": run_id, "epoch": epoch.epoch, "metric": name, "value": value}
        for epoch in metrics
        for name, value in asdict(epoch).items()
        if name != "epoch" and value is not None
    ]
    return pa.Table.from_pylist(rows, schema=TABLES["training_metrics"])
