"""Auto-labelling: what a run selects and is sure of, as a new data set in MeViS's layout.

    OUT/<split>/JPEGImages/<video>/<frame>.jpg     linked where it can be, else copied
    OUT/<split>/meta_expressions.json, mask_dict.json
    OUT/label_export.json                          what it was made from

Each selected track is an annotation; a track that several expressions select is one. An expression
is taken when every track it selects scores above the limit, so that no target lacks a part. The
others are left out, also where nothing is selected: that is no sign that there is no target.
"""

import json
import os
import shutil
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image
from pycocotools import mask as coco

from sola_model.metrics.jf import RLE
from tasks.parallel import Progress, each_video
from tasks.results.predictions import EvaluatedVideo, evaluated_videos, read_predictions
from tasks.runs import find_run
from tasks.tables import read_video
from warehouse import Warehouse
from warehouse.frames import frame_files, read_frames
from warehouse.images import FrameError, read_image
from warehouse.sources.base import check_path_name
from warehouse.sources.mevis import UNLABELLED_SPLITS

JPEG_QUALITY = 95  # of frames that are no JPEG files yet


@dataclass(frozen=True, kw_only=True)
class LabelExport:
    """What was written; `skipped` has a message for each video whose frames cannot be read."""

    videos: int
    expressions: int
    of_expressions: int
    tracks: int
    skipped: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class _Video:
    """What is taken of a video: tracks by expression id, and the masks of these tracks."""

    video_id: str
    frames: tuple[str, ...]
    texts: Mapping[str, str]  # of all expressions
    sure: Mapping[str, list[int]]
    best: float  # the highest of the expressions' scores
    masks: Mapping[int, list[RLE | None]]
    error: str = ""


def export_labels(
    warehouse: str,
    run: str | None,
    dataset: str,
    split: str,
    above: float,
    out: Path,
    as_split: str,
    workers: int | None,
    progress: Progress,
    tracks: str | None = None,
) -> LabelExport:
    """Write the folder `out`, whole or not at all.

    Raises ValueError for a score outside [0, 1), a split that MeViS's reader takes as unlabelled,
    a target that is there, (WarehouseError) missing predictions, and when nothing is above.
    """
    if not 0 <= above < 1:
        raise ValueError(f"the score is {above}; give one from 0 to below 1, such as 0.8")
    check_path_name(as_split, "split")
    if as_split in UNLABELLED_SPLITS:
        raise ValueError(
            f"a split named {as_split!r} counts as unlabelled in MeViS's layout; write another, "
            "such as auto"
        )
    if out.exists():
        raise ValueError(f"{out} is there already; remove it or write to another folder")
    store = Warehouse(warehouse)
    found = find_run(store, run)
    track_set = found.tracks_of(store, dataset, split, tracks)
    videos = evaluated_videos(store, found, dataset, split, track_set)
    partial_out = out.with_name(f".{out.name}.{uuid.uuid4().hex}.tmp")
    try:
        partial_out.mkdir()
    except OSError as error:
        raise ValueError(f"{out}: cannot be written: {error.strerror}") from error
    try:
        folder = partial_out / as_split
        (folder / "JPEGImages").mkdir(parents=True)
        export = partial(_export_video, above, folder / "JPEGImages")
        exported = _write_annotations(
            folder, each_video(export, videos, workers, "label-export", progress), above
        )
        source = {
            "run_id": found.run_id,
            "tracks": track_set.name,
            "dataset": dataset,
            "split": split,
            "above": above,
        }
        made = json.dumps(source | asdict(exported), indent=1)
        (partial_out / "label_export.json").write_text(made, encoding="utf-8")
        partial_out.rename(out)
    finally:
        shutil.rmtree(partial_out, ignore_errors=True)
    return exported


def _write_annotations(folder: Path, videos: Iterable[_Video], above: float) -> LabelExport:
    """Both files of a split. Raises ValueError when there is nothing to write."""
    meta: dict[str, Any] = {}
    skipped, expressions, of_expressions, tracks, best = [], 0, 0, 0, 0.0
    with (folder / "mask_dict.json").open("w", encoding="utf-8") as masks:
        masks.write("{")
        for video in videos:
            of_expressions += len(video.texts)
            best = max(best, video.best)
            if video.error:
                skipped.append(video.error)
            elif video.sure:
                objects = {track: number for number, track in enumerate(sorted(video.masks))}
                meta[video.video_id] = {
                    "expressions": {
                        expression_id: {
                            "exp": video.texts[expression_id],
                            "obj_id": [objects[track] for track in chosen],
                            "anno_id": [tracks + objects[track] for track in chosen],
                        }
                        for expression_id, chosen in video.sure.items()
                    },
                    "frames": video.frames,
                }
                for track, number in objects.items():
                    comma = "," if tracks + number else ""
                    masks.write(f'{comma}\n"{tracks + number}": {json.dumps(video.masks[track])}')
                tracks += len(objects)
                expressions += len(video.sure)
        masks.write("}\n")
    if not meta:
        raise ValueError(
            f"none of {of_expressions} expressions has a score above {above:g} "
            f"(the highest is {best:.3f}); give a lower one"
            + (f". {len(skipped)} videos were skipped: {skipped[0]}" if skipped else "")
        )
    content = json.dumps({"videos": meta}, indent=1)
    (folder / "meta_expressions.json").write_text(content, encoding="utf-8")
    return LabelExport(
        videos=len(meta),
        expressions=expressions,
        of_expressions=of_expressions,
        tracks=tracks,
        skipped=tuple(skipped),
    )


def _export_video(above: float, images: Path, video: EvaluatedVideo) -> _Video:
    """What is taken of a video; its frames are written where that is anything."""
    found = read_predictions(video)
    scores = {e: min(chosen.values()) for e, chosen in found.selected.items()}
    sure = {e: sorted(found.selected[e]) for e, score in scores.items() if score > above}
    error = ""
    if sure:
        path = read_video(Warehouse(video.warehouse), video.ingested)["path"]
        try:
            _write_frames(Path(path), found.frames, images / found.video_id)
        except (FrameError, OSError) as problem:
            error = f"{found.video_id}: {problem}"
            shutil.rmtree(images / found.video_id, ignore_errors=True)
    return _Video(
        video_id=found.video_id,
        frames=found.frames,
        texts={e.expression_id: e.text for e in found.expressions},
        sure=sure,
        best=max(scores.values(), default=0.0),
        masks={
            n: [rle if coco.area(rle) else None for rle in found.tracks[n]]
            for chosen in sure.values()
            for n in chosen
        },
        error=error,
    )


def _write_frames(path: Path, frames: tuple[str, ...], folder: Path) -> None:
    """JPEG files named after the frames. Raises FrameError or OSError when one cannot be read."""
    folder.mkdir()
    if not path.is_dir():
        for name, frame_HW3 in zip(frames, read_frames(path, frames), strict=True):
            Image.fromarray(frame_HW3).save(folder / f"{name}.jpg", quality=JPEG_QUALITY)
        return
    for name, file in zip(frames, frame_files(path, frames), strict=True):
        target = folder / f"{name}.jpg"
        if file.suffix.lower() == ".png":
            Image.fromarray(read_image(file)).save(target, quality=JPEG_QUALITY)
            continue
        try:
            os.link(file.resolve(), target)
        except OSError:  # another file system, or one without links
            shutil.copyfile(file, target)
