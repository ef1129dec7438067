"""Masks of videos in JSON, in either layout that goes by the name of COCO:

    YouTube-VIS   {"videos": [{"id", "file_names": ["dog/00000.jpg", ...]}],
                   "annotations": [{"id", "video_id", "segmentations": [one per file name]}]}
    COCO video    {"videos": [{"id", "name"}],
                   "images": [{"id", "video_id", "file_name"}],
                   "annotations": [{"id", "image_id", "instance_id", "segmentation"}]}

A segmentation is null, an RLE, compressed or not, or a list of polygons [x0, y0, x1, y1, ...] in
pixels. A video's id is its `name`, else the folder in its file names; a frame is named by its file
name, without folder and ending. An object's id is `object_id`, which our exports write, else
`instance_id`, else the annotation's `id`. Sentences may stand in the file, as in our exports:

    {"expressions": [{"video_id", "text", "object_ids", "expression_id", "tags"}]}

The layouts are those of github.com/youtubevos/cocoapi and of CocoVID in github.com/open-mmlab/
mmtracking.
"""

from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any, TypeGuard

from pycocotools import mask as coco

from warehouse.masks import RLE
from warehouse.sources.base import SourceError, check_path_name, collected
from warehouse.sources.mevis import check_rle
from warehouse.sources.sentences import Sentence, split_ids

OUTSIDE = 1.0  # pixels that a polygon may reach beyond the frame


class CocoVideos:
    """What such a file says of each video, by the video's id.

    frames: names of the annotated frames. objects: object id -> frame -> segmentation as it is
    there, and its key in the file. faults: what is wrong, by video, or by the key of an entry that
    does not tell which video it is about.
    """

    def __init__(self, document: dict[str, Any], file: Path) -> None:
        """Raises SourceError when the file has no lists of videos and annotations."""
        self.file = file
        self.frames: dict[str, list[str]] = {}
        self.objects: dict[str, dict[str, dict[str, tuple[Any, str]]]] = {}
        self.sentences: dict[str, list[Sentence]] = {}
        self.faults: dict[str, list[str]] = {}
        self._names: dict[int | str, str] = {}  # number of a video -> its name
        self._broken: set[int | str] = set()  # numbers of videos that cannot be used
        self._images: dict[int | str, tuple[int | str, str]] = {}  # -> number of its video, frame
        self._files: dict[int | str, list[Any]] = {}  # number of a video -> files of its images
        images = _list(document, "images", file, optional=True)
        for image in images:
            if isinstance(image, dict) and _is_id(image.get("video_id")):
                self._files.setdefault(image["video_id"], []).append(image.get("file_name"))
                if _is_id(image.get("id")):
                    frame = PurePosixPath(str(image.get("file_name"))).stem
                    self._images.setdefault(image["id"], (image["video_id"], frame))
        for key, entries, add in (
            ("videos", _list(document, "videos", file), self._add_video),
            ("images", images, self._add_image),
            ("annotations", _list(document, "annotations", file), self._add_annotation),
            ("expressions", _list(document, "expressions", file, optional=True), self._add_text),
        ):
            of_video = "id" if key == "videos" else "video_id"
            for n, fields in enumerate(entries):
                self._add(f"{key}[{n}]", fields, of_video, add)

    def _add(
        self, key: str, fields: Any, of_video: str, add: Callable[[dict[str, Any], str], None]
    ) -> None:
        """Take an entry, or note its fault; entries about a video that is broken are left out."""
        where, number = f"{self.file}: {key}", None
        errors: list[str] = []
        with collected(errors):
            if not isinstance(fields, dict):
                raise SourceError(f"{where}: must be a JSON object, not {fields!r}")
            image, number = fields.get("image_id"), fields.get(of_video)
            if _is_id(image) and image in self._images:
                number = self._images[image][0]
            if _is_id(number) and number in self._broken:
                return
            add(fields, where)
        if errors:
            about = self._names.get(number, key) if _is_id(number) else key
            self.faults.setdefault(about, []).extend(errors)

    def _add_video(self, fields: dict[str, Any], where: str) -> None:
        number = _id(fields, "id", where)
        self._broken.add(number)  # until it is known to be sound
        files = fields.get("file_names", self._files.get(number))
        if isinstance(fields.get("name"), str):
            self._names.setdefault(number, fields["name"])
        if not (isinstance(files, list) and files and all(isinstance(f, str) for f in files)):
            raise SourceError(
                f'{where}: "file_names" must list the files of its frames, such as '
                f'"dog/00000.jpg", or "images" have them one by one, got {files!r}'
            )
        name = fields.get("name", PurePosixPath(files[0]).parent.name)
        check_path_name(name, f"{where}: the name, or the folder in the names of files,")
        if name in self.frames or self._names.setdefault(number, name) != name:
            raise SourceError(f"{where}: video {name!r}, id {number!r}, is there already")
        frames = [PurePosixPath(file).stem for file in files]
        twice = [frame for frame in dict.fromkeys(frames) if frames.count(frame) > 1]
        if twice:
            raise SourceError(f"{where}: lists the frame {twice[0]!r} twice; remove one")
        self._broken.discard(number)
        self.frames[name] = frames
        self.objects[name] = {}

    def _add_image(self, fields: dict[str, Any], where: str) -> None:
        number = _id(fields, "id", where)
        self._video(fields, where)
        frame = PurePosixPath(fields["file_name"]).stem
        if self._images[number] != (fields["video_id"], frame):
            raise SourceError(f"{where}: image id {number!r} is there already")

    def _add_annotation(self, fields: dict[str, Any], where: str) -> None:
        named_by = next((k for k in ("object_id", "instance_id") if k in fields), "id")
        object_id = str(_id(fields, named_by, where))
        if split_ids(object_id) != (object_id,):
            raise SourceError(f'{where}: "{named_by}" {object_id!r} has spaces or semicolons in it')
        if "image_id" in fields:
            image = fields["image_id"]
            if not _is_id(image) or image not in self._images:
                raise SourceError(f'{where}: "image_id" {image!r} is none of "images"')
            video, frame = self._images[image]
            if video not in self._names:  # as is said of the image
                return
            masks = self.objects[self._names[video]].setdefault(object_id, {})
            if frame in masks:
                raise SourceError(f"{where}: object {object_id!r} has a mask in {frame!r} already")
            masks[frame] = fields.get("segmentation"), f"{where}.segmentation"
            return
        name = self._video(fields, where)
        segmentations, frames = fields.get("segmentations"), self.frames[name]
        if not isinstance(segmentations, list) or len(segmentations) != len(frames):
            count = len(segmentations) if isinstance(segmentations, list) else "no list of"
            raise SourceError(
                f"{where}: {count} segmentations for the {len(frames)} frames of {name!r}; give "
                "one for each, null where the object is absent"
            )
        if object_id in self.objects[name]:
            raise SourceError(f"{where}: object {object_id!r} of {name!r} is there already")
        self.objects[name][object_id] = {
            frame: (segmentation, f"{where}.segmentations[{t}]")
            for t, (frame, segmentation) in enumerate(zip(frames, segmentations, strict=True))
        }

    def _add_text(self, fields: dict[str, Any], where: str) -> None:
        name = self._video(fields, where)
        text, objects, tags = fields.get("text"), fields.get("object_ids"), fields.get("tags", [])
        if not (isinstance(text, str) and text.strip()):
            raise SourceError(f"{where}: has no text")
        for key, value in (("object_ids", objects), ("tags", tags)):
            if not (isinstance(value, list) and all(isinstance(v, str) for v in value)):
                raise SourceError(f'{where}: "{key}" must be a list of strings, got {value!r}')
        self.sentences.setdefault(name, []).append(
            Sentence(
                where=where,
                text=text,
                objects=tuple(objects or ()),
                expression_id=str(fields.get("expression_id", "")),
                tags=tuple(tags),
            )
        )

    def _video(self, fields: dict[str, Any], where: str) -> str:
        number = _id(fields, "video_id", where)
        if number not in self._names:
            raise SourceError(f'{where}: "video_id" {number!r} is none of "videos"')
        return self._names[number]


def rle_of(segmentation: Any, size: tuple[int, int], where: str) -> RLE | None:
    """The mask of a segmentation in a frame of `size` (height, width); None where it is empty.

    Raises SourceError when it is none of COCO's forms, or not of this size.
    """
    if segmentation is None or segmentation == []:
        return None
    if isinstance(segmentation, list):
        _check_polygons(segmentation, size, where)
        rle = coco.merge(coco.frPyObjects(segmentation, *size))
    elif isinstance(segmentation, dict) and isinstance(segmentation.get("counts"), list):
        _check_runs(segmentation, size, where)
        rle = coco.frPyObjects(segmentation, *size)
    elif isinstance(segmentation, dict):
        check_rle(segmentation, size, where)
        rle = segmentation
    else:
        raise SourceError(
            f"{where}: must be null, a list of polygons, or an RLE "
            f'{{"size": [h, w], "counts": ...}}, got {segmentation!r}'
        )
    counts = rle["counts"] if isinstance(rle["counts"], str) else rle["counts"].decode()
    return {"size": [*size], "counts": counts} if coco.area(rle) else None


def _check_polygons(polygons: list[Any], size: tuple[int, int], where: str) -> None:
    height, width = size
    for polygon in polygons:
        if not (
            isinstance(polygon, list)
            and len(polygon) >= 6
            and len(polygon) % 2 == 0
            and all(isinstance(v, int | float) and not isinstance(v, bool) for v in polygon)
        ):
            raise SourceError(
                f"{where}: a polygon must be a list of three or more points [x0, y0, x1, y1, ...]"
            )
        for x, y in zip(polygon[::2], polygon[1::2], strict=True):
            if not (-OUTSIDE <= x <= width + OUTSIDE and -OUTSIDE <= y <= height + OUTSIDE):
                raise SourceError(
                    f"{where}: a polygon's point x={x}, y={y} is outside of the frame, whose size "
                    f"[height, width] is {[*size]}"
                )


def _check_runs(rle: dict[str, Any], size: tuple[int, int], where: str) -> None:
    if rle.get("size") != [*size]:
        raise SourceError(
            f"{where}: the mask's size [height, width] is {rle.get('size')}, but the video's "
            f"frames are {[*size]}"
        )
    runs = rle["counts"]
    if not all(type(run) is int and run >= 0 for run in runs) or sum(runs) != size[0] * size[1]:
        raise SourceError(f"{where}: the RLE counts do not fill a mask of {[*size]}")


def _list(document: dict[str, Any], key: str, file: Path, *, optional: bool = False) -> list[Any]:
    value = document.get(key, [] if optional else None)
    if not isinstance(value, list):
        raise SourceError(f'{file}: "{key}" must be a list, got {type(value).__name__}')
    return value


def _is_id(value: object) -> TypeGuard[int | str]:
    return isinstance(value, int | str) and not isinstance(value, bool)


def _id(fields: dict[str, Any], key: str, where: str) -> int | str:
    value = fields.get(key)
    if not _is_id(value):
        raise SourceError(f'{where}: "{key}" must be a number or a text, got {value!r}')
    return value
