"""PASCAL VOC segmentation reader (Everingham et al., 2010): images become videos of one frame.

    {root}/JPEGImages/<image>.jpg
    {root}/SegmentationObject/<image>.png, pixel value = object id, 255 void
    {root}/SegmentationClass/<image>.png, pixel value = class, 1 to 20, 255 void
    {root}/ImageSets/Segmentation/{train,val,trainval}.txt

{root} is a year's folder, such as VOCdevkit/VOC2012. An expression is the name of a class that is
in the image and refers to all its objects; its id is the class's number. Void pixels are the
object VOID. The layout is that of the VOC2012 development kit, section 3.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from warehouse.images import image_header
from warehouse.sources.base import (
    BadVideo,
    SourceError,
    SourceExpression,
    SourceVideo,
    check_split,
    collected,
    good_or_bad,
    read_names,
)
from warehouse.sources.labels import VOID_VALUE, LabelImages, read_labels

CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train",
    "tvmonitor",
)  # fmt: skip


def list_splits(root: Path) -> list[str]:
    """The lists in `ImageSets/Segmentation`."""
    return sorted(file.stem for file in (root / "ImageSets/Segmentation").glob("*.txt"))


def read_split(root: Path, split: str) -> list[SourceVideo | BadVideo]:
    """Images of a split in the order of its list.

    Raises SourceError when the list is missing. A fault of one image makes a BadVideo.
    """
    check_split(root, split, list_splits(root))
    return [
        name if isinstance(name, BadVideo) else _read_image(root, name)
        for name in read_names(root / f"ImageSets/Segmentation/{split}.txt")
    ]


@dataclass(frozen=True, kw_only=True)
class ClassNames(Sequence[SourceExpression]):
    """The expressions of an image, found in its label images when first looked into.

    Looking into it raises SourceError when an object has no class; of several its largest counts.
    """

    objects: Path
    classes: Path

    def __getitem__(self, index: Any) -> Any:
        return self._expressions[index]

    def __len__(self) -> int:
        return len(self._expressions)

    @cached_property
    def _expressions(self) -> tuple[SourceExpression, ...]:
        objects_HW, classes_HW = read_labels(self.objects), read_labels(self.classes)
        if objects_HW.shape != classes_HW.shape:
            raise SourceError(f"{self.classes}: is not of the size of {self.objects}")
        found: dict[int, list[str]] = {}
        without: list[str] = []
        for value in np.unique(objects_HW[(objects_HW > 0) & (objects_HW != VOID_VALUE)]).tolist():
            pixels = np.bincount(classes_HW[objects_HW == value], minlength=len(CLASSES) + 1)
            number = int(pixels[1 : len(CLASSES) + 1].argmax()) + 1
            if pixels[number]:
                found.setdefault(number, []).append(str(value))
            else:
                without.append(str(value))
        if without:
            raise SourceError(
                f"{self.classes}: no class, 1 to {len(CLASSES)}, where {self.objects.parent.name} "
                f"has object {', '.join(without)}"
            )
        return tuple(
            SourceExpression(
                expression_id=str(number),
                text=CLASSES[number - 1],
                object_ids=tuple(object_ids),
                tags=(CLASSES[number - 1],),
            )
            for number, object_ids in sorted(found.items())
        )


def _read_image(root: Path, name: str) -> SourceVideo | BadVideo:
    image = root / "JPEGImages" / f"{name}.jpg"
    objects = root / "SegmentationObject" / f"{name}.png"
    classes = root / "SegmentationClass" / f"{name}.png"
    missing = [f"{file}: no such file" for file in (image, objects, classes) if not file.is_file()]
    if missing:
        return BadVideo(video_id=name, errors=tuple(missing))
    errors: list[str] = []
    with collected(errors):
        image_header(image)
    video = SourceVideo(
        video_id=name,
        path=image.parent,
        frames=(name,),
        expressions=ClassNames(objects=objects, classes=classes),
        ground_truth=LabelImages(
            path=image.parent, frames=(name,), files=(objects,), beside=(classes,), void=True
        ),
    )
    return good_or_bad(video, errors)
