"""Score a submission, made by any method, against the ground truth of a split."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from pycocotools import mask as coco

from sola_model.masks.runs import areas_of, pack, union
from sola_model.metrics.jf import (
    RLE,
    Score,
    empty_rle,
    j_and_f,
    no_target_accuracy,
    target_accuracy,
)
from sola_model.metrics.pairs import Consistency, consistency, is_right
from sola_model.metrics.protocols import PROTOCOLS, davis_semi_supervised, davis_unsupervised
from tasks.parallel import Progress, each_video
from warehouse.annotations import VARIANTS, AnnotatedVideo, guess_protocol, read_annotations
from warehouse.contents import described
from warehouse.sources.base import VOID, Masks, SourceError
from warehouse.submissions import SubmissionError, list_files, list_masks, read_mask

NAMED = 5  # files that a message names


@dataclass(frozen=True, kw_only=True)
class ExpressionScore:
    """J, F and J&F of one expression, fractions; whether it has a target and a prediction.

    `pair` is the name of the pair that it is one of, "kind/number", if it is.
    """

    video_id: str
    expression_id: str
    j: float
    f: float
    jf: float
    has_target: bool
    predicted: bool
    pair: str | None = None


@dataclass(frozen=True, kw_only=True)
class SubmissionScores:
    """What `sola score` reports; `unused` are PNG files that belong to no expression."""

    protocol: str
    expressions: tuple[ExpressionScore, ...]
    unused: tuple[str, ...]

    @property
    def mean(self) -> Score:
        """Plain means over expressions."""
        return Score(*(fmean(getattr(e, name) for e in self.expressions) for name in Score._fields))

    @property
    def accuracies(self) -> tuple[float | None, float | None]:
        """N-acc and T-acc (MeViS v2); None without expressions of the kind."""
        has_target = [e.has_target for e in self.expressions]
        predicted = [e.predicted for e in self.expressions]
        return no_target_accuracy(has_target, predicted), target_accuracy(has_target, predicted)

    @property
    def consistency(self) -> dict[str, Consistency]:
        """The share of pairs with both answers right, by kind and over "all"; {} without any."""
        return consistency(
            (e.pair, is_right(e.jf, e.has_target, e.predicted)) for e in self.expressions if e.pair
        )

    def as_json(self) -> dict[str, Any]:
        """The report's machine-readable form; fractions."""
        names = ("video_id", "expression_id", "j", "f", "jf")
        rows = [asdict(expression) for expression in self.expressions]
        report = {
            "mean": self.mean._asdict(),
            "expressions": [{name: row[name] for name in names} for row in rows],
        }
        if pairs := self.consistency:
            report["consistency"] = {kind: found._asdict() for kind, found in pairs.items()}
        return report


def check_protocol(protocol: str) -> None:
    """Raise ValueError when there is none of this name."""
    if protocol not in PROTOCOLS:
        raise ValueError(f"unknown protocol {protocol!r}; valid are: {', '.join(PROTOCOLS)}")


def score_submission(
    ground_truth: Path,
    predictions: Path,
    protocol: str | None,
    workers: int | None,
    progress: Progress,
) -> SubmissionScores:
    """Scores of every expression of a split; without a protocol, by that of the split's layout.

    Every expression needs a mask for every annotated frame, as the benchmarks' servers demand: an
    object that is nowhere has all-zero masks. `progress` is told of videos done.

    Raises ValueError (SourceError, SubmissionError) when the ground truth is not sound, masks are
    missing, do not decode or have another size.
    """
    protocol = protocol or guess_protocol(ground_truth)
    check_protocol(protocol)
    videos = read_annotations(ground_truth, protocol)
    if not any(video.expressions for video in videos):
        raise SourceError(f"{ground_truth}: lists no expressions, so there is nothing to score")
    names = [_mask_names(video, protocol) for video in videos]
    wanted = {name for of_video in names for name in of_video}
    files = list_masks(predictions, {name.split("/")[0] for name in wanted})
    missing = sorted(wanted - set(files))
    if missing:
        shown = ", ".join(missing[:NAMED]) + (", ..." if len(missing) > NAMED else "")
        raise SubmissionError(
            f"{predictions}: {len(missing)} of {len(wanted)} masks are missing: {shown}. Every "
            "expression needs a PNG for every annotated frame, all 0 where there is nothing"
            + (_instead(predictions) if len(missing) == len(wanted) else "")
        )
    jobs = [
        (video, {name: files[name] for name in of_video})
        for video, of_video in zip(videos, names, strict=True)
    ]
    expressions: list[ExpressionScore] = []
    function = partial(_score_video, protocol, predictions)
    for scored in each_video(function, jobs, workers, "score", progress):
        expressions += scored
    unused = tuple(sorted(set(files) - wanted))
    return SubmissionScores(protocol=protocol, expressions=tuple(expressions), unused=unused)


def _instead(predictions: Path) -> str:
    """What there is where all masks are missing, and what may be amiss with it."""
    names = list_files(predictions)
    advice = ""
    if any("\\" in name for name in names):
        advice = "; the names must have / in them, not \\: pack the folder again"
    elif any(name.lower().endswith(".zip") for name in names):
        advice = "; unpack the zip in it"
    elif not any(name.endswith(".png") for name in names):
        advice = "; masks are files that end in .png"
    return f". There is instead: {described(names)}{advice}"


def _is_davis(protocol: str) -> bool:
    return protocol.startswith("davis")


def _mask_names(video: AnnotatedVideo, protocol: str) -> list[str]:
    """The masks that a submission has of a video."""
    if _is_davis(protocol):
        folders = [f"anno_{variant}/{video.video_id}" for variant in range(VARIANTS)]
    else:
        folders = [f"{video.video_id}/{expression_id}" for expression_id in video.expressions]
    return [f"{folder}/{frame}.png" for folder in folders for frame in video.frames]


def _score_video(
    protocol: str, predictions: Path, job: tuple[AnnotatedVideo, Mapping[str, str]]
) -> list[ExpressionScore]:
    video, files = job
    objects = video.read_masks()
    sizes = [rle["size"] for masks in objects.values() for rle in masks if rle is not None]
    reader = _MaskReader(predictions, files, (sizes[0][0], sizes[0][1]) if sizes else None)
    try:
        if _is_davis(protocol):
            return _score_davis(video, objects, reader, protocol)
        return [
            _score_expression(video, expression_id, objects, reader)
            for expression_id in video.expressions
        ]
    except SubmissionError:
        raise
    except ValueError as error:
        raise ValueError(f"video {video.video_id}: {error}") from error


class _MaskReader:
    """The predicted masks of a video; without a size, that of the first one counts."""

    def __init__(
        self, predictions: Path, files: Mapping[str, str], size: tuple[int, int] | None
    ) -> None:
        self.predictions, self.files, self.size = predictions, files, size

    def labels(self, name: str) -> np.ndarray:
        """Pixel values (H, W)."""
        labels_HW = read_mask(self.predictions, self.files[name], self.size)
        self.size = (labels_HW.shape[0], labels_HW.shape[1])
        return labels_HW

    def empty(self) -> RLE:
        assert self.size is not None, "a mask was read before"
        return empty_rle(*self.size)


def _encode(mask_HW: np.ndarray) -> RLE:
    return coco.encode(np.asfortranarray(mask_HW, dtype=np.uint8))


def _score_expression(
    video: AnnotatedVideo, expression_id: str, objects: Mapping[str, Masks], reader: _MaskReader
) -> ExpressionScore:
    folder = f"{video.video_id}/{expression_id}"
    labels = (reader.labels(f"{folder}/{frame}.png") for frame in video.frames)
    prediction = pack([_encode(labels_HW != 0) for labels_HW in labels])
    targets = [_filled(objects[name], reader) for name in video.expressions[expression_id]]
    target = union([[reader.empty()] * len(video.frames), *targets])
    void = pack(_filled(objects[VOID], reader)) if VOID in objects else None
    return ExpressionScore(
        video_id=video.video_id,
        expression_id=expression_id,
        **j_and_f(target, prediction, void)._asdict(),
        has_target=bool(areas_of(target).any()),
        predicted=bool(areas_of(prediction).any()),
        pair=video.pairs.get(expression_id),
    )


def _filled(masks: Masks, reader: _MaskReader) -> list[RLE]:
    return [reader.empty() if rle is None else rle for rle in masks]


def _score_davis(
    video: AnnotatedVideo, objects: Mapping[str, Masks], reader: _MaskReader, protocol: str
) -> list[ExpressionScore]:
    """Each of the four variants is a labelling of its own; expression id = 4 * object + variant."""
    absent: Masks = [None] * len(video.frames)
    names = [video.expressions[expression_id][0] for expression_id in video.expressions][::VARIANTS]
    truths = [_filled(objects.get(name, absent), reader) for name in names]
    void = _filled(objects[VOID], reader) if VOID in objects else None
    score = davis_unsupervised if protocol == "davis" else davis_semi_supervised
    found = []
    for variant in range(VARIANTS):
        folder = f"anno_{variant}/{video.video_id}"
        labels_THW = np.stack([reader.labels(f"{folder}/{frame}.png") for frame in video.frames])
        proposals = [
            [_encode(labels_HW == label) for labels_HW in labels_THW]
            for label in range(1, int(labels_THW.max()) + 1)
        ]
        for n, scored in enumerate(score(truths, proposals, void)):
            found.append(
                ExpressionScore(
                    video_id=video.video_id,
                    expression_id=str(VARIANTS * n + variant),
                    **scored._asdict(),
                    has_target=True,
                    predicted=bool(labels_THW.any()),
                )
            )
    return sorted(found, key=lambda scored: int(scored.expression_id))
