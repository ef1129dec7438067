"""What the fingerprints of format 2 were made of, stage by stage, as it is now."""

from collections.abc import Mapping
from typing import Any

from tasks.search.vectors import SEARCH
from tasks.stage import Stage, Unit
from tasks.stages.detect import DETECT
from tasks.stages.evaluate import EVALUATE
from tasks.stages.ingest import INGEST
from tasks.stages.label import LABEL
from tasks.stages.precompute import BOX_TRACKS, PRECOMPUTE
from tasks.upgrade.candidates import detection_in_format_2
from warehouse import fingerprint

Parts = Mapping[Stage | None, Mapping[str, Any]]
"""What is read (None: settings) -> the parts of a fingerprint that it gives, as they are now."""


def grid_parts(unit: Unit) -> Parts:
    """Tracks of the grid; weights and settings have chosen the track set."""
    ingested = unit.commit(INGEST)
    with_truth = unit.subject.extraction.ground_truth
    truth = _annotations(unit) if with_truth else None
    return {
        INGEST: {"frames": ingested.content("frames"), "ground_truth": truth},
        None: {"version": PRECOMPUTE.version},
    }


def detection_parts(unit: Unit) -> Parts:
    """Boxes that a detector found."""
    ingested, boxes = unit.commit(INGEST), unit.subject.boxes
    return {
        INGEST: {name: ingested.content(name) for name in ("frames", "expressions")},
        None: {
            "detector": boxes.identity,
            "settings": detection_in_format_2(boxes.settings),
            "stride": unit.subject.extraction.grid.stride,
            "version": DETECT.version,
        },
    }


def label_parts(unit: Unit) -> Parts:
    """Pseudo-labels; the settings have chosen the recipe."""
    return {
        INGEST: {"annotations": _annotations(unit)},
        PRECOMPUTE: {"tracks": unit.commit(PRECOMPUTE).content("masks")},
        None: {"version": LABEL.version},
    }


def score_parts(unit: Unit) -> Parts:
    """Predictions and scores of a run."""
    tracks = [
        commit.content(table)
        for commit in unit.tracks(PRECOMPUTE, BOX_TRACKS)
        for table in ("tokens", "masks")
    ]
    return {
        INGEST: {"annotations": _annotations(unit)},
        PRECOMPUTE: {"tracks": tracks},
        None: {"version": EVALUATE.version},
    }


def vector_parts(unit: Unit) -> Parts:
    """Search vectors of a run."""
    precomputed = unit.commit(PRECOMPUTE)
    return {
        PRECOMPUTE: {"tracks": [precomputed.content(table) for table in ("tokens", "masks")]},
        None: {"references": fingerprint(texts=unit.subject.texts), "version": SEARCH.version},
    }


def baseline_parts(unit: Unit) -> Parts:
    """Scores of a baseline."""
    frames = unit.commit(INGEST).content("frames")
    return {INGEST: {"frames": frames, "annotations": _annotations(unit)}}


def _annotations(unit: Unit) -> list[str]:
    return [unit.commit(INGEST).content(table) for table in ("expressions", "ground_truth")]
