"""The stages in this process, without Prefect and workers, as the flows carry them out."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa

from sola_model.recipes import Recipe
from tasks.runs import Run, find_run
from tasks.stage import Outcome, Plan, adopt, make_each
from tasks.stages.evaluate import score_plan
from tasks.stages.label import label_plan
from tasks.stages.precompute import track_plan
from tasks.track_sets import TrackSet, make_default, remember, track_set_of, tracks_for
from tasks.training.train import Training, train_run
from warehouse import TABLES, Key, Warehouse
from warehouse.commits import STAGES


def make(plan: Plan) -> list[Outcome]:
    """Make what is missing."""
    missing = {key: plan.wanted[key] for key in plan.missing()}
    return make_each(plan.stage, plan.store, missing, plan.subject)


def tracks_of(
    store: Warehouse, dataset: str, split: str, recipe: Recipe, **how: str | None
) -> Plan:
    """The tracks of each ingested video; they are the split's default from now on.

    `how`: as `track_set_of` takes it.
    """
    track_set = track_set_of(recipe, **how)
    remember(store, dataset, split, track_set)
    make_default(store, dataset, split, track_set.name)
    videos = [key.video_id for key in store.current("ingest", dataset=dataset, split=split)]
    return track_plan(store, dataset, split, videos, track_set)


def precompute(
    store: Warehouse, dataset: str, split: str, recipe: Recipe, **how: str | None
) -> list[Outcome]:
    """Make them."""
    plan = tracks_of(store, dataset, split, recipe, **how)
    adopt(plan)
    return make(plan)


def labels_of(
    store: Warehouse, dataset: str, split: str, recipe: Recipe, tracks: str | None = None
) -> Plan:
    """The labels of a track set, by default the split's."""
    name = tracks_for(store, dataset, split, tracks).name
    return label_plan(store, dataset, split, name, recipe)


def label(
    store: Warehouse, dataset: str, split: str, recipe: Recipe, tracks: str | None = None
) -> list[Outcome]:
    """Make them."""
    return make(labels_of(store, dataset, split, recipe, tracks))


def train(
    store: Warehouse,
    training: Sequence[tuple[str, str]],
    validation: Sequence[tuple[str, str]],
    recipe: Recipe,
    **asked: Any,
) -> Run:
    """The run that is trained; `asked`: other fields of `Training`."""
    data = Training(training=training, validation=validation, recipe=recipe, **asked)
    return find_run(store, train_run.fn(store.url, data))


def scores_of(
    store: Warehouse, run: Run, dataset: str, split: str, tracks: str | None = None
) -> Plan:
    """The scores of a run on a track set, by default made as those that it was trained on."""
    name = run.tracks_of(store, dataset, split, tracks).name
    return score_plan(store, run, dataset, split, name)


def evaluate(
    store: Warehouse, run: Run, dataset: str, split: str, tracks: str | None = None
) -> list[Outcome]:
    """Make them."""
    return make(scores_of(store, run, dataset, split, tracks))


def default_set(store: Warehouse, dataset: str, split: str) -> TrackSet:
    """The track set that commands take of a split unless told another."""
    return tracks_for(store, dataset, split)


def with_tracks(recipe: Recipe, **changes: Any) -> Recipe:
    """The recipe with other settings of its tracks."""
    return replace(recipe, extraction=replace(recipe.extraction, **changes))


def with_texts(store: Warehouse, video: Key, texts: dict[int, str]) -> list[dict[str, Any]]:
    """Publish other texts of some of a video's expressions, by index; gives all of its rows."""
    commit = store.current("ingest")[video]
    tables = {name: store.read(name, [commit]) for name in STAGES["ingest"]}
    rows = tables["expressions"].to_pylist()
    for index, text in texts.items():
        rows[index]["text"] = text
    tables["expressions"] = pa.Table.from_pylist(rows, schema=TABLES["expressions"])
    contents = {"frames": commit.content("frames")}
    store.publish("ingest", video, f"{commit.fingerprint}-texts", tables, contents=contents)
    return rows
