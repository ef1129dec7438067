"""A labelled data set of a user's own: videos, masks of their objects, sentences that name these.

    {root}/{split}/videos/<video>/<frame>.jpg, or videos/<video>.mp4, as the reader `folder` has it
    {root}/{split}/masks/<video>/<frame>.png   pixel value = object id, 0 background
        or {root}/{split}/masks.json           YouTube-VIS or COCO video, see `coco_video`
    {root}/{split}/expressions.csv             columns video_id, text, objects, see `sentences`

A sentence without objects has no target. In label images 255 is void, unless a sentence of the
video names it as an object. Every frame has a label image; of a video in masks.json the frames
that it lists count. Sentences may stand in masks.json, in place of expressions.csv.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from warehouse.contents import described, names_in
from warehouse.frames import frame_size
from warehouse.sources.base import (
    VOID,
    BadVideo,
    Masks,
    SourceError,
    SourceExpression,
    SourceVideo,
    check_path_name,
    check_split,
    check_video_id,
    collected,
    good_or_bad,
    read_json_object,
)
from warehouse.sources.coco_video import CocoVideos, rle_of
from warehouse.sources.folder import frame_names, list_videos, video_id_of
from warehouse.sources.labels import VOID_VALUE, label_images
from warehouse.sources.sentences import Sentence, read_sentences

VIDEOS, MASKS, MASKS_FILE, SENTENCES = "videos", "masks", "masks.json", "expressions.csv"
COLUMNS = ("video_id", "text", "objects")
NAMED = 10  # ids that a message lists


@dataclass(frozen=True, kw_only=True)
class _Split:
    """A split as it was found; what could not be read is None."""

    folder: Path
    sentences: Mapping[str, Sequence[Sentence]] | None
    coco: CocoVideos | None
    images: Path | None
    faults: Mapping[str, list[str]] = field(default_factory=dict)  # of lines and keys, by video


def list_splits(root: Path) -> list[str]:
    """The folders of `root` that hold anything of a split."""
    parts = (VIDEOS, MASKS, MASKS_FILE, SENTENCES)
    folders = [path for path in root.iterdir() if path.is_dir()] if root.is_dir() else []
    return sorted(path.name for path in folders if any((path / part).exists() for part in parts))


def read_split(root: Path, split: str) -> list[SourceVideo | BadVideo]:
    """Videos of a split in natural order.

    Raises SourceError when its videos, masks or sentences are missing, or a file of them is
    malformed as a whole. A fault of one video, or of a line or key about it, makes a BadVideo.
    """
    check_split(root, split, list_splits(root))
    errors: list[str] = []
    paths: list[Path] = []
    with collected(errors):
        paths = _list_videos(root / split / VIDEOS)
    found = _find(root / split, errors)
    result: list[SourceVideo | BadVideo] = []
    seen: dict[str, Path] = {}
    for path in paths:
        video_id = video_id_of(path)
        if seen.setdefault(video_id, path) is path:
            result.append(_read_video(path, video_id, found))
        else:
            error = f"{path}: has the same video id as {seen[video_id]}; rename one of them"
            result.append(BadVideo(video_id=video_id, errors=(error,)))
    if paths:
        result += _without_video(found, seen)
    if errors:
        raise SourceError(*errors, videos=result)
    return result


def _list_videos(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise SourceError(
            f"{folder}: no such folder; it holds the split's videos, each a folder of frames or a "
            "video file"
        )
    paths = list_videos(folder)
    if paths == [folder]:
        raise SourceError(f"{folder}: holds images; put those of each video into a folder in it")
    return paths


def _find(folder: Path, errors: list[str]) -> _Split:
    """The masks and sentences of a split."""
    images, masks_file, sentences_file = folder / MASKS, folder / MASKS_FILE, folder / SENTENCES
    coco: CocoVideos | None = None
    faults: dict[str, list[str]] = {}  # of lines and keys, by video
    with collected(errors):
        if masks_file.exists() and images.exists():
            raise SourceError(f"{masks_file}: there is a folder {MASKS}, too; remove one of them")
        if masks_file.exists():
            coco = CocoVideos(read_json_object(masks_file), masks_file)
            faults = {video_id: [*texts] for video_id, texts in coco.faults.items()}
        elif not images.is_dir():
            raise SourceError(
                f"{images}: no such folder, and no {MASKS_FILE}: the split has no masks. Give "
                "videos without masks to the data set folder instead"
            )
    sentences: Mapping[str, Sequence[Sentence]] | None = None
    with collected(errors):
        if coco and coco.sentences:
            if sentences_file.exists():
                raise SourceError(
                    f"{sentences_file}: {MASKS_FILE} has expressions, too; remove one of the two"
                )
            sentences = coco.sentences
        else:
            sentences, of_lines = read_sentences(sentences_file, COLUMNS)
            for video_id, texts in of_lines.items():
                faults.setdefault(video_id, []).extend(texts)
    return _Split(
        folder=folder,
        sentences=sentences,
        coco=coco,
        images=images if images.is_dir() and not masks_file.exists() else None,
        faults=faults,
    )


def _without_video(found: _Split, known: Mapping[str, Path]) -> list[BadVideo]:
    """What is said about videos that are not there."""
    errors: dict[str, list[str]] = {id_: [*faults] for id_, faults in found.faults.items()}
    places = {id_: sentences[0].where for id_, sentences in (found.sentences or {}).items()}
    if found.coco:
        places |= {id_: str(found.coco.file) for id_ in found.coco.frames}
    if found.images:
        folders = [path for path in found.images.iterdir() if path.is_dir()]
        places |= {path.name: str(path) for path in sorted(folders)}
    for video_id, where in places.items():
        errors.setdefault(video_id, []).append(
            f"{where}: {video_id!r} is no video in {found.folder / VIDEOS}; there is "
            f"{_listed(known)}"
        )
    return [
        BadVideo(video_id=video_id, errors=tuple(texts))
        for video_id, texts in errors.items()
        if video_id not in known
    ]


def _read_video(path: Path, video_id: str, found: _Split) -> SourceVideo | BadVideo:
    errors = [*found.faults.get(video_id, [])]
    with collected(errors):
        check_video_id(video_id)
    frames = frame_names(path, errors)
    sentences = (found.sentences or {}).get(video_id, [])
    if found.sentences is not None and not sentences and video_id not in found.faults:
        errors.append(f"{found.folder}: no expression is about the video {video_id!r}")
    expressions = _expressions(sentences, errors)
    truth: Mapping[str, Masks] = {}
    if found.coco is not None:
        if video_id in found.coco.frames:
            frames = _annotated(path, frames, found.coco, video_id, errors)
            truth = _coco_masks(path, frames, found.coco, video_id, errors)
            _check_named(sentences, truth, found.coco, video_id, errors)
        elif video_id not in found.faults:
            errors.append(
                f'{found.coco.file}: "videos" has no {video_id!r}, but {_listed(found.coco.frames)}'
            )
    elif found.images is not None and frames:
        folder = found.images / video_id
        named = {object_id for sentence in sentences for object_id in sentence.objects}
        if folder.is_dir() and not any(folder.glob("*.png")):
            errors.append(
                f"{folder}: has no label images; they are named as the frames, such as "
                f"{frames[0]}.png, and there is: {described(names_in(folder))}"
            )
        else:
            void = str(VOID_VALUE) not in named
            truth = label_images(path, frames, frames, folder, expressions, errors, void=void)
            stray = sorted({file.stem for file in folder.glob("*.png")} - {*frames})
            errors += [
                f"{folder / name}.png: there is no such frame; the video's are {frames[0]} to "
                f"{frames[-1]}"
                for name in stray
            ]
    video = SourceVideo(
        video_id=video_id, path=path, frames=frames, expressions=expressions, ground_truth=truth
    )
    return good_or_bad(video, errors)


def _expressions(sentences: Sequence[Sentence], errors: list[str]) -> tuple[SourceExpression, ...]:
    """Those with a sound id, which by default counts from 0; an error for each other one."""
    good: dict[str, SourceExpression] = {}
    for n, sentence in enumerate(sentences):
        expression_id = sentence.expression_id or str(n)
        with collected(errors):
            check_path_name(expression_id, f"{sentence.where}: expression_id")
            if expression_id in good:
                raise SourceError(
                    f"{sentence.where}: expression_id {expression_id!r} is there already; give "
                    "each sentence of a video another one, or none to any"
                )
            if VOID in sentence.objects:
                raise SourceError(f"{sentence.where}: names {VOID!r}, which is no object")
            good[expression_id] = SourceExpression(
                expression_id=expression_id,
                text=sentence.text,
                object_ids=sentence.objects,
                tags=sentence.tags,
            )
    return tuple(good.values())


def _annotated(
    path: Path, frames: tuple[str, ...], coco: CocoVideos, video_id: str, errors: list[str]
) -> tuple[str, ...]:
    """The frames that masks.json lists, in the video's order; an error for each unknown one."""
    listed = coco.frames[video_id]
    if frames:
        errors += [
            f"{coco.file}: video {video_id!r}: {path} has no frame {frame!r}; its frames are "
            f"{frames[0]} to {frames[-1]}"
            for frame in sorted({*listed} - {*frames})
        ]
    return tuple(frame for frame in frames if frame in {*listed})


def _coco_masks(
    path: Path, frames: tuple[str, ...], coco: CocoVideos, video_id: str, errors: list[str]
) -> dict[str, Masks]:
    """The masks of the objects in these frames; an error for each segmentation that is none."""
    masks: dict[str, Masks] = {}
    with collected(errors):
        size = frame_size(path, frames) if frames else None
        for object_id, segmentations in coco.objects[video_id].items():
            masks[object_id] = [None] * len(frames)
            for t, frame in enumerate(frames):
                if size and frame in segmentations:
                    segmentation, where = segmentations[frame]
                    with collected(errors):
                        masks[object_id][t] = rle_of(segmentation, size, where)
    return masks


def _check_named(
    sentences: Sequence[Sentence],
    masks: Mapping[str, Masks],
    coco: CocoVideos,
    video_id: str,
    errors: list[str],
) -> None:
    """An error for each object that a sentence, the first of several, names and no mask shows."""
    if video_id in coco.faults:  # which may be why there is no such object
        return
    sound = not errors
    first = {name: sentence.where for sentence in reversed(sentences) for name in sentence.objects}
    for object_id, where in first.items():
        if object_id == VOID:
            continue
        if object_id not in masks:
            errors.append(
                f"{where}: names object {object_id!r}, but {coco.file} has of {video_id!r}: "
                f"{_listed(masks)}"
            )
        elif sound and not any(masks[object_id]):
            errors.append(
                f"{where}: names object {object_id!r}, which {coco.file} shows in no frame"
            )


def _listed(names: Mapping[str, object]) -> str:
    shown = ", ".join([*names][:NAMED]) + (", ..." if len(names) > NAMED else "")
    return shown or "nothing"
