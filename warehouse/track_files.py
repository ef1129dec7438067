"""Mask tracks of videos made by any method, in files: anybody's, or those of `sola export`.

    masks.json         YouTube-VIS or COCO video, see `warehouse.sources.coco_video`; an annotation
                       (or instance) is a track
    mask_dict.json     MeViS: {track: [RLE or null per frame]}; which video a track is of says
                       meta_expressions.json beside it, by the "anno_id" of its expressions, or the
                       name of the track, "<video>/<anything>"
    folder or zip      <video>/<frame>.png: a value of the palette (or grey) image is a track
                       <video>/<anything>/<frame>.png: the same, in each of a video's folders

Tracks have the names that they have there, in the order of the file. Values of one label image do
not overlap; tracks of the other layouts may.
"""

import hashlib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from pycocotools import mask as coco

from warehouse.masks import RLE
from warehouse.regular import open_regular
from warehouse.sources.base import Masks, SourceError, collected, natural, read_json_object
from warehouse.sources.coco_video import CocoVideos, rle_of
from warehouse.submissions import SubmissionError, list_masks, read_mask

MOST_TRACKS = 1000  # of a video
NAMED = 5  # of what a message lists


class TrackFile(Protocol):
    """Tracks as a file has them; `videos` are those that it speaks of."""

    path: Path
    videos: list[str]

    def masks(
        self, video_id: str, frames: Sequence[str], size: tuple[int, int]
    ) -> Mapping[str, Masks]:
        """The masks of each track in these frames, of this (height, width); None: nothing.

        Raises SourceError (ValueError) with all faults that it finds.
        """
        ...


def check_file(path: Path) -> None:
    """Raise SourceError unless there is such a file or folder."""
    if not path.exists():
        raise SourceError(f"{path}: no such file or folder")


def open_tracks(path: Path, videos: Sequence[str]) -> TrackFile:
    """The tracks in a file or folder that are of some of these videos.

    Raises SourceError when it is of none of the layouts, or has tracks of another video.
    """
    check_file(path)
    if path.is_dir() or path.suffix.lower() == ".zip":
        found: TrackFile = _Images(path, videos)
    else:
        document = read_json_object(path)
        found = _Coco(path, document) if "videos" in document else _MaskDict(path, document)
    known = {*videos}
    unknown = [name for name in found.videos if name not in known]
    if unknown:
        raise SourceError(
            f"{path}: has tracks of {len(unknown)} unknown videos: {_listed(unknown)}. The split's "
            f"are: {_listed(videos)}"
        )
    return found


def read_tracks(
    file: TrackFile, video_id: str, frames: Sequence[str], size: tuple[int, int]
) -> list[Masks]:
    """The tracks of a video that are seen in any of these frames, in the order of the file.

    Raises SourceError when there are more than MOST_TRACKS, or a mask is at fault.
    """
    masks = file.masks(video_id, frames, size)
    return [track for track in masks.values() if any(track)]


def identity(path: Path) -> str:
    """32 hexadecimal digits of the bytes of a file, or of all PNG files of a folder."""
    files = sorted(path.rglob("*.png")) if path.is_dir() else [path]
    digest = hashlib.sha256()
    for file in files:
        with open_regular(file) as stream:
            content = stream.read()
        name = file.relative_to(path).as_posix() if path.is_dir() else ""
        digest.update(f"{name}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()[:32]


class _Coco:
    def __init__(self, path: Path, document: dict) -> None:
        self.path, self._content = path, CocoVideos(document, path)
        self.videos = list(self._content.frames)
        if self._content.faults:
            raise SourceError(*(f for faults in self._content.faults.values() for f in faults))

    def masks(
        self, video_id: str, frames: Sequence[str], size: tuple[int, int]
    ) -> Mapping[str, Masks]:
        if video_id not in self._content.frames:
            return {}
        _check_frames(self.path, video_id, frames, self._content.frames[video_id])
        tracks = self._content.objects[video_id]
        _check_count(self.path, video_id, len(tracks))
        errors: list[str] = []
        found: dict[str, Masks] = {}
        for name, segmentations in tracks.items():
            found[name] = [None] * len(frames)
            for t, frame in enumerate(frames):
                if frame in segmentations:
                    segmentation, where = segmentations[frame]
                    with collected(errors):
                        found[name][t] = rle_of(segmentation, size, where)
        if errors:
            raise SourceError(*errors)
        return found


class _MaskDict:
    def __init__(self, path: Path, document: dict) -> None:
        self.path = path
        self._tracks: dict[str, dict[str, Any]] = {}
        videos = _videos_of_objects(path.parent)
        for name, masks in document.items():
            video_id = videos.get(name) or name.rpartition("/")[0]
            if not video_id:
                raise SourceError(
                    f"{path}: nothing says which video the track {name!r} is of. Name tracks "
                    '"<video>/<track>", or put the meta_expressions.json beside the file whose '
                    '"anno_id" name them'
                )
            self._tracks.setdefault(video_id, {})[name] = masks
        self.videos = list(self._tracks)

    def masks(
        self, video_id: str, frames: Sequence[str], size: tuple[int, int]
    ) -> Mapping[str, Masks]:
        errors: list[str] = []
        found: dict[str, Masks] = {}
        tracks = self._tracks.get(video_id, {})
        _check_count(self.path, video_id, len(tracks))
        for name, masks in tracks.items():
            if not isinstance(masks, list) or len(masks) != len(frames):
                count = len(masks) if isinstance(masks, list) else "no list of"
                errors.append(
                    f"{self.path}: track {name!r} has {count} masks for the {len(frames)} frames "
                    f"of {video_id!r}; give one for each, null where there is nothing"
                )
                continue
            found[name] = [None] * len(frames)
            for t, mask in enumerate(masks):
                with collected(errors):
                    found[name][t] = rle_of(mask, size, f"{self.path}: {name}[{t}]")
        if errors:
            raise SourceError(*errors)
        return found


def _videos_of_objects(folder: Path) -> dict[str, str]:
    """Of a folder in MeViS's layout, the video that each "anno_id" is of."""
    for name in ("meta_expressions.json", "meta_expressions_v2.json"):
        if (folder / name).is_file():
            videos = read_json_object(folder / name).get("videos")
            if not isinstance(videos, dict):
                raise SourceError(f'{folder / name}: has no object "videos"')
            return {
                str(anno_id): video_id
                for video_id, meta in videos.items()
                for expression in meta.get("expressions", {}).values()
                for anno_id in expression.get("anno_id", ())
            }
    return {}


class _Images:
    def __init__(self, path: Path, videos: Sequence[str]) -> None:
        self.path = path
        self._files: dict[str, dict[str, dict[str, str]]] = {}  # video -> folder -> frame -> file
        for name, stored in list_masks(path, {*videos}).items():
            video_id, *folders, frame = name.removesuffix(".png").split("/")
            if len(folders) > 1 or video_id == frame:
                raise SourceError(
                    f"{path}: {name} is neither <video>/<frame>.png nor "
                    "<video>/<anything>/<frame>.png"
                )
            self._files.setdefault(video_id, {}).setdefault("".join(folders), {})[frame] = stored
        self.videos = sorted(self._files, key=natural)
        if not self.videos:
            raise SourceError(f"{path}: has no PNG files, <video>/<frame>.png")

    def masks(
        self, video_id: str, frames: Sequence[str], size: tuple[int, int]
    ) -> Mapping[str, Masks]:
        found: dict[str, Masks] = {}
        for folder, files in sorted(
            self._files.get(video_id, {}).items(), key=lambda item: natural(item[0])
        ):
            place = "/".join(filter(None, [video_id, folder]))
            _check_frames(self.path, place, frames, files)
            seen: dict[int, Masks] = {}
            for t, frame in enumerate(frames):
                for value, rle in self._labels(files[frame], size):
                    seen.setdefault(value, [None] * len(frames))[t] = rle
            found |= {f"{place}/{value}": seen[value] for value in sorted(seen)}
            _check_count(self.path, video_id, len(found))
        return found

    def _labels(self, stored: str, size: tuple[int, int]) -> list[tuple[int, RLE]]:
        try:
            labels_HW = read_mask(self.path, stored, size)
        except SubmissionError as error:
            raise SourceError(str(error)) from error
        found: list[tuple[int, RLE]] = []
        for value in np.unique(labels_HW[labels_HW != 0]).tolist():
            rle = coco.encode(np.asfortranarray(labels_HW == value, dtype=np.uint8))
            found.append((int(value), {"size": [*size], "counts": rle["counts"].decode()}))
        return found


def _check_frames(path: Path, what: str, frames: Sequence[str], there: Collection[str]) -> None:
    missing = [frame for frame in frames if frame not in {*there}]
    if missing:
        raise SourceError(
            f"{path}: {what} lacks {len(missing)} of the video's {len(frames)} frames: "
            f"{_listed(missing)}. Give all of them, empty where there is nothing"
        )


def _check_count(path: Path, video_id: str, count: int) -> None:
    if count > MOST_TRACKS:
        raise SourceError(
            f"{path}: has {count} tracks of the video {video_id!r}, and at most {MOST_TRACKS} are "
            "read: keep those of the highest score"
        )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:NAMED]) + (", ..." if len(names) > NAMED else "")
