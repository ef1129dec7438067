"""Every fault of a data set: what its reader finds, and what its images are like.

The faults found are listed, with what to do, in docs/data-sets.md.
"""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from warehouse.frames import frame_files, read_frames
from warehouse.images import FrameError, check_image
from warehouse.sources import list_splits, read_split
from warehouse.sources.base import BadVideo, SourceError, SourceVideo, check_root, collected
from warehouse.sources.labels import LabelImages

THREADS = 8
Progress = Callable[[str, int], AbstractContextManager[Callable[[int, int], None]]]

TextFault = Callable[[str], str | None]


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One fault; `video_id` is None where it is one of the whole split."""

    split: str
    video_id: str | None
    message: str


@dataclass(frozen=True, kw_only=True)
class SplitCheck:
    """What a split holds, its bad videos included, and what is wrong with it."""

    split: str
    videos: int
    expressions: int
    frames: int
    problems: tuple[Problem, ...]


def check_dataset(
    dataset: str,
    root: Path,
    splits: Iterable[str],
    progress: Progress,
    *,
    full: bool = False,
    text_fault: TextFault | None = None,
) -> list[SplitCheck]:
    """Check the given splits, or all there are; a fault that splits share counts once.

    `progress(stage, videos)` is a context that yields `advance(videos, failed)`. Of every image
    the header and the end are read, with `full` all of it. `text_fault` says what is wrong with an
    expression's text, None where nothing is.

    Raises SourceError when there is no split, or no such data set.
    """
    splits = list(splits) or list_splits(dataset, root)
    if not splits:
        check_root(root)
        raise SourceError(f"{root}: no split of {dataset} is there; see docs/data-sets.md")
    checks = []
    seen: set[str] = set()
    for split in splits:
        check = _check_split(dataset, root, split, progress, full, text_fault)
        new = tuple(problem for problem in check.problems if problem.message not in seen)
        seen |= {problem.message for problem in new}
        checks.append(SplitCheck(**vars(check) | {"problems": new}))
    return checks


def _check_split(
    dataset: str,
    root: Path,
    split: str,
    progress: Progress,
    full: bool,
    text_fault: TextFault | None,
) -> SplitCheck:
    problems: list[Problem] = []
    try:
        videos: Sequence[SourceVideo | BadVideo] = read_split(dataset, root, split)
    except SourceError as error:
        problems += [Problem(split=split, video_id=None, message=text) for text in error.errors]
        videos = error.videos
    expressions = frames = 0
    with (
        ThreadPoolExecutor(THREADS) as pool,
        progress(f"check {split}", len(videos)) as advance,
    ):
        for video, errors in zip(videos, pool.map(lambda v: _faults(v, full), videos), strict=True):
            problems += [Problem(split=split, video_id=video.video_id, message=e) for e in errors]
            advance(1, bool(errors))
            found = video.found if isinstance(video, BadVideo) else video
            if found is not None:
                frames += len(found.frames)
                with collected([]):  # faults of label images are among the errors already
                    expressions += len(found.expressions)
                    if text_fault is not None:
                        problems += [
                            Problem(split=split, video_id=video.video_id, message=message)
                            for message in _text_faults(found, text_fault)
                        ]
    return SplitCheck(
        split=split,
        videos=len(videos),
        expressions=expressions,
        frames=frames,
        problems=tuple(problems),
    )


def _text_faults(video: SourceVideo, text_fault: TextFault) -> list[str]:
    """What is wrong with the texts of a video's expressions."""
    return [
        f"expression {expression.expression_id!r}: {fault}"
        for expression in video.expressions
        if (fault := text_fault(expression.text))
    ]


def _faults(video: SourceVideo | BadVideo, full: bool) -> list[str]:
    """The reader's errors of a video, and those of its images."""
    errors = [*video.errors] if isinstance(video, BadVideo) else []
    found = video.found if isinstance(video, BadVideo) else video
    if found is not None and found.frames:
        _check_frames(found, full, errors)
        labels = found.ground_truth
        label_faults = labels.faults(full=full) if isinstance(labels, LabelImages) else []
        errors += label_faults
        if not label_faults:
            with collected(errors):
                len(found.expressions)  # those of pascal-voc are found in the label images
    return list(dict.fromkeys(errors))


def _check_frames(video: SourceVideo, full: bool, errors: list[str]) -> None:
    """An error for each frame that is broken or not of the first frame's size."""
    if not video.path.is_dir():
        with collected(errors):
            for _ in read_frames(video.path, video.frames if full else video.frames[:1]):
                pass
        return
    size = None
    for file in frame_files(video.path, video.frames):
        with collected(errors):
            this = check_image(file, decode=full)
            size = size or this
            if this != size:
                raise FrameError(
                    f"{file}: its size [height, width] is {[*this]}, but the video's first frame "
                    f"is {[*size]}"
                )
