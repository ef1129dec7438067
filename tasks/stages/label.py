"""Pseudo-labels: the IoU of every track with the ground truth of every expression."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sola_model.metrics.jf import track_overlaps
from sola_model.recipes import Recipe
from tasks.stage import Plan, Stage, Unit
from tasks.stages.ingest import INGEST
from tasks.stages.precompute import PRECOMPUTE
from tasks.tables import read_expressions, read_mask_tracks, read_objects, rows
from warehouse import Key, Warehouse
from warehouse.planning import current_keys


def label_plan(store: Warehouse, dataset: str, split: str, track_set: str, recipe: Recipe) -> Plan:
    """The labels of each labelled video of a split that has tracks of this set."""
    tracked = current_keys(store, "precompute", dataset=dataset, split=split, track_set=track_set)
    plan = Plan(LABEL, store, tracked, recipe)
    without = _unlabelled(store, plan.missing())  # what has labels is labelled
    if not without:
        return plan
    labelled = pc.invert(pc.is_in(tracked["video_id"], pa.array(without, pa.string())))
    return Plan(LABEL, store, tracked.filter(labelled), recipe)


def _unlabelled(store: Warehouse, keys: Sequence[Key]) -> list[str]:
    """The videos of these keys of which no expression says what it is about."""
    ingested = store.current("ingest", {INGEST.key(key) for key in keys}) if keys else {}
    expressions = store.read("expressions", ingested.values())
    labelled = expressions.filter(pc.is_valid(expressions["object_ids"]))["video_id"].to_pylist()
    return sorted({key.video_id for key in keys} - set(labelled))


def _settings(recipe: Recipe) -> dict[str, Any]:
    return {"threshold": recipe.label_threshold, "empty_frames": recipe.empty_frames}


def _labels(unit: Unit) -> dict[str, pa.Table]:
    """A row per (expression, track): the best overlap with any object of the expression.

    An expression without target has overlap 0 with every track, so all its labels are negative.
    """
    store, ingested, recipe = unit.store, unit.commit(INGEST), unit.subject
    tracks = read_mask_tracks(store, unit.commit(PRECOMPUTE))
    objects = read_objects(store, ingested)
    overlaps = None
    if tracks and objects:
        overlaps = track_overlaps(tracks, list(objects.values()), recipe.empty_frames)
    columns: dict[str, list] = {
        name: [] for name in ("expression_id", "track_id", "miou", "precision", "recall", "label")
    }
    object_index = {object_id: o for o, object_id in enumerate(objects)}
    for expression in read_expressions(store, ingested):
        targets = [object_index[i] for i in expression.object_ids or () if i in object_index]
        for n in range(len(tracks)):
            miou = precision = recall = 0.0
            if targets and overlaps is not None:
                best = targets[int(np.argmax(overlaps.miou_NO[n, targets]))]
                miou, precision, recall = (float(overlap[n, best]) for overlap in overlaps)
            columns["expression_id"].append(expression.expression_id)
            columns["track_id"].append(n)
            columns["miou"].append(miou)
            columns["precision"].append(precision)
            columns["recall"].append(recall)
            columns["label"].append(miou > recipe.label_threshold)
    return {"pseudo_labels": rows("pseudo_labels", unit.key, columns)}


LABEL = Stage(
    name="label",
    command="label",
    keyed_by=("dataset", "split", "video_id", "track_set"),
    reads=lambda _: {INGEST: ("expressions", "ground_truth"), PRECOMPUTE: ("masks",)},
    settings=_settings,
    make=_labels,
    covers=("tasks.stages.label", "tasks.tables", "sola_model.metrics", "sola_model.masks"),
)
