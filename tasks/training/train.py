"""Train a selector on the object tokens and pseudo-labels of the warehouse."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import pyarrow as pa
from prefect import task
from prefect.cache_policies import NO_CACHE

from sola_model.recipes import Recipe, recipe_from
from sola_model.selector.checkpoints import load_selector, save_selector
from sola_model.text.encoder import text_encoder_identity
from sola_model.training.loop import EpochMetrics, Progress, train_selector
from sola_model.training.validation import calibrate, choose_tau
from tasks.stages.evaluate import find_run
from tasks.stages.label import wanted_labels
from tasks.training.judge import SelectionJudge
from tasks.training.training_set import training_set, video_contents
from tasks.worker import device
from warehouse import TABLES, Key, Warehouse, WarehouseError, fingerprint

FEWEST_TO_KEEP_FROM = 5  # videos; of fewer, all are trained on
Split = tuple[str, str]
"""(data set, split)"""


@task(cache_policy=NO_CACHE)
def train_run(
    warehouse: str,
    training: Sequence[Split],
    validation: Sequence[Split],
    recipe: Recipe,
    parent: str | None = None,
    everything: bool = False,
    limit: int | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> str:
    """Train on splits together, validate on others, publish the run and give its run id.

    The run id is made from everything the weights depend on: the same data and recipe give the
    same run, which is trained once; one that was interrupted continues where it was. With a
    `parent` training starts from that run's weights and takes the videos that neither it nor its
    own parents were trained on, or `everything`. `limit`: only the first videos of each split.

    Raises:
        WarehouseError: nothing is labelled, or labelled for other tracks than there are now;
            nothing is new since the parent.
        ValueError: no label is positive.
    """
    store = Warehouse(warehouse)
    plan = _plan(store, training, validation, recipe, parent, everything, limit)
    key = Key(run_id=plan.run_id)
    if not store.missing("train", {key: plan.identity}):
        return plan.run_id
    work = store.work_folder()
    cache = work / "cache" / "training"
    data = training_set(store, plan.keys, recipe, cache, inference=False)
    kept_out = training_set(store, plan.kept_out, recipe, cache, inference=True)
    held_out = training_set(store, plan.held_out, recipe, cache, inference=True)
    trained = train_selector(
        data.videos,
        held_out.videos,
        recipe,
        checkpoint=work / "checkpoints" / f"{plan.run_id}.pt",
        start=load_selector(store.local_copy(plan.before["weights"])) if plan.before else None,
        judge=SelectionJudge(store, held_out),
        on_progress=on_progress,
        device=device(),
    )
    final = trained.best if recipe.training.final_weights == "best" else trained.last
    chosen = recipe.tau
    if chosen is None:
        judge = SelectionJudge(store, kept_out)
        chosen = choose_tau(final, kept_out.videos, recipe, judge, device())
    fitted_on = kept_out if recipe.training.kept_out else held_out
    calibration = calibrate(final, fitted_on.videos, recipe, device())
    with TemporaryDirectory() as folder:
        save_selector(trained.last.cpu(), Path(folder, "last"))
        save_selector(trained.best.cpu(), Path(folder, "best"))
        checksums = store.put_folder(f"selectors/{plan.run_id}", Path(folder))
    run = {
        "run_id": plan.run_id,
        "parent": parent,
        "dataset": "+".join(dict.fromkeys(dataset for dataset, _ in training)),
        "split": "+".join(dict.fromkeys(split for _, split in training)),
        "recipe": recipe.name,
        "config": json.dumps(asdict(replace(recipe, tau=chosen))),
        "seed": recipe.training.seed,
        "parameters": sum(p.numel() for p in trained.last.parameters() if p.requires_grad),
        "epochs": len(trained.metrics),
        "best_epoch": trained.best_epoch,
        "weights": f"selectors/{plan.run_id}/{recipe.training.final_weights}",
        "tau_videos": len(kept_out.videos) if recipe.tau is None else None,
        "temperature": calibration and calibration.temperature,
        "bias": calibration and calibration.bias,
        "train_videos": len(data.videos),
        "train_expressions": sum(len(video.texts) for video in data.videos),
        "videos": sorted(plan.seen),
    }
    tables = {
        "runs": pa.Table.from_pylist([run], schema=TABLES["runs"]),
        "training_metrics": _metric_rows(plan.run_id, trained.metrics),
    }
    store.publish("train", key, plan.identity, tables, checksums)
    return plan.run_id


def present_run(warehouse: str, **run: Any) -> str | None:
    """The id of the run that `train_run` would give for these arguments, if it is there."""
    store = Warehouse(warehouse)
    plan = _plan(store, **run)
    missing = store.missing("train", {Key(run_id=plan.run_id): plan.identity})
    return None if missing else plan.run_id


class _Plan(NamedTuple):
    """What a run is trained and validated on.

    before: the row of the parent. kept_out: training videos for tau and probabilities. seen:
    contents of all videos that the run and its parents were given. identity: of everything the
    weights depend on.
    """

    keys: list[Key]
    kept_out: list[Key]
    held_out: list[Key]
    before: dict | None
    seen: set[str]
    identity: str
    run_id: str


def _plan(
    store: Warehouse,
    training: Sequence[Split],
    validation: Sequence[Split],
    recipe: Recipe,
    parent: str | None = None,
    everything: bool = False,
    limit: int | None = None,
) -> _Plan:
    keys = [key for split in training for key in _labelled(store, split, recipe)[:limit]]
    contents = dict(zip(keys, video_contents(store, keys), strict=True))
    before = find_run(store, parent) if parent else None
    known = set(before["videos"]) if before else set()
    if before and not everything:
        keys = [key for key in keys if contents[key] not in known]
        if not keys:
            raise WarehouseError(
                f"nothing is new in {_names(training)} since run {parent}. Precompute and label "
                "more, or train it on everything again with --everything."
            )
    held_out = [key for split in validation for key in _labelled(store, split, recipe, empty=True)]
    identity = fingerprint(
        recipe=asdict(recipe),
        text_encoder=text_encoder_identity(recipe.text_encoder),
        data=[contents[key] for key in keys],
        validation=video_contents(store, held_out),
        parent=parent,
    )
    seen = known | {contents[key] for key in keys}
    run_id = f"{recipe.name}-{identity[:8]}"
    kept = _kept_out(keys, recipe.training.kept_out)
    rest = [key for key in keys if key not in kept]
    return _Plan(rest, list(kept), held_out, before, seen, identity, run_id)


def _kept_out(keys: Sequence[Key], share: float) -> dict[Key, None]:
    """The share of the videos with the smallest hashes, at least one; none of fewer than five."""
    if not share or len(keys) < FEWEST_TO_KEEP_FROM:
        return {}
    by_hash = sorted(keys, key=lambda key: hashlib.sha256(repr(key).encode()).digest())
    return dict.fromkeys(by_hash[: max(1, round(share * len(keys)))])


def run_recipe(warehouse: str, run_id: str) -> Recipe:
    """The recipe that a run was trained with; its tau is None where it was chosen."""
    run = find_run(Warehouse(warehouse), run_id)
    recipe = recipe_from(json.loads(run["config"]))
    return recipe if run["tau_videos"] is None else replace(recipe, tau=None)


def run_metrics(warehouse: str, run_id: str) -> dict[str, float]:
    """The metrics of the epoch that a run's weights are of, by name."""
    store = Warehouse(warehouse)
    run = find_run(store, run_id)
    epoch = run["best_epoch"] if Path(run["weights"]).name == "best" else run["epochs"]
    commit = store.current("train")[Key(run_id=run_id)]
    rows = store.read("training_metrics", [commit]).to_pylist()
    return {row["metric"]: row["value"] for row in rows if row["epoch"] == epoch}


def _labelled(store: Warehouse, split: Split, recipe: Recipe, empty: bool = False) -> list[Key]:
    """The videos of a split that have pseudo-labels, all of them up to date."""
    dataset, name = split
    labelled = store.current("label", dataset=dataset, split=name)
    label = f"`sola label --dataset {dataset} --split {name} --recipe {recipe.name.split('+')[0]}`"
    if not labelled and not empty:
        raise WarehouseError(
            f"there are no pseudo-labels of {dataset}/{name} in {store.url}. Run `sola "
            f"precompute` and {label} first."
        )
    wanted = wanted_labels(store, dataset, name, recipe) if labelled else {}
    stale = [
        key.video_id for key, commit in labelled.items() if commit.fingerprint != wanted.get(key)
    ]
    if stale:
        raise WarehouseError(
            f"the pseudo-labels of {len(stale)} of {len(labelled)} videos of {dataset}/{name} "
            f"({', '.join(stale[:3])}{', ...' if len(stale) > 3 else ''}) were made from other "
            f"tracks, annotations or settings than there are now. Run {label} again."
        )
    return list(labelled)


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
