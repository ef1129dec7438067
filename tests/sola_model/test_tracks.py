"""Track extraction against the official predictor, and its behaviour on odd videos."""

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco

from benchmarks.official import propagate as official_propagate
from benchmarks.official import video_predictor
from sola_model.encoding import EncodedVideo
from sola_model.prompts import PromptMask, without_parts
from sola_model.recipes import DEMO, Extraction, GridPrompts
from sola_model.sam2_models import load_sam2
from sola_model.tracks import extract_tracks, propagate, track_prompts
from warehouse.demo_data import random_scene, render_frames


@pytest.fixture(scope="module")
def model():
    return load_sam2("demo")


def clip(seed: int, frames: int):
    """frames_THW3 and masks_NTHW of a random scene."""
    scene = random_scene(np.random.default_rng(seed), max(frames, 8))
    return render_frames(scene, range(frames))


def rle(mask_HW: np.ndarray) -> dict:
    return coco.encode(np.asfortranarray(mask_HW, dtype=np.uint8))


@pytest.mark.parametrize(("frames", "start"), [(1, 0), (7, 3), (20, 0), (20, 8), (20, 19)])
def test_propagation_equals_the_official_predictor(model, tmp_path, monkeypatch, frames, start):
    # The predictor's constructor of state asks for CUDA by name.
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    frames_THW3, masks_NTHW = clip(5, frames)
    for t, frame in enumerate(frames_THW3):
        Image.fromarray(frame).save(tmp_path / f"{t:05d}.jpg", quality=95)
    decoded = [np.asarray(Image.open(p).convert("RGB")) for p in sorted(tmp_path.iterdir())]
    prompts = [rle(mask) for mask in masks_NTHW[:, start] if mask.any()]
    assert len(prompts) >= 2
    produced = propagate(model, EncodedVideo(model, decoded), start, prompts)
    expected_masks_TBHW, expected_tokens_TBD = official_propagate(
        video_predictor(), tmp_path, start, prompts
    )
    for b, (rles, tokens_TD) in enumerate(produced):
        np.testing.assert_allclose(tokens_TD, expected_tokens_TBD[:, b], atol=1e-4)
        ours = np.stack([coco.decode(r) for r in rles]).astype(bool)
        union = (ours | expected_masks_TBHW[:, b]).sum()
        assert (ours & expected_masks_TBHW[:, b]).sum() >= 0.999 * union


def test_objects_do_not_see_their_batch_mates(model):
    frames_THW3, masks_NTHW = clip(5, 12)
    video = EncodedVideo(model, frames_THW3)
    prompts = [rle(mask) for mask in masks_NTHW[:, 4]]
    together = propagate(model, video, 4, prompts)
    for prompt, (_, tokens_TD) in zip(prompts, together, strict=True):
        ((_, alone_TD),) = propagate(model, video, 4, [prompt])
        np.testing.assert_allclose(tokens_TD, alone_TD, atol=1e-4)


def test_grid_prompts_become_tracks_of_the_objects(model):
    frames_THW3, masks_NTHW = clip(11, 16)
    extracted = extract_tracks(model, frames_THW3, DEMO.extraction)
    assert {p.fate for p in extracted.prompts} >= {"tracked", "filtered"}
    areas = [p.mask.area for p in extracted.prompts]
    assert areas == sorted(areas, reverse=True)
    for object_THW in masks_NTHW:
        overlap = [
            coco.iou(track.masks, [rle(m) for m in object_THW], [0] * len(object_THW)).diagonal()
            for track in extracted.tracks
        ]
        assert max(np.mean(o) for o in overlap) > 0.6
    for prompt in extracted.prompts:
        if prompt.fate == "filtered":
            track = extracted.tracks[prompt.track_id]
            iou = coco.iou([track.masks[prompt.mask.frame_index]], [prompt.mask.rle], [0])[0, 0]
            assert prompt.iou > DEMO.extraction.duplicate_iou
            assert iou == pytest.approx(prompt.iou, abs=0.1)  # compared at another size


def test_extraction_stops_at_the_limit_and_marks_the_rest_unused(model):
    frames_THW3, masks_NTHW = clip(5, 8)
    video = EncodedVideo(model, frames_THW3)
    prompts = [
        PromptMask(frame_index=t, source="mask", rle=rle(mask_THW[t]), area=int(mask_THW[t].sum()),
                   predicted_iou=1.0, stability=1.0)
        for mask_THW in masks_NTHW for t in (0, 4)
    ]  # fmt: skip
    settings = Extraction(max_tracks=1, duplicate_iou=2.0)
    fates = [p.fate for p in track_prompts(model, video, prompts, settings).prompts]
    assert fates == ["tracked"] + ["unused"] * (len(prompts) - 1)


def test_no_prompts_give_no_tracks(model):
    grey = np.full((3, 90, 120, 3), 127, np.uint8)
    strict = Extraction(grid=GridPrompts(points_per_side=4, predicted_iou=0.999))
    extracted = extract_tracks(model, grey, strict)
    assert (extracted.prompts, extracted.tracks, extracted.size) == ([], [], (90, 120))


def test_a_video_without_frames_is_an_error(model):
    with pytest.raises(ValueError, match="no frames"):
        extract_tracks(model, [], DEMO.extraction)


def test_portrait_videos(model):
    frames_THW3, _ = clip(3, 6)
    portrait = np.ascontiguousarray(frames_THW3.swapaxes(1, 2))
    extracted = extract_tracks(model, portrait, DEMO.extraction)
    assert extracted.size == portrait.shape[1:3]
    assert all(r["size"] == [144, 112] for track in extracted.tracks for r in track.masks)


def test_parts_of_larger_masks_are_dropped():
    def square(x: int, side: int) -> PromptMask:
        mask = np.zeros((40, 40))
        mask[5 : 5 + side, x : x + side] = 1
        return PromptMask(frame_index=0, source="grid", rle=rle(mask), area=side**2,
                          predicted_iou=1.0, stability=1.0)  # fmt: skip

    whole, inside, half_out = square(5, 20), square(10, 6), square(22, 6)
    assert without_parts([inside, half_out, whole], 0.7) == [whole, half_out]
