"""Score what is selected for the expressions of one video, beside what could have been selected.

Axes: E expressions, N mask tracks.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from sola_model.masks.runs import RLE, RunTrack, areas_of, empty_track, pack, union
from sola_model.metrics.jf import j_and_f_many
from sola_model.metrics.oracle import oracle_selection, video_cells
from sola_model.selector.selection import THRESHOLDS, largest_track, random_track
from tasks.tables import Expression, rows
from warehouse import TABLES, Key
from warehouse.sources import VOID

Tracks = tuple[int, ...]
"""Ids of the mask tracks whose union is a prediction, ascending."""
Row = dict[str, Any]


def score_tables(
    key: Key,
    video: Mapping[str, Any],
    expressions: Sequence[Expression],
    tracks: Sequence[Sequence[RLE]],
    objects: Mapping[str, Sequence[RLE]],
    scores_EN: np.ndarray,
    tau: float,
) -> dict[str, pa.Table]:
    """The tables `scores` and `threshold_scores` of a video; unlabelled expressions have no rows.

    `video` is a row of `videos`; scores_EN has the alignment scores, NaN where a track is no
    candidate of an expression. Expressions with the same target are scored together, and each of
    their predictions once, however many thresholds and expressions lead to it.
    """
    nothing, void, targets, members_of = truth_of(video, expressions, objects)
    packed = [pack(track) for track in tracks]
    cells = video_cells(packed, targets, void) if targets else None
    area_N = [areas_of(track).sum() for track in packed]
    by_expression: dict[int, tuple[Row, list[Row]]] = {}
    for target, (masks, members) in enumerate(zip(targets, members_of, strict=True)):
        assert cells is not None, "there is a target"
        choices = {}
        for e in members:
            candidates = np.flatnonzero(~np.isnan(scores_EN[e])).tolist()
            identity = f"{key.dataset}/{key.split}/{key.video_id}/{expressions[e].expression_id}"
            choices[e] = {tau: _above(scores_EN[e], tau) for tau in (tau, *THRESHOLDS)} | {
                "oracle": tuple(oracle_selection(cells, target, candidates)),
                "all_tracks": tuple(candidates),
                "largest_track": tuple(largest_track(area_N, candidates)),
                "random_track": tuple(random_track(candidates, identity)),
            }
        wanted = {chosen for chosen_by in choices.values() for chosen in chosen_by.values()}
        scored = _scored(masks, sorted(wanted), packed, nothing, void)
        for e, chosen_by in choices.items():
            found = {name: scored[chosen] for name, chosen in chosen_by.items()}
            by_expression[e] = _rows_of(expressions[e].expression_id, found, tau)
    ordered = [by_expression[e] for e in sorted(by_expression)]
    return {
        "scores": _table("scores", key, [row for row, _ in ordered]),
        "threshold_scores": _table(
            "threshold_scores", key, [r for _, many in ordered for r in many]
        ),
    }


def baseline_scores(
    key: Key,
    video: Mapping[str, Any],
    expressions: Sequence[Expression],
    predictions: Sequence[Sequence[RLE]],
    objects: Mapping[str, Sequence[RLE]],
) -> pa.Table:
    """The table `scores` of predictions that are no union of tracks, one of each expression."""
    _, void, targets, members_of = truth_of(video, expressions, objects)
    by_expression: dict[int, Row] = {}
    for target, members in zip(targets, members_of, strict=True):
        masks = [pack(predictions[e]) for e in members]
        scores = j_and_f_many(target, masks, void)
        for e, prediction, score in zip(members, masks, scores, strict=True):
            by_expression[e] = dict.fromkeys(TABLES["scores"].names) | {
                "expression_id": expressions[e].expression_id,
                "tracks_selected": 0,
                "predicted_empty": not len(prediction.edges),
                **score._asdict(),
            }
    return _table("scores", key, [by_expression[e] for e in sorted(by_expression)])


class Truth(NamedTuple):
    """Of one video: a track without masks, pixels that do not count, the distinct targets, and
    for each target the expressions that mean it, by index."""

    nothing: RunTrack
    void: RunTrack | None
    targets: list[RunTrack]
    members_of: list[list[int]]


def truth_of(
    video: Mapping[str, Any],
    expressions: Sequence[Expression],
    objects: Mapping[str, Sequence[RLE]],
) -> Truth:
    """The targets of a video, a row of `videos`; an unlabelled expression is no member of any."""
    nothing = empty_track(video["height"], video["width"], video["frame_count"])
    meant: dict[tuple[str, ...], list[int]] = {}  # names of target objects -> their expressions
    for e, expression in enumerate(expressions):
        if expression.object_ids is not None:
            names = tuple(sorted(set(expression.object_ids) & set(objects)))
            meant.setdefault(names, []).append(e)
    return Truth(
        nothing=nothing,
        void=pack(objects[VOID]) if VOID in objects else None,
        targets=[union([nothing, *(pack(objects[name]) for name in names)]) for names in meant],
        members_of=list(meant.values()),
    )


def _above(scores_N: np.ndarray, tau: float) -> Tracks:
    """The tracks whose score exceeds tau; NaN does not."""
    return tuple(np.flatnonzero(scores_N > tau).tolist())


def _scored(
    target: RunTrack,
    wanted: Sequence[Tracks],
    tracks: Sequence[RunTrack],
    nothing: RunTrack,
    void: RunTrack | None,
) -> dict[Tracks, Row]:
    """Columns of both tables for each of these predictions of one target."""
    predictions = [union([nothing, *(tracks[n] for n in chosen)]) for chosen in wanted]
    scores = j_and_f_many(target, predictions, void)
    return {
        chosen: {
            "tracks_selected": len(chosen),
            "predicted_empty": not len(prediction.edges),
            **score._asdict(),
        }
        for chosen, prediction, score in zip(wanted, predictions, scores, strict=True)
    }


def _rows_of(
    expression_id: str, found: Mapping[float | str, Row], tau: float
) -> tuple[Row, list[Row]]:
    """The row of `scores` and those of `threshold_scores` of one expression."""
    oracle = {f"oracle_{name}": found["oracle"][name] for name in ("j", "f", "jf")}
    trivial = {f"{n}_jf": found[n]["jf"] for n in ("all_tracks", "largest_track", "random_track")}
    identity = {"expression_id": expression_id}
    return identity | found[tau] | oracle | trivial, [
        identity | {"tau": threshold} | found[threshold] for threshold in THRESHOLDS
    ]


def _table(name: str, key: Key, records: list[Row]) -> pa.Table:
    names = [field for field in TABLES[name].names if not hasattr(key, field)]
    return rows(name, key, {field: [record[field] for record in records] for field in names})
