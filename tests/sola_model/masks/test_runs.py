"""Masks as runs: against boolean arrays, and malformed encodings."""

import numpy as np
import pytest
from pycocotools import mask as coco

from sola_model.masks.runs import (
    RunTrack,
    areas_of,
    empty_track,
    intersections_of,
    pack,
    tolerance,
    union,
    words_of,
)

# Columns of less than a word, of exactly one and two words, and with padding of a whole word.
SIZES = [(5, 7), (64, 5), (128, 3), (127, 4), (130, 1), (1, 40)]


def random_masks(rng: np.random.Generator, size: tuple[int, int], frames: int) -> np.ndarray:
    return np.array([rng.random(size) < rng.choice([0, 0.1, 0.6, 1]) for _ in range(frames)])


def encode(masks_THW: np.ndarray) -> list[dict]:
    return coco.encode(np.asfortranarray(masks_THW.transpose(1, 2, 0), dtype=np.uint8))


def decode(track: RunTrack) -> np.ndarray:
    bits = np.zeros((len(track), 64 * words_of(track) * track.width), bool)
    for t, bits_t in enumerate(bits):
        edges = track.edges[track.offsets[t] : track.offsets[t + 1]]
        for start, end in zip(edges[::2], edges[1::2], strict=True):
            bits_t[start:end] = True
    columns = bits.reshape(len(track), track.width, -1)
    assert not columns[:, :, track.height :].any()
    return columns[:, :, : track.height].transpose(0, 2, 1)


@pytest.mark.parametrize("size", SIZES)
def test_runs_are_the_mask(size: tuple[int, int]) -> None:
    masks_THW = random_masks(np.random.default_rng(1), size, 6)
    track = pack(encode(masks_THW))
    np.testing.assert_array_equal(decode(track), masks_THW)
    np.testing.assert_array_equal(areas_of(track), masks_THW.sum((1, 2)))
    assert pack(track) is track


@pytest.mark.parametrize("size", SIZES)
def test_union_and_intersections(size: tuple[int, int]) -> None:
    rng = np.random.default_rng(2)
    masks_NTHW = np.array([random_masks(rng, size, 4) for _ in range(5)])
    tracks = [pack(encode(masks_THW)) for masks_THW in masks_NTHW]
    np.testing.assert_array_equal(decode(union(tracks)), masks_NTHW.any(0))
    shared_TNO = intersections_of([*tracks[:3], union(tracks)], tracks[3:])
    a, b = np.concatenate([masks_NTHW[:3], masks_NTHW.any(0)[None]]), masks_NTHW[3:]
    np.testing.assert_array_equal(
        shared_TNO, np.einsum("ntyx,otyx->tno", a.astype(int), b.astype(int))
    )


def test_the_empty_track() -> None:
    track = empty_track(20, 30, 4)
    assert len(track) == 4
    assert areas_of(track).tolist() == [0, 0, 0, 0]
    assert not decode(union([track, track])).any()


@pytest.mark.parametrize(
    ("height", "width", "radius"),
    [(480, 854, 8), (540, 960, 9), (1080, 1920, 18), (75, 100, 1), (4320, 7680, 71)],
)
def test_tolerance(height: int, width: int, radius: int) -> None:
    assert tolerance(height, width) == radius


@pytest.mark.parametrize("counts", ["", "0", "o", "1000", b"\x80", "Z" * 40, "m8o", "PPYo3"])
def test_counts_that_are_no_mask_are_refused(counts: str | bytes) -> None:
    good = encode(np.ones((1, 20, 30), bool))[0]
    with pytest.raises(ValueError, match="frame 1: the RLE counts are no mask of 20 x 30"):
        pack([good, {"size": [20, 30], "counts": counts}])
