"""Ground truth in label images: PNG files whose pixel values are object numbers, 0 background."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image
from pycocotools import mask as coco

from warehouse.frames import files_signature, frame_size
from warehouse.images import check_image, image_header, open_image
from warehouse.masks import RLE
from warehouse.sources.base import VOID, Masks, SourceError, SourceExpression, collected

VOID_VALUE = 255
MODES = ("P", "L")  # of Pillow: palette indices, or grey values


@dataclass(frozen=True, kw_only=True, eq=False)
class LabelImages(Mapping[str, Masks]):
    """The ground truth of one video, decoded when first looked into; its keys are the objects.

    Looking into it raises SourceError when an image does not decode, is not of the frames' size
    or not of one channel, and when no image shows an object that an expression names.
    """

    path: Path  # the video's frames
    frames: tuple[str, ...]
    files: tuple[Path, ...]  # one per frame
    named: tuple[str, ...] = ()  # objects that expressions name
    void: bool = False  # 255 is no object: it becomes VOID, which comes last
    beside: tuple[Path, ...] = ()  # further files that the annotations depend on

    def __getitem__(self, object_id: str) -> Masks:
        return self._masks[object_id]

    def __iter__(self) -> Iterator[str]:
        return iter(self._masks)

    def __len__(self) -> int:
        return len(self._masks)

    def signature(self) -> str:
        """What changes when a file changes, without decoding any."""
        return files_signature([*self.files, *self.beside])

    def faults(self, *, full: bool = False) -> list[str]:
        """All faults, `full`, or else those that headers and the ends of files tell.

        Objects that are named but not shown count: images are decoded until one shows them,
        which mostly is the first.
        """
        errors: list[str] = []
        for file in (*self.files, *self.beside):
            with collected(errors):
                check_image(file, decode=full)
                self._check_header(file)
        if not errors:
            with collected(errors):
                self._check_named(self._seen_until_all_named())
        return errors

    @cached_property
    def _masks(self) -> dict[str, Masks]:
        errors: list[str] = []
        masks: dict[int, Masks] = {}
        for t, file in enumerate(self.files):
            with collected(errors):
                self._check_header(file)
                for value, rle in _objects(read_labels(file)):
                    masks.setdefault(value, [None] * len(self.files))[t] = rle
        if not errors:
            with collected(errors):
                self._check_named({self._object_id(value) for value in masks})
        if errors:
            raise SourceError(*errors)
        return {self._object_id(value): masks[value] for value in sorted(masks)}

    def _object_id(self, value: int) -> str:
        return VOID if self.void and value == VOID_VALUE else str(value)

    def _seen_until_all_named(self) -> set[str]:
        seen: set[str] = set()
        for file in self.files:
            if seen.issuperset(self.named):
                break
            seen |= {self._object_id(value) for value in _values(read_labels(file))}
        return seen

    def _check_named(self, seen: set[str]) -> None:
        unseen = [object_id for object_id in dict.fromkeys(self.named) if object_id not in seen]
        if unseen:
            raise SourceError(
                *(
                    f"{self.files[0].parent}: an expression names object {object_id!r}, which "
                    f"none of the {len(self.files)} label images shows"
                    for object_id in unseen
                )
            )

    @cached_property
    def _size(self) -> tuple[int, int]:
        return frame_size(self.path, self.frames)

    def _check_header(self, file: Path) -> None:
        size, mode = image_header(file)
        _check_mode(file, mode, MODES)
        if size != self._size:
            raise SourceError(
                f"{file}: its size [height, width] is {[*size]}, but the video's frames are "
                f"{[*self._size]}"
            )


def label_images(
    path: Path,
    frames: tuple[str, ...],
    listed: tuple[str, ...],
    folder: Path,
    expressions: tuple[SourceExpression, ...],
    errors: list[str],
    void: bool = False,
) -> LabelImages:
    """The label images `folder`/<frame>.png of `frames`; an error for each of `listed` without."""
    if folder.is_dir():
        names = {file.name for file in folder.iterdir()}
        missing = [frame for frame in listed if f"{frame}.png" not in names]
        errors.extend(
            f"{folder / frame}.png: the annotation is missing "
            f"({len(missing)} of {len(listed)} frames have none)"
            for frame in missing
        )
    else:
        errors.append(f"{folder}: the folder of annotations is missing")
        missing = [*listed]
    labelled = tuple(frame for frame in frames if frame not in missing)
    return LabelImages(
        path=path,
        frames=labelled,
        files=tuple(folder / f"{frame}.png" for frame in labelled),
        named=() if missing else tuple(i for e in expressions for i in e.object_ids or ()),
        void=void,
    )


def _check_mode(file: Path, mode: str, valid: Sequence[str]) -> None:
    if mode not in valid:
        raise SourceError(
            f"{file}: must be a palette or grey-value image, of one channel of 8 bits, but is of "
            f"mode {mode}"
        )


def read_labels(file: Path) -> np.ndarray:
    """Pixel values (H, W) uint8.

    Raises FrameError when the image does not decode, SourceError when it is no label image.
    """
    with open_image(file) as image:
        image.load()  # inside np.array an error of decoding could get lost
        mode, labels_HW = image.mode, np.array(image)
    _check_mode(file, mode, (*MODES, "1"))
    return labels_HW.astype(np.uint8)


def _values(labels_HW: np.ndarray) -> list[int]:
    """The values there are, without 0; by histogram, many times as fast as np.unique."""
    counts = Image.fromarray(labels_HW).histogram()
    return [value for value in range(1, len(counts)) if counts[value]]


def _objects(labels_HW: np.ndarray) -> Iterator[tuple[int, RLE]]:
    """Each value there is, without 0, and its mask."""
    labels_WH = np.ascontiguousarray(labels_HW.T)  # COCO's order, transposed once for all
    for value in _values(labels_HW):
        rle = coco.encode((labels_WH == value).view(np.uint8).T)
        yield value, {"size": list(rle["size"]), "counts": rle["counts"].decode()}
