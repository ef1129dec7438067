"""Prompt masks of a frame from a grid of points (paper, section 3.3 and supplement D)."""

from dataclasses import dataclass

import numpy as np
from pycocotools import mask as coco

from sola_model.encoding import EncodedVideo
from sola_model.recipes import GridPrompts
from sola_model.sam2_models import SAM2AutomaticMaskGenerator, SAM2Base


@dataclass(frozen=True, kw_only=True)
class PromptMask:
    """A mask to propagate from a frame: COCO RLE at the video's size, area in pixels."""

    frame_index: int
    source: str  # "grid", "box" or "mask"
    rle: dict
    area: int
    predicted_iou: float
    stability: float


def grid_prompts(model: SAM2Base, video: EncodedVideo, settings: GridPrompts) -> list[PromptMask]:
    """The grid prompt masks of every prompt frame, in the order of frames.

    Source: `sam2.automatic_mask_generator.SAM2AutomaticMaskGenerator`, on features that are
    already there; then the release's part filter.
    """
    generator = SAM2AutomaticMaskGenerator(
        model,
        points_per_side=settings.points_per_side,
        pred_iou_thresh=settings.predicted_iou,
        stability_score_thresh=settings.stability,
        box_nms_thresh=settings.box_nms,
        output_mode="coco_rle",
    )
    prompts = []
    for frame_index in range(0, len(video), settings.stride):
        generator.predictor.set_image = lambda _, at=frame_index: video.install(
            generator.predictor, at
        )
        found = generator.generate(np.empty((*video.size, 3), np.uint8))  # only its size is read
        prompts += [
            PromptMask(
                frame_index=frame_index,
                source="grid",
                rle=mask["segmentation"],
                area=int(mask["area"]),
                predicted_iou=mask["predicted_iou"],
                stability=mask["stability_score"],
            )
            for mask in found
        ]
    return [
        prompt
        for frame_index in range(0, len(video), settings.stride)
        for prompt in without_parts(
            [p for p in prompts if p.frame_index == frame_index], settings.part_overlap
        )
    ]


def without_parts(prompts: list[PromptMask], part_overlap: float) -> list[PromptMask]:
    """Drop the masks of one frame that lie mostly inside a kept larger one; largest first."""
    kept: list[PromptMask] = []
    for prompt in sorted(prompts, key=lambda p: -p.area):
        larger = [k.rle for k in kept]
        # With iscrowd, pycocotools divides the intersection by the first mask's own area.
        inside = coco.iou([prompt.rle], larger, [1] * len(larger)) if larger else np.zeros(1)
        if np.max(inside) <= part_overlap:
            kept.append(prompt)
    return kept
