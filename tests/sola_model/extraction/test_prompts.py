"""Prompt masks from boxes, from ground truth, and the part filter of grid prompts."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from pycocotools import mask as coco

from sola_model.extraction.encoding import EncodedVideo
from sola_model.extraction.engine import Engine
from sola_model.extraction.prompts import (
    Box,
    PromptMask,
    box_prompts,
    grid_prompts,
    mask_prompts,
    without_parts,
)
from sola_model.extraction.sam2_models import (
    SAM2AutomaticMaskGenerator,
    SAM2ImagePredictor,
    load_sam2,
)
from sola_model.masks.rle import encode_masks
from sola_model.recipes import DEMO, BoxPrompts
from warehouse.demo_data import random_scene, render_frames

SCENE = random_scene(np.random.default_rng(11), 8)


def rle(mask_HW: np.ndarray) -> dict:
    return encode_masks(torch.from_numpy(mask_HW[None].astype(bool)))[0]


@pytest.fixture(scope="module")
def clip():
    """An encoded clip of 8 frames and its objects' masks_NTHW."""
    frames_THW3, masks_NTHW = render_frames(SCENE)
    return EncodedVideo(load_sam2("demo"), frames_THW3), masks_NTHW


def box_of(mask_HW: np.ndarray, frame_index: int, expression_id: str = "0") -> Box:
    ys, xs = np.nonzero(mask_HW)
    corners = (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)
    return Box(
        frame_index=frame_index,
        xyxy=tuple(float(c) for c in corners),
        score=0.5,
        expression_id=expression_id,
    )


@pytest.mark.parametrize(
    ("size", "changes"),
    [
        ((112, 144), {}),
        ((720, 1280), {}),
        ((320, 180), {"stability": 0.0}),
        ((112, 144), {"predicted_iou": 0.0, "box_nms": 1.0}),
        ((112, 144), {"predicted_iou": 0.9999}),
    ],
)
def test_grid_masks_are_the_official_generators(clip, size, changes):
    """Exactly, on the same features; ours finds them without enlarging every candidate."""
    frames_THW3 = [cv2.resize(f, size[::-1]) for f in render_frames(SCENE, range(1))[0]]
    video = EncodedVideo(clip[0].model, frames_THW3)
    settings = replace(DEMO.extraction.grid, part_overlap=2.0, **changes)
    generator = SAM2AutomaticMaskGenerator(
        video.model,
        points_per_side=settings.points_per_side,
        pred_iou_thresh=settings.predicted_iou,
        stability_score_thresh=settings.stability,
        box_nms_thresh=settings.box_nms,
        output_mode="coco_rle",
    )
    generator.predictor.set_image = lambda _: video.install(generator.predictor, 0)
    found = generator.generate(np.empty((*size, 3), np.uint8))
    ours = grid_prompts(video.model, video, settings)
    assert bool(found) == (settings.predicted_iou < 0.99)
    assert [(p.rle, p.area, p.predicted_iou, p.stability) for p in ours] == [
        (m["segmentation"], m["area"], m["predicted_iou"], m["stability_score"])
        for m in sorted(found, key=lambda m: -m["area"])
    ]


def test_boxes_give_the_masks_of_their_objects(clip):
    video, masks_NTHW = clip
    boxes = [box_of(masks_HW, t, str(n)) for n, masks_THW in enumerate(masks_NTHW)
             for t, masks_HW in enumerate(masks_THW) if t in (0, 4) and masks_HW.any()]  # fmt: skip
    prompts = box_prompts(video.model, video, boxes, BoxPrompts(stability=0))
    assert [(p.frame_index, p.expression_id) for p in prompts] == [
        (b.frame_index, b.expression_id) for b in boxes
    ]
    ious = [
        coco.iou([p.rle], [rle(masks_NTHW[int(p.expression_id), p.frame_index])], [0])[0, 0]
        for p in prompts
    ]
    assert np.median(ious) > 0.75
    assert all(p.area == coco.area(p.rle) and p.source == "box" for p in prompts)


def test_box_masks_are_the_official_image_predictors(clip):
    """One box at a time through `predict`; ours go through the decoder together."""
    video, masks_NTHW = clip
    boxes = [box_of(masks_THW[4], 4) for masks_THW in masks_NTHW if masks_THW[4].any()]
    predictor = SAM2ImagePredictor(video.model)
    video.install(predictor, 4)
    settings = BoxPrompts(stability=0.85)
    ours = iter(box_prompts(video.model, video, boxes, settings, engine=Engine(objects=2)))
    used = 0
    for box in boxes:
        logits_1HW, iou_1, decoded_1HW = predictor.predict(
            box=np.array(box.xyxy), multimask_output=False, return_logits=True
        )
        stability = (decoded_1HW > 1).sum() / (decoded_1HW > -1).sum()
        if stability >= settings.stability:
            prompt = next(ours)
            assert prompt.rle == rle(logits_1HW[0] > 0)
            assert prompt.stability == pytest.approx(stability)
            assert prompt.predicted_iou == pytest.approx(iou_1[0], abs=1e-5)
            used += 1
    assert used and next(ours, None) is None


def test_unstable_boxes_are_not_used(clip):
    video, masks_NTHW = clip
    boxes = [box_of(masks_THW[0], 0) for masks_THW in masks_NTHW if masks_THW[0].any()]
    every = box_prompts(video.model, video, boxes, BoxPrompts(stability=0))
    threshold = float(np.median([p.stability for p in every]))
    kept = box_prompts(video.model, video, boxes, BoxPrompts(stability=threshold))
    assert kept == [p for p in every if p.stability >= threshold]
    assert 0 < len(kept) < len(every)


def test_masks_without_any_likely_pixel_are_used_unless_boxes_are_shared(clip, monkeypatch):
    """They have no stability, 0 / 0, and the release's comparison lets them pass."""
    video, masks_NTHW = clip
    boxes = [box_of(masks_THW[0], 0) for masks_THW in masks_NTHW if masks_THW[0].any()]
    decode = video.model.sam_mask_decoder.forward

    def nothing(**arguments):
        logits, *others = decode(**arguments)
        return torch.full_like(logits, -2), *others

    monkeypatch.setattr(video.model.sam_mask_decoder, "forward", nothing)
    prompts = box_prompts(video.model, video, boxes, BoxPrompts())
    assert [(p.area, p.stability) for p in prompts] == [(0, None)] * len(boxes)
    assert box_prompts(video.model, video, boxes, BoxPrompts(shared=True)) == []


def test_boxes_are_clipped_to_the_frame(clip):
    video, _ = clip
    width = video.size[1]
    inside, beyond = (
        Box(frame_index=0, xyxy=xyxy, score=0.5, expression_id="0")
        for xyxy in [(10, 0, width, 60), (10, -5, width + 9, 60)]
    )
    one, other = box_prompts(video.model, video, [inside, beyond], BoxPrompts(stability=0))
    assert one == other


@pytest.mark.parametrize(
    ("frame_index", "xyxy", "message"),
    [
        (8, (10, 10, 50, 50), "no such frame; valid are 0 to 7"),
        (-1, (10, 10, 50, 50), "no such frame"),
        (0, (10, 10, 10, 50), "no area inside the frame, which is 144x112"),
        (0, (50, 10, 10, 50), "no area"),
        (0, (144, 0, 200, 50), "no area"),
        (0, (float("nan"), 0, 20, 50), "no area"),
    ],
)
def test_boxes_that_cannot_be(clip, frame_index, xyxy, message):
    video, _ = clip
    box = Box(frame_index=frame_index, xyxy=xyxy, score=0.5, expression_id="7")
    with pytest.raises(ValueError, match=message):
        box_prompts(video.model, video, [box], BoxPrompts())


def test_no_boxes(clip):
    assert box_prompts(clip[0].model, clip[0], [], BoxPrompts()) == []


def test_ground_truth_prompts_at_every_stride_th_frame_or_where_first_visible():
    seen, unseen = np.ones((4, 6)), np.zeros((4, 6))
    objects = {
        "a": [rle(seen) if t >= 3 else None for t in range(9)],
        "b": [rle(seen) if t in (5, 6) else rle(unseen) for t in range(9)],
        "c": [None] * 9,
    }
    prompts = mask_prompts(objects, stride=4)
    assert [(p.object_id, p.frame_index) for p in prompts] == [("a", 4), ("a", 8), ("b", 5)]
    assert all((p.source, p.area, p.stability) == ("mask", 24, None) for p in prompts)


def test_parts_of_larger_masks_are_dropped():
    def square(x: int, side: int) -> PromptMask:
        mask = np.zeros((40, 40))
        mask[5 : 5 + side, x : x + side] = 1
        return PromptMask(frame_index=0, source="grid", rle=rle(mask), area=side**2,
                          predicted_iou=1.0, stability=1.0)  # fmt: skip

    whole, inside, half_out = square(5, 20), square(10, 6), square(22, 6)
    assert without_parts([inside, half_out, whole], 0.7) == [whole, half_out]
