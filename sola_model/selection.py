"""Merging selected mask tracks into a prediction, and the selectors that reports compare with.

A selector returns indices into the tracks it was given; `merge` turns them into the prediction.
Axes: N mask tracks, T frames.
"""

from collections.abc import Sequence
from hashlib import sha256

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco

from sola_model.metrics import (
    RLE,
    MaskTrack,
    areas,
    check_same_frames,
    empty_rle,
    intersections,
    ratio_or_one,
)


def merge(
    tracks: Sequence[MaskTrack],
    selected: Sequence[int] | NDArray[np.bool_],
    size: tuple[int, int],
    frames: int,
) -> list[RLE]:
    """The prediction: per frame the union of the selected tracks (paper, section 3.5).

    `selected` holds indices, or one boolean per track; `size` is (height, width). Nothing
    selected gives the empty prediction. Raises ValueError for a selection that does not fit the
    tracks and for tracks that do not fit size and frames.
    """
    prediction = [empty_rle(*size)] * frames
    indices = np.asarray(selected)
    if indices.dtype == bool:
        if len(indices) != len(tracks):
            raise ValueError(
                f"selected has {len(indices)} booleans for {len(tracks)} tracks; "
                "give one per track, or the indices of the selected tracks."
            )
        indices = np.flatnonzero(indices)
    if any(not 0 <= index < len(tracks) for index in indices):
        raise ValueError(
            f"selected is {indices.tolist()} for {len(tracks)} tracks; "
            f"give indices from 0 up to, not including, {len(tracks)}."
        )
    chosen = [tracks[index] for index in indices]
    check_same_frames([prediction, *chosen])
    return [coco.merge(list(masks)) for masks in zip(prediction, *chosen, strict=True)]


def oracle_selection(tracks: Sequence[MaskTrack], target: MaskTrack) -> list[int]:
    """Tracks whose union fits the ground truth `target` well, in the order they were added.

    Greedy: from the empty prediction, add the track that raises the mean J most, until none
    does. The result is a lower bound of the best union, which takes an exponential search; for a
    target that is empty everywhere it is the best one, no track.

    Raises ValueError when frames or sizes differ.
    """
    check_same_frames([*tracks, target])
    selected: list[int] = []
    union = [empty_rle(*target[0]["size"])] * len(target)
    while len(selected) < len(tracks):
        # The union itself is the last candidate: a track must do better than adding nothing.
        j_N1 = _mean_j_with_each([*tracks, union], union, target)
        best = int(j_N1.argmax())
        if j_N1[best] <= j_N1[-1]:
            break
        selected.append(best)
        union = _pairwise(union, tracks[best], intersect=False)
    return selected


def _mean_j_with_each(
    candidates: Sequence[MaskTrack], union: MaskTrack, target: MaskTrack
) -> NDArray[np.float64]:
    """Mean J of union | candidate for every candidate, by inclusion and exclusion of areas."""
    hit = _pairwise(union, target, intersect=True)
    j_TN = []
    for masks_N, union_t, hit_t, target_t in zip(
        zip(*candidates, strict=True), union, hit, target, strict=True
    ):
        in_union_N, in_hit_N, in_target_N = intersections(masks_N, [union_t, hit_t, target_t]).T
        union_area, hit_area, target_area = areas([union_t, hit_t, target_t])
        merged_N = union_area + areas(masks_N) - in_union_N
        shared_N = hit_area + in_target_N - in_hit_N
        j_TN.append(ratio_or_one(shared_N, merged_N + target_area - shared_N))
    return np.mean(j_TN, axis=0)


def _pairwise(masks: MaskTrack, others: MaskTrack, *, intersect: bool) -> list[RLE]:
    return [coco.merge(list(pair), intersect) for pair in zip(masks, others, strict=True)]


def all_tracks(tracks: Sequence[MaskTrack]) -> list[int]:
    """Every track."""
    return list(range(len(tracks)))


def largest_track(tracks: Sequence[MaskTrack]) -> list[int]:
    """The track with the most pixels over all frames, the first of equals; [] without tracks."""
    return [int(np.argmax([areas(track).sum() for track in tracks]))] if tracks else []


def random_track(tracks: Sequence[MaskTrack], seed_key: str) -> list[int]:
    """One track by a hash of `seed_key` (say video and expression id); [] without tracks.

    The same key and number of tracks give the same index on every machine and in every run.
    """
    if not tracks:
        return []
    return [int.from_bytes(sha256(seed_key.encode()).digest()) % len(tracks)]
