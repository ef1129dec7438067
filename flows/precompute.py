"""Precompute: videos -> prompt masks -> mask tracks and object tokens (Figure 2, left).

sola precompute --dataset mevis --root DIR --split train --sam2 sam2.1_hiera_large.pt
"""

from collections.abc import Sequence

from prefect import flow

from flows.fanout import Summary, carry_out, ended
from flows.runtime import precision
from sola_model.recipes import chosen_recipe
from tasks.stage import Outcome, Plan, adopt
from tasks.stages.detect import DETECT, import_boxes
from tasks.stages.ingest import ingest_split
from tasks.stages.own_masks import import_masks
from tasks.stages.precompute import BOX_TRACKS, check_tracker, track_plan
from tasks.track_sets import TrackSet, continued, make_default, remember, track_set_of
from warehouse import Warehouse
from warehouse.sources import data_set_name


@flow(flow_run_name="precompute {dataset}/{split}")
def precompute(
    warehouse: str,
    dataset: str,
    root: str,
    split: str,
    recipe: str = "release",
    sam2: str | None = None,
    detector: str | None = None,
    boxes: str | None = None,
    ground_truth: bool = False,
    limit: int | None = None,
    workers: int | None = None,
    shard: str | None = None,
    changes: Sequence[str] = (),
    corruption: str | None = None,
    default: bool = True,
    rehash: bool = False,
    dataset_name: str | None = None,
    masks: str | None = None,
) -> Summary:
    """Ingest a split and extract the tracks of its videos that have none of this recipe yet.

    They become a track set, see `tasks.track_sets`; `default`: the one that other commands take
    from now on. Tracks that the warehouse has of the same frames, of another split or of a set
    without boxes, are copied.

    `sam2` replaces the recipe's checkpoint (path, hub id or "demo"). Boxes prompt as well, for
    inference: those that `detector` (path, hub id or "demo") finds for each expression, or those
    of a file `boxes`, see `tasks.stages.detect.import_boxes`. So do those of a folder `masks`, see
    `tasks.stages.own_masks`. `ground_truth` adds the tracks of its
    masks, for training. `changes` are other fields of the recipe, "extraction.grid.stride=8".
    `corruption`: of the frames, as `warehouse.corruptions` has them. `rehash`: look for frames that
    were replaced by others of the same size and time. `limit` takes the first videos only;
    `workers` is the number of processes (default: one per GPU or CPU core). Several machines share
    a split by its `shard`s: "1/8" to "8/8". `dataset_name` is what the rows' data set is named
    where that is not `dataset`, the reader's name.

    Raises:
        ValueError: there is no such shard, boxes are to come from both a detector and a file, or
            settings of a detector are given without one.
    """
    named = data_set_name(dataset, dataset_name)
    how = (sam2, detector, boxes, ground_truth, corruption, masks)
    track_set = asked_tracks(recipe, changes, *how)
    ingested = ingest_split(warehouse, dataset, root, split, limit, shard, rehash, named)
    store, dataset = Warehouse(warehouse), named
    track_set = continued(store, dataset, split, track_set)
    readable = [outcome.video_id for outcome in ingested if outcome.status == "done"]
    if readable:
        remember(store, dataset, split, track_set, recipe)
    summary = track_videos(
        store, dataset, split, readable, track_set, workers, ingested, boxes, masks
    )
    if readable and default:
        make_default(store, dataset, split, track_set.name)
    return ended(summary, summary.failed)


def asked_tracks(
    recipe: str,
    changes: Sequence[str] = (),
    sam2: str | None = None,
    detector: str | None = None,
    boxes: str | None = None,
    ground_truth: bool = False,
    corruption: str | None = None,
    masks: str | None = None,
) -> TrackSet:
    """The track set that these arguments of `precompute` ask for.

    Raises:
        ValueError: boxes are to come from both a detector and a file, settings of a detector are
            given without one, or there is no such recipe, checkpoint, tracker or file.
    """
    settings = chosen_recipe(
        recipe, changes, "precompute", sam2=sam2, detector=detector, ground_truth=ground_truth
    )
    if settings.detector and boxes:
        raise ValueError(
            f"boxes come from a detector ({settings.detector}) or from a file ({boxes}): choose"
        )
    unused = [change for change in changes if change.strip().startswith("detection.")]
    if unused and not settings.detector:
        raise ValueError(f"--set {unused[0]}: no detector runs; name one with --detector")
    check_tracker(settings.tracker)
    return track_set_of(
        settings, precision=precision(), corruption=corruption, boxes=boxes, masks=masks
    )


def track_videos(
    store: Warehouse,
    dataset: str,
    split: str,
    video_ids: Sequence[str],
    track_set: TrackSet,
    workers: int | None = None,
    before: Sequence[Outcome] = (),
    boxes: str | None = None,
    masks: str | None = None,
) -> Summary:
    """Make the tracks of ingested videos that the warehouse does not have; call it inside a flow.

    Failures in `before` count. `boxes`: the file that the set's boxes are from, if it has them;
    `masks`: the folder of its own masks.
    """
    plan = track_plan(store, dataset, split, video_ids, track_set)
    adopt(plan)
    summary = carry_out(plan, workers, before)
    imported: list[Outcome] = []
    if masks:
        imported += import_masks(store, list(plan.wanted), track_set, masks)
    if boxes:
        imported += import_boxes(store, list(plan.wanted), track_set, boxes)
    elif track_set.boxes:
        detections = Plan(DETECT, store, plan.keys, track_set)
        adopt(detections)
        summary += carry_out(detections, workers)
    if track_set.boxes or track_set.masks:
        summary += carry_out(Plan(BOX_TRACKS, store, plan.keys, track_set), workers, imported)
    return summary
