"""A user's own masks of objects as prompt masks: label images in a folder.

    {folder}/{video}/{frame}.png     pixel value = object, 0 background, 255 void

A video may have images of some of its frames, or none.
"""

import hashlib
from collections.abc import Collection, Sequence
from pathlib import Path

import pyarrow as pa

from tasks.stage import Outcome, Plan, Stage, publish_each
from tasks.stages.ingest import INGEST
from tasks.tables import read_video, rows
from tasks.track_sets import TrackSet
from warehouse import Key, Warehouse, fingerprint
from warehouse.contents import described, names_in
from warehouse.masks import mask_columns
from warehouse.sources.base import VOID
from warehouse.sources.labels import LabelImages

OWN_MASKS = Stage(
    name="own_masks",
    command="precompute --root DIR",
    keyed_by=("dataset", "split", "video_id", "track_set"),
    reads=lambda _: {INGEST: ("frames",)},
    covers=("tasks.stages.own_masks", "tasks.tables"),
)


def import_masks(
    store: Warehouse, tracked: Collection[Key], track_set: TrackSet, folder: str
) -> list[Outcome]:
    """Publish the masks that a folder has for videos, given by tracks' keys.

    An image that is of no frame, or is no label image of the video's size, makes its video a
    failure.

    Raises:
        ValueError: the folder has masks of none of the videos.
    """
    images = {key: sorted(Path(folder, key.video_id).glob("*.png")) for key in tracked}
    if not any(images.values()):
        asked = ", ".join(key.video_id for key in list(tracked)[:3])
        raise ValueError(
            f"{folder}: has masks of none of the videos ({asked}, ...). They are PNG files "
            f"VIDEO/FRAME.png, and there is: {described(names_in(Path(folder)))}"
        )
    plan = Plan(OWN_MASKS, store, tracked, track_set)
    wanted = {
        key: fingerprint(planned=planned, masks=_digests(images[key]))
        for key in tracked
        if (planned := plan.fingerprint(key))
    }

    def tables(key: Key) -> dict[str, pa.Table]:
        video = read_video(store, plan.unit(key).commit(INGEST))
        return {"own_masks": _masks(key, video, images[key])}

    return publish_each(store, OWN_MASKS.name, wanted, tables, plan.provenance)


def _digests(files: Collection[Path]) -> dict[str, str]:
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def _masks(key: Key, video: dict, files: Collection[Path]) -> pa.Table:
    frames = {name: t for t, name in enumerate(video["frames"])}
    for file in files:
        if file.stem not in frames:
            raise ValueError(
                f"{file}: {key.video_id} has no such frame; its frames are {video['frames'][0]} "
                f"to {video['frames'][-1]}"
            )
    labelled = LabelImages(
        path=Path(video["path"]),
        frames=tuple(file.stem for file in files),
        files=tuple(files),
        void=True,
    )
    seen = [
        (object_id, frames[file.stem], rle)
        for object_id, shown in labelled.items()
        if object_id != VOID
        for file, rle in zip(files, shown, strict=True)
        if rle
    ]
    masks = mask_columns([rle for _, _, rle in seen])
    columns: dict[str, Sequence] = {
        "object_id": [object_id for object_id, _, _ in seen],
        "frame_index": [t for _, t, _ in seen],
        **{name: masks[name] for name in ("height", "width", "counts", "area")},
    }
    return rows("own_masks", key, columns)
