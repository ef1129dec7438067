"""Pseudo-labels: the IoU of every track with the ground truth of every expression."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from prefect import task
from prefect.cache_policies import NO_CACHE

from sola_model.metrics.jf import track_overlaps
from sola_model.recipes import Recipe
from tasks.stages.outcome import Outcome, publish_each
from tasks.tables import read_expressions, read_mask_tracks, read_objects, rows
from warehouse import Commit, Key, Warehouse, fingerprint

VERSION = 1  # raise it when the same tracks and ground truth give other labels


def wanted_labels(store: Warehouse, dataset: str, split: str, recipe: Recipe) -> dict[Key, str]:
    """What the labels of each precomputed, labelled video depend on."""
    ingested = store.current("ingest", dataset=dataset, split=split)
    precomputed = store.current("precompute", dataset=dataset, split=split)
    expressions = store.read("expressions", [ingested[key] for key in precomputed])
    labelled = set(
        expressions.filter(pc.is_valid(expressions["object_ids"]))["video_id"].to_pylist()
    )
    return {
        key: fingerprint(
            tracks=commit.files["masks"].sha256,
            annotations=annotations(ingested[key]),
            threshold=recipe.label_threshold,
            empty_frames=recipe.empty_frames,
            version=VERSION,
        )
        for key, commit in precomputed.items()
        if key.video_id in labelled
    }


def annotations(ingested: Commit) -> list[str]:
    """What names a video's expressions and ground truth in fingerprints."""
    return [ingested.files[table].sha256 for table in ("expressions", "ground_truth")]


@task(cache_policy=NO_CACHE)
def label_videos(warehouse: str, wanted: dict[Key, str], recipe: Recipe) -> list[Outcome]:
    """Compute and publish the pseudo-labels of each video."""
    store = Warehouse(warehouse)
    ingested, precomputed = store.current("ingest", wanted), store.current("precompute", wanted)

    def tables(key: Key) -> dict[str, pa.Table]:
        return {"pseudo_labels": _labels(store, key, ingested[key], precomputed[key], recipe)}

    return publish_each(store, "label", wanted, tables)


def _labels(
    store: Warehouse, key: Key, ingested: Commit, precomputed: Commit, recipe: Recipe
) -> pa.Table:
    """A row per (expression, track): the best overlap with any object of the expression.

    An expression without target has overlap 0 with every track, so all its labels are negative.
    """
    tracks, objects = read_mask_tracks(store, precomputed), read_objects(store, ingested)
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
    return rows("pseudo_labels", key, columns)
