"""Track extraction equals a plain loop over the official predictor."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from pycocotools import mask as coco

from benchmarks import models
from sola_model.extraction.encoding import EncodedVideo
from sola_model.extraction.engine import Engine
from sola_model.extraction.prompts import PromptMask, grid_prompts
from sola_model.extraction.propagation import Request, propagate
from sola_model.extraction.tracks import MaskTrack, Prompt, track_prompts, track_videos
from sola_model.masks.rle import encode_masks
from sola_model.parity import official
from sola_model.parity.compare import dense_prompts
from sola_model.recipes import DEMO, BoxPrompts, Extraction
from warehouse.demo_data import random_scene, render_frames


@pytest.fixture(scope="module")
def demo():
    return models.demo_models()


class Clip:
    """A rendered scene on disk, read by the official predictor and encoded by us."""

    def __init__(self, sam2, folder: Path, seed: int, frames: int, portrait: bool = False):
        model, predictor = sam2
        scene = random_scene(np.random.default_rng(seed), max(frames, 8))
        frames_THW3, masks_NTHW = render_frames(scene, range(frames))
        if portrait:
            frames_THW3, masks_NTHW = frames_THW3.swapaxes(1, 2), masks_NTHW.swapaxes(2, 3)
        folder.mkdir(exist_ok=True)
        decoded = official.save_frames(folder, np.ascontiguousarray(frames_THW3))
        self.masks_NTHW = masks_NTHW
        self.state = official.start(predictor, folder)
        self.video = EncodedVideo(model, decoded)

    def prompts(self, source: str, *frames: int) -> list[PromptMask]:
        """The masks of the objects that can be seen on some frames."""
        return [
            PromptMask(
                frame_index=t,
                source=source,
                rle=encode_masks(torch.from_numpy(masks_THW[t : t + 1].astype(bool)))[0],
                area=int(masks_THW[t].sum()),
                predicted_iou=None,
                stability=None,
                expression_id="0" if source == "box" else None,
            )
            for t in frames
            for masks_THW in self.masks_NTHW
            if masks_THW[t].any()
        ]


def assert_equal_tracks(ours, masks_THW: np.ndarray, tokens_TD: np.ndarray, exact: bool) -> None:
    """Exactly, or but for what the size of a batch makes of rounding (memory is bfloat16)."""
    tolerance = 0 if exact else 1e-4 * np.abs(tokens_TD).max()
    np.testing.assert_allclose(ours.tokens_TD, tokens_TD, rtol=0, atol=tolerance)
    decoded_THW = np.stack([coco.decode(rle) for rle in ours.masks]).astype(bool)
    union = (decoded_THW | masks_THW).sum()
    assert (decoded_THW & masks_THW).sum() >= (1 if exact else 0.999) * union


def assert_equal_extraction(
    prompts: list[Prompt],
    tracks: list[MaskTrack],
    plain: official.PlainTracks,
    first: int = 0,
    exact: bool = False,
) -> None:
    """Same fates and same tracks; ours are numbered from `first`."""
    assert [p.fate for p in prompts] == [fate for fate, _, _ in plain.fates]
    for prompt, (_, track_id, iou) in zip(prompts, plain.fates, strict=True):
        assert prompt.track_id == (None if track_id is None else first + track_id)
        assert prompt.iou == (None if iou is None else pytest.approx(iou, abs=1e-3))
    for track, masks_THW, tokens_TD in zip(tracks, plain.masks, plain.tokens, strict=True):
        assert_equal_tracks(track, masks_THW, tokens_TD, exact)


def assert_propagation(sam2, clip: Clip, *frames: int) -> None:
    """Prompts of several frames in one batch, against the official predictor frame by frame."""
    prompts = clip.prompts("mask", *frames)
    ours = propagate(sam2[0], [Request(clip.video, p.frame_index, p.rle) for p in prompts])
    for t in frames:
        here = [n for n, p in enumerate(prompts) if p.frame_index == t]
        masks_BTHW, tokens_BTD = official.propagate(
            sam2[1], clip.state, t, [coco.decode(prompts[n].rle) for n in here]
        )
        for n, masks_THW, tokens_TD in zip(here, masks_BTHW, tokens_BTD, strict=True):
            assert_equal_tracks(ours[n], masks_THW, tokens_TD, exact=len(frames) == 1)


@pytest.mark.parametrize(
    ("frames", "starts"),
    [(1, (0,)), (2, (0, 1)), (7, (0, 3, 6)), (15, (0, 8, 14)), (16, (0, 4, 15)),
     (40, (0, 20, 22, 30, 36, 39))],
)  # fmt: skip
def test_prompts_of_several_frames_in_one_batch(demo, tmp_path, frames, starts):
    assert_propagation(demo, Clip(demo, tmp_path, 5, frames), *starts)


@pytest.mark.parametrize("start", [0, 8, 19])
def test_batches_like_the_official_ones_are_bit_identical(demo, tmp_path, start):
    assert_propagation(demo, Clip(demo, tmp_path, 5, 20), start)


def test_objects_alone_are_bit_identical(demo, tmp_path):
    clip = Clip(demo, tmp_path, 5, 20)
    prompts = clip.prompts("mask", 8)
    requests = [Request(clip.video, 8, p.rle) for p in prompts]
    for p, ours in zip(prompts, propagate(demo[0], requests, Engine(objects=1)), strict=True):
        masks_1THW, tokens_1TD = official.propagate(demo[1], clip.state, 8, [coco.decode(p.rle)])
        assert_equal_tracks(ours, masks_1THW[0], tokens_1TD[0], exact=True)


def test_random_weights_of_a_real_architecture(tmp_path):
    sam2 = models.random_tiny(image_size=128)
    clip = Clip(sam2, tmp_path, 5, 17)
    clip.masks_NTHW = clip.masks_NTHW[:2]
    assert_propagation(sam2, clip, 8)
    assert_propagation(sam2, clip, 0, 16)


def test_random_weights_of_a_real_size(tmp_path):
    sam2 = models.random_tiny(image_size=1024)
    clip = Clip(sam2, tmp_path, 5, 2)
    clip.masks_NTHW = clip.masks_NTHW[:1]
    assert_propagation(sam2, clip, 1)


@pytest.mark.parametrize(("seed", "frames", "portrait"), [(11, 16, False), (3, 21, True)])
def test_grid_prompts_have_the_same_fates(demo, tmp_path, seed, frames, portrait):
    model, predictor = demo
    clip = Clip(demo, tmp_path, seed, frames, portrait)
    prompts = grid_prompts(model, clip.video, DEMO.extraction.grid)
    fates = set()
    for limit in (1, 64):
        settings = replace(DEMO.extraction, max_tracks=limit)
        ours = track_prompts(model, clip.video, prompts, settings)
        plain = official.grid_tracks(predictor, clip.state, dense_prompts(prompts), limit)
        assert_equal_extraction(ours.prompts, ours.tracks, plain, exact=True)
        fates |= {p.fate for p in ours.prompts}
    assert fates == {"tracked", "filtered", "unused"}


@pytest.mark.parametrize("merged", [False, True])
def test_chains_of_all_sources_have_the_same_fates(demo, tmp_path, merged):
    """Grid, boxes of two expressions and ground truth of two videos; merged: in common batches."""
    model, predictor = demo
    settings = Extraction(boxes=BoxPrompts(max_tracks=2), max_tracks=3, merged=merged)
    clips = [Clip(demo, tmp_path / str(n), n, frames) for n, frames in enumerate((18, 9))]
    items = []
    for clip in clips:
        boxes = clip.prompts("box", 0, 4)
        other = [replace(p, expression_id="1") for p in clip.prompts("box", 4, 8)[::-2]]
        masks = clip.prompts("grid", 4, 8) + boxes + other + clip.prompts("mask", 0)
        items.append((clip.video, masks))
    if merged:
        extracted = track_videos(model, items, settings)
    else:
        extracted = [track_prompts(model, *item, settings) for item in items]
    for clip, (_, prompts), ours in zip(clips, items, extracted, strict=True):
        chains = [
            ([p for p in prompts if p.source == "grid"], 3, False),
            ([p for p in prompts if p.expression_id == "0"], 2, True),
            ([p for p in prompts if p.expression_id == "1"], 2, True),
            ([p for p in prompts if p.source == "mask"], 3, False),
        ]
        prompt_id = track_id = 0
        for masks, limit, boxes in chains:
            procedure = official.box_tracks if boxes else official.grid_tracks
            plain = procedure(predictor, clip.state, dense_prompts(masks), limit)
            own = ours.tracks[track_id : track_id + len(plain.masks)]
            assert_equal_extraction(
                ours.prompts[prompt_id : prompt_id + len(masks)], own, plain, track_id, not merged
            )
            assert all(
                ours.prompts[track.prompt_id].track_id == track_id + n
                for n, track in enumerate(own)
            )
            prompt_id, track_id = prompt_id + len(masks), track_id + len(plain.masks)
        assert (prompt_id, track_id) == (len(ours.prompts), len(ours.tracks))
