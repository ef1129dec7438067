"""The baseline without a selection module: the detector's best box of every frame (Table 4).

Each expression's best box of a frame prompts SAM2 on that very frame; nothing passes from one
frame to another.
"""

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import pyarrow as pa

from sola_model.detection.names import detector_identity
from sola_model.extraction.checkpoints import checkpoint_identity
from sola_model.metrics.jf import RLE, empty_rle
from sola_model.recipes import BoxPrompts, Recipe
from tasks.stage import Plan, Stage, Unit
from tasks.stages.detect import captioned, worker_detector
from tasks.stages.ingest import INGEST
from tasks.stages.precompute import worker_sam2
from tasks.stages.scoring import baseline_scores
from tasks.tables import read_expressions, read_objects, read_video, rows
from tasks.worker import device, precision
from warehouse import Key, Warehouse, WarehouseError, fingerprint
from warehouse.commit_table import with_fields
from warehouse.frames import frames_of
from warehouse.masks import mask_columns
from warehouse.planning import current_keys

if TYPE_CHECKING:  # slow to import: only what detects does it
    from sola_model.extraction.prompts import Box
    from sola_model.extraction.sam2_models import SAM2Base


def baseline_run(recipe: Recipe) -> str:
    """The run id of the baseline's scores: it names the detector, its settings and SAM2."""
    assert recipe.detector
    identity = fingerprint(
        detector=detector_identity(recipe.detector),
        settings=asdict(recipe.detection),
        sam2=checkpoint_identity(recipe.sam2),
        precision=precision(),
        version=1,
    )
    return f"detector-only-{identity[:8]}"


def baseline_plan(store: Warehouse, dataset: str, split: str, recipe: Recipe) -> Plan:
    """The baseline of each ingested video.

    Raises:
        WarehouseError: nothing of the split is ingested.
    """
    ingested = current_keys(store, "ingest", dataset=dataset, split=split)
    if not ingested.num_rows:
        raise WarehouseError(
            f"there are no videos of {dataset}/{split} in {store.url}. Run `sola precompute "
            f"--dataset {dataset} --split {split}` first."
        )
    return Plan(BASELINE, store, with_fields(ingested, run_id=baseline_run(recipe)), recipe)


def _baseline(unit: Unit) -> dict[str, pa.Table]:
    """A video's best boxes, their masks and, where it is labelled, the scores.

    An expression whose text the detector does not take is left out.
    """
    from sola_model.detection.detector import detect
    from sola_model.extraction.prompts import Box

    store, key, recipe = unit.store, unit.key, unit.subject
    ingested = unit.commit(INGEST)
    detector = worker_detector(recipe.detector, device())
    model = worker_sam2(recipe.sam2, device())
    video = read_video(store, ingested)
    expressions = captioned(detector, read_expressions(store, ingested), unit.left_out)
    texts = [expression.text for expression in expressions]
    boxes = [
        Box(
            frame_index=frame_index,
            xyxy=found[0].xyxy,
            score=found[0].score,
            expression_id=expression.expression_id,
        )
        for frame_index, found_E in detect(
            detector, enumerate(frames_of(video)), texts, recipe.detection
        )
        for expression, found in zip(expressions, found_E, strict=True)
        if found
    ]
    masks = _masks(model, video, boxes)
    place = {expression.expression_id: e for e, expression in enumerate(expressions)}
    absent = empty_rle(video["height"], video["width"])
    predictions = [[absent] * video["frame_count"] for _ in expressions]
    for box, mask in zip(boxes, masks, strict=True):
        predictions[place[box.expression_id]][box.frame_index] = mask
    objects = read_objects(store, ingested)
    return {
        "frame_predictions": _predictions(key, boxes, masks),
        "scores": baseline_scores(key, video, expressions, predictions, objects),
    }


def _masks(model: "SAM2Base", video: dict, boxes: "Sequence[Box]") -> list[RLE]:
    """The mask of every box in its frame, however unstable."""
    from sola_model.extraction.encoding import EncodedVideo
    from sola_model.extraction.prompts import box_prompts

    if not boxes:
        return []
    prompted = {box.frame_index for box in boxes}
    encoded = EncodedVideo(model, frames_of(video), at_once=prompted)
    return [p.rle for p in box_prompts(model, encoded, boxes, BoxPrompts(stability=0))]


def _predictions(key: Key, boxes: "Sequence[Box]", masks: Sequence[RLE]) -> pa.Table:
    corners = zip(*(box.xyxy for box in boxes), strict=True) if boxes else [[]] * 4
    columns = mask_columns(masks)
    return rows(
        "frame_predictions",
        key,
        {
            "expression_id": [box.expression_id for box in boxes],
            "frame_index": [box.frame_index for box in boxes],
            **dict(zip(("x0", "y0", "x1", "y1"), corners, strict=True)),
            "score": [box.score for box in boxes],
            **{name: columns[name] for name in ("height", "width", "counts", "area")},
        },
    )


BASELINE = Stage(
    name="baseline",
    command="baseline --detector NAME --sam2 NAME",
    keyed_by=("dataset", "split", "video_id", "run_id"),
    reads=lambda _: {INGEST: ("frames", "expressions", "ground_truth")},
    settings=lambda recipe: {"run": baseline_run(recipe)},
    make=_baseline,
    uses_gpu=True,
    version=1,
    covers=(
        "tasks.stages.baseline",
        "tasks.stages.scoring",
        "tasks.tables",
        "sola_model.detection",
        "sola_model.extraction",
        "sola_model.masks",
        "sola_model.metrics",
        "warehouse.frames",
        "warehouse.images",
    ),
)
