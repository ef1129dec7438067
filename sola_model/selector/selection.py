"""Merging selected mask tracks into a prediction, and the selections that reports compare with.

Selections are lists of indices into a video's tracks; `candidates` are the tracks that an
expression may select. Axes: N mask tracks, T frames.
"""

from collections.abc import Sequence
from hashlib import sha256

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco

from sola_model.metrics.jf import RLE, MaskTrack, check_same_frames, empty_rle

THRESHOLDS = tuple(step / 20 for step in range(1, 20))
"""The values of tau, 0.05 to 0.95, at which every evaluation scores its selections."""


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


def largest_track(area_N: Sequence[float], candidates: Sequence[int]) -> list[int]:
    """The candidate with the most pixels over all frames, the first of equals; [] without any."""
    return [max(candidates, key=lambda n: area_N[n])] if candidates else []


def random_track(candidates: Sequence[int], seed_key: str) -> list[int]:
    """One candidate by a hash of `seed_key` (say video and expression id); [] without any.

    The same key and candidates give the same track on every machine and in every run.
    """
    if not candidates:
        return []
    return [candidates[int.from_bytes(sha256(seed_key.encode()).digest()) % len(candidates)]]
