"""Ref-DAVIS17 reader (Khoreva et al., ACCV 2018): DAVIS-2017-Unsupervised at 480p, and four texts
for each object:

    {root}/JPEGImages/480p/<video>/<frame>.jpg
    {root}/Annotations_unsupervised/480p/<video>/<frame>.png, pixel value = object id, 255 void
    {root}/ImageSets/2017/{train,val}.txt
    {root}/davis_text_annotations/Davis17_annot{1,2}[_full_video].txt: video object "text"

All but the texts may lie in {root}/DAVIS, where the archive unpacks to. Expression id = 4 * object
+ variant: objects count from 0 in the order of their numbers, variants are annotator 1's text for
the first frame, for the full video, then annotator 2's. Void pixels are the object VOID, which no
expression names. The layout, the order and the three mended video names are those of
tools/data/convert_davis_to_ytvos.py of github.com/wjn922/ReferFormer.
"""

import re
from pathlib import Path

from warehouse.sources.base import (
    BadVideo,
    SourceError,
    SourceExpression,
    SourceVideo,
    check_split,
    collected,
    good_or_bad,
    listed_frames,
    read_lines,
    read_names,
)
from warehouse.sources.labels import label_images

VARIANTS = {
    "Davis17_annot1.txt": ("annotator-1", "first-frame"),
    "Davis17_annot1_full_video.txt": ("annotator-1", "full-video"),
    "Davis17_annot2.txt": ("annotator-2", "first-frame"),
    "Davis17_annot2_full_video.txt": ("annotator-2", "full-video"),
}
MISSPELT = {"clasic-car": "classic-car", "dog-scale": "dogs-scale", "motor-bike": "motorbike"}
LINE = re.compile(r'(\S+)\s+([0-9]+)\s+"?(.*?)"?')

Texts = dict[int, dict[int, str]]  # object number -> variant -> text


def list_splits(root: Path) -> list[str]:
    """The lists in `ImageSets/2017`."""
    return sorted(file.stem for file in (_images(root) / "ImageSets/2017").glob("*.txt"))


def read_split(root: Path, split: str) -> list[SourceVideo | BadVideo]:
    """Videos of a split in the order of its list.

    Raises SourceError when the list or a file of texts is missing. A fault of one video, or of a
    line about it, makes a BadVideo, as does a line that cannot be read at all.
    """
    check_split(root, split, list_splits(root))
    base = _images(root)
    names = read_names(base / f"ImageSets/2017/{split}.txt")
    folder = root / "davis_text_annotations"
    if not folder.is_dir():
        folder = base / "davis_text_annotations"
    errors: list[str] = []
    texts, faults = _read_texts(folder, errors)
    result = [
        name if isinstance(name, BadVideo) else _read_video(base, folder, name, texts, faults)
        for name in names
    ]
    result += [
        BadVideo(video_id=video_id, errors=tuple(faults[video_id]))
        for video_id in faults
        if not (base / "JPEGImages/480p" / video_id).is_dir() and video_id not in names
    ]
    if errors:
        raise SourceError(*errors, videos=result)
    return result


def _images(root: Path) -> Path:
    return root / "DAVIS" if (root / "DAVIS").is_dir() else root


def _read_texts(folder: Path, errors: list[str]) -> tuple[dict[str, Texts], dict[str, list[str]]]:
    """The texts of every video, and the faults of lines by video."""
    texts: dict[str, Texts] = {}
    faults: dict[str, list[str]] = {}
    for variant, name in enumerate(VARIANTS):
        with collected(errors):
            for number, line in read_lines(folder / name):
                where = f"{folder / name}, line {number}"
                match = LINE.fullmatch(line)
                video_id = line.split()[0]
                video_id = MISSPELT.get(video_id, video_id)
                if match is None or int(match[2]) == 0:
                    fault = f'{where}: must be: video object-number "text", got {line!r}'
                elif not match[3].strip():
                    fault = f"{where}: has no text"
                elif variant in texts.get(video_id, {}).get(int(match[2]), {}):
                    fault = f"{where}: object {match[2]} of {video_id} has a text already"
                else:
                    of_object = texts.setdefault(video_id, {}).setdefault(int(match[2]), {})
                    of_object[variant] = match[3].strip()
                    continue
                faults.setdefault(video_id, []).append(fault)
    return texts, faults


def _read_video(
    base: Path,
    folder: Path,
    video_id: str,
    texts: dict[str, Texts],
    faults: dict[str, list[str]],
) -> SourceVideo | BadVideo:
    errors = [*faults.get(video_id, [])]
    path = base / "JPEGImages/480p" / video_id
    frames = listed_frames(path, errors)
    if not path.is_dir():
        return BadVideo(video_id=video_id, errors=tuple(errors))
    objects = texts.get(video_id, {})
    if not objects and video_id not in faults:
        errors.append(f"{folder}: has no expressions of video {video_id!r}")
    expressions = []
    for index, number in enumerate(sorted(objects)):
        for variant, (name, tags) in enumerate(VARIANTS.items()):
            if variant in objects[number]:
                expressions.append(
                    SourceExpression(
                        expression_id=str(4 * index + variant),
                        text=objects[number][variant],
                        object_ids=(str(number),),
                        tags=tags,
                    )
                )
            elif video_id not in faults and (folder / name).is_file():
                errors.append(f"{folder / name}: has no text of object {number} of {video_id!r}")
    annotations = base / "Annotations_unsupervised/480p" / video_id
    ground_truth = label_images(
        path, frames, frames, annotations, tuple(expressions), errors, void=True
    )
    stray = {file.stem for file in annotations.glob("*.png")} - {*frames} if frames else set()
    errors.extend(f"{annotations / frame}.png: there is no such frame" for frame in sorted(stray))
    video = SourceVideo(
        video_id=video_id,
        path=path,
        frames=frames,
        expressions=tuple(expressions),
        ground_truth=ground_truth,
    )
    return good_or_bad(video, errors)
