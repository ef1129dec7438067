"""What `sola segment` writes: an overlay video, masks as PNG, tracks as JSON.

The clips of a video are read one after the other, and its frames one by one, so memory does not
grow with its length. E expressions, N mask tracks.
"""

import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice, repeat
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from pycocotools import mask as coco

from sola_model.metrics.jf import RLE
from tasks.own_video.video_writer import LARGEST_SIDE, evenly, h264_video
from tasks.pictures.captions import band, font_size, put, tag
from tasks.pictures.masks_on_frames import overlay
from tasks.runs import Run
from tasks.tables import read_expressions, read_mask_tracks, read_video
from warehouse import Key, Warehouse
from warehouse.frames import image_files, read_frames
from warehouse.outputs import OutputError, check_output, check_unread, folder_of
from warehouse.own_video import own_video
from warehouse.submissions import encode_mask, label_palette, replacing

FOLDER_RATE = 24  # frames per second of a folder of images
SHORT_SIDE = 360  # smaller videos are shown enlarged, so that text is legible


@dataclass(frozen=True, kw_only=True)
class Outputs:
    """Where to write the overlay video, the folder of masks and the JSON; None: not at all."""

    video: Path | None = None
    masks: Path | None = None
    tracks: Path | None = None

    def check(self, store: Warehouse, video: Path, sentences: int) -> None:
        """Raise OutputError for a place that cannot be written to, or is the video's own."""
        frames = image_files(video) if video.is_dir() else [video]
        read = [*frames, *folder_of(store)]
        if self.video and self.video.suffix.lower() != ".mp4":
            raise OutputError(f"{self.video}: the overlay video is an .mp4 file; name it so")
        for file in filter(None, (self.video, self.tracks)):
            check_output(file, read)
        if self.video and self.tracks and self.video.resolve() == self.tracks.resolve():
            raise OutputError(f"{self.video}: is to be both the overlay and the JSON; name two")
        if self.masks and self.masks.exists() and not self.masks.is_dir():
            raise OutputError(f"{self.masks}: is a file; give a folder for the masks")
        folders = [self.masks / str(e) for e in range(sentences)] if self.masks else []
        for folder in folders:
            if folder.is_dir() and video.is_dir() and folder.samefile(video):
                raise OutputError(
                    f"{self.masks}: masks would be written to {folder}, among the frames of the "
                    "video; give another folder"
                )
            check_unread(folder.glob("*.png"), read)


class Score(NamedTuple):
    """An alignment score, and the calibrated probability if the run has one."""

    score: float
    probability: float | None

    @property
    def confidence(self) -> float:
        """What people see: the probability, or without one the score."""
        return self.score if self.probability is None else self.probability


@dataclass(frozen=True, kw_only=True)
class Clip:
    """A clip with the scores of a run.

    scores_E: of each expression's candidate tracks by id, highest first; selected_E: ids of those
    that it selects, likewise.
    """

    path: Path
    frames: tuple[str, ...]
    size: tuple[int, int]
    sentences: tuple[str, ...]
    tracks: Sequence[Sequence[RLE]]
    scores_E: tuple[dict[int, Score], ...]
    selected_E: tuple[list[int], ...]

    def masks(self, t: int) -> dict[int, RLE]:
        """In frame t, by number of the expression, the union of what it selects, if anything."""
        return {
            e: coco.merge([self.tracks[n][t] for n in selected])
            for e, selected in enumerate(self.selected_E)
            if selected
        }


@dataclass(kw_only=True)
class Found:
    """What was found for a sentence in all clips.

    tracks, frames: how many are selected, in how many frames something of them is visible.
    candidates: tracks that there were; best: the highest of their confidences, 0 without any.
    """

    sentence: str
    tracks: int = 0
    frames: int = 0
    candidates: int = 0
    best: float = 0.0


def read_clip(store: Warehouse, key: Key) -> Clip:
    """A clip of a video with a run's scores for its tracks; `key` is that of the scores."""
    tracked, video_key = key.of(run_id=""), key.of(run_id="", track_set="")
    ingested = store.current("ingest", [video_key])[video_key]
    scored = store.current("evaluate", [key])[key]
    made = [store.current(stage, [tracked]) for stage in ("precompute", "box_tracks")]
    tracks = [commits[tracked] for commits in made if tracked in commits]
    video, expressions = read_video(store, ingested), read_expressions(store, ingested)
    scores: dict[str, dict[int, Score]] = {e.expression_id: {} for e in expressions}
    selected: dict[str, list[int]] = {e.expression_id: [] for e in expressions}
    for row in store.read("predictions", [scored]).sort_by([("score", "descending")]).to_pylist():
        score = Score(row["score"], row["probability"])
        scores[row["expression_id"]][row["track_id"]] = score
        if row["selected"]:
            selected[row["expression_id"]].append(row["track_id"])
    return Clip(
        path=Path(video["path"]),
        frames=tuple(video["frames"]),
        size=(video["height"], video["width"]),
        sentences=tuple(e.text for e in expressions),
        tracks=read_mask_tracks(store, *tracks),
        scores_E=tuple(scores.values()),
        selected_E=tuple(selected.values()),
    )


def shown_times(path: str, every: int, fps: float | None) -> list[Fraction]:
    """Seconds at which every `every`-th frame of a video is shown: evenly with `fps`, else the
    video's own time stamps; a folder has `FOLDER_RATE` frames a second."""
    video = own_video(path)
    times = video.times or evenly(len(video.frames), Fraction(FOLDER_RATE))
    taken = list(times[::every])
    return evenly(len(taken), Fraction(fps).limit_denominator(1001)) if fps else taken


def write_outputs(
    warehouse: str,
    keys: Sequence[Key],
    run: Run,
    outputs: Outputs,
    times: Sequence[Fraction],
    on_frame: Callable[[], None],
) -> list[Found]:
    """Write what a run selects in the clips of a video; says what that is.

    `times`: seconds at which each frame of all clips is shown.
    """
    store = Warehouse(warehouse)
    first = read_clip(store, keys[0])
    found = [Found(sentence=text) for text in first.sentences]
    with ExitStack() as stack:
        if outputs.video:
            show = stack.enter_context(h264_video(outputs.video, times))
        if outputs.tracks:
            write = stack.enter_context(_tracks_json(outputs.tracks, first, run, times))
        for key in keys:
            clip = read_clip(store, key)
            _count(found, clip)
            if outputs.tracks:
                write(clip)
            pictures: Iterable[Any] = (
                painted(clip) if outputs.video else repeat(None, len(clip.frames))
            )
            for t, picture_HW3 in enumerate(pictures):
                if outputs.video:
                    show(picture_HW3)
                if outputs.masks:
                    _write_masks(outputs.masks, clip, t)
                on_frame()
    return found


def _count(found: list[Found], clip: Clip) -> None:
    """Add a clip to what was found."""
    for each, scores, selected in zip(found, clip.scores_E, clip.selected_E, strict=True):
        each.tracks += len(selected)
        each.candidates += len(scores)
        each.best = max(each.best, *(score.confidence for score in scores.values()), 0.0)
        each.frames += sum(
            any(coco.area(clip.tracks[n][t]) for n in selected) for t in range(len(clip.frames))
        )


def painted(clip: Clip) -> Iterator[np.ndarray]:
    """The frames with what each sentence selects in its colour, and the sentences below."""
    scale = min(math.ceil(SHORT_SIDE / min(clip.size)), LARGEST_SIDE // max(clip.size)) or 1
    height, width = (scale * side for side in clip.size)
    room = max(width, SHORT_SIDE) - width  # beside a narrow video, for the text below
    size = font_size(min(height, 2 * (width + room)))
    verdicts = [
        _verdict([scores[n].confidence for n in selected])
        for scores, selected in zip(clip.scores_E, clip.selected_E, strict=True)
    ]
    below_HW3 = band(width + room, size, clip.sentences, verdicts)
    scores_by_track: dict[int, list[tuple[int, float]]] = {}
    for e, selected in enumerate(clip.selected_E):
        for n in selected:
            scores_by_track.setdefault(n, []).append((e, clip.scores_E[e][n].confidence))
    tags = {n: tag(size, scores) for n, scores in scores_by_track.items()}
    for t, frame_HW3 in enumerate(read_frames(clip.path, clip.frames)):
        picture_HW3 = overlay(frame_HW3, clip.masks(t))
        if scale > 1:
            picture_HW3 = picture_HW3.repeat(scale, 0).repeat(scale, 1)
        for n, tag_HW3 in tags.items():
            x, y, width, _ = (int(scale * side) for side in coco.toBbox(clip.tracks[n][t]))
            if width:
                put(picture_HW3, tag_HW3, x + (width - tag_HW3.shape[1]) // 2, y - len(tag_HW3))
        picture_HW3 = np.pad(picture_HW3, ((0, 0), (0, room), (0, 0)))
        yield np.concatenate([picture_HW3, below_HW3])


def _verdict(confidences: Sequence[float]) -> tuple[str, bool]:
    """What the band says of the selected tracks with these confidences, highest first."""
    if not confidences:
        return "not found", False
    best = f"{100 * confidences[0]:.0f}%"
    return (best if len(confidences) == 1 else f"{len(confidences)} tracks, best {best}"), True


def _write_masks(folder: Path, clip: Clip, t: int) -> None:
    """A palette PNG for each sentence: 0 where nothing is, else n for its n-th best track."""
    for e, selected in enumerate(clip.selected_E):
        labels_HW = np.zeros(clip.size, np.uint8)
        for label in range(len(selected), 0, -1):
            labels_HW[coco.decode(clip.tracks[selected[label - 1]][t]) > 0] = label
        file = folder / str(e) / f"{clip.frames[t]}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(encode_mask(labels_HW, label_palette()))


@contextmanager
def _tracks_json(
    path: Path, clip: Clip, run: Run, times: Sequence[Fraction]
) -> Iterator[Callable[[Clip], None]]:
    """A JSON file; yields what to call with each clip in order, of which `clip` is the first."""
    lasts = times[-1] - times[0]
    head = {
        "video": str(clip.path),
        "run": run.run_id,
        "threshold": run.tau,
        "height": clip.size[0],
        "width": clip.size[1],
        "frames_per_second": float((len(times) - 1) / lasts) if lasts else None,
    }
    with replacing(path) as file:
        file.write(json.dumps(head)[:-1].encode() + b', "clips": [')
        separator = b"\n"
        left = iter(times)

        def write(clip: Clip) -> None:
            nonlocal separator
            seconds = [round(float(time), 6) for time in islice(left, len(clip.frames))]
            content = {"frames": clip.frames, "seconds": seconds, **_as_json(clip)}
            file.write(separator + json.dumps(content).encode())
            separator = b",\n"

        yield write
        file.write(b"\n]}\n")


def _as_json(clip: Clip) -> dict[str, Any]:
    """Scores of every candidate; frames of the selected tracks, null where one is not visible."""
    chosen = sorted({n for selected in clip.selected_E for n in selected})
    return {
        "expressions": [
            {
                "expression": clip.sentences[e],
                "tracks": [
                    {"track_id": n, **score._asdict(), "selected": n in clip.selected_E[e]}
                    for n, score in scores.items()
                ],
            }
            for e, scores in enumerate(clip.scores_E)
        ],
        "tracks": {n: _frames_of(clip.tracks[n]) for n in chosen},
    }


def _frames_of(track: Sequence[RLE]) -> dict[str, list]:
    """Per frame pixels, box (x, y, width, height) and COCO RLE of a mask; null where empty."""
    areas = [int(coco.area(rle)) for rle in track]
    boxes = coco.toBbox(list(track)).astype(int).tolist()
    columns = {"areas": areas, "boxes": boxes, "masks": track}
    return {
        name: [value if area else None for value, area in zip(values, areas, strict=True)]
        for name, values in columns.items()
    }
