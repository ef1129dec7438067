"""Prompt masks: from a grid of points, from boxes, and ground truth (paper, section 3.3)."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from pycocotools import mask as coco

from sola_model.extraction.encoding import EncodedVideo
from sola_model.extraction.engine import AUTOMATIC, Engine, ObjectBatches, precision
from sola_model.extraction.sam2_models import (
    MaskData,
    SAM2AutomaticMaskGenerator,
    SAM2Base,
    SAM2ImagePredictor,
)
from sola_model.masks.enlarged import enlarged_runs
from sola_model.masks.rle import encode_masks
from sola_model.masks.runs import RLE
from sola_model.recipes import BoxPrompts, GridPrompts


@dataclass(frozen=True, kw_only=True)
class PromptMask:
    """A mask to propagate from a frame: COCO RLE at the video's size, area in pixels.

    predicted_iou, stability: SAM2's own quality of the mask; None for ground truth. A mask of
        logits that are all below -1 has no stability.
    expression_id, object_id: whose box or ground truth it is, where it is one.
    """

    frame_index: int
    source: str  # "grid", "box", "own" or "mask" (ground truth)
    rle: RLE
    area: int
    predicted_iou: float | None
    stability: float | None
    expression_id: str | None = None
    object_id: str | None = None


@dataclass(frozen=True, kw_only=True)
class Box:
    """A box that a detector found for an expression: x0, y0, x1, y1 in pixels of the video."""

    frame_index: int
    xyxy: tuple[float, float, float, float]
    score: float
    expression_id: str


def prompt_frames(frame_count: int, settings: GridPrompts) -> range:
    """The frames that are prompted with the grid."""
    halves = settings.frames == "halves"
    return range(0, frame_count, max(1, frame_count // 2) if halves else settings.stride)


def grid_prompts(model: SAM2Base, video: EncodedVideo, settings: GridPrompts) -> list[PromptMask]:
    """The grid prompt masks of every prompt frame, in the order of frames.

    Source: `sam2.automatic_mask_generator.SAM2AutomaticMaskGenerator`, on the features that the
    video has for prompts; then the release's part filter.
    """
    on_cpu = model.device.type == "cpu"
    generator = (_SmallLogits if on_cpu else SAM2AutomaticMaskGenerator)(
        model,
        points_per_side=settings.points_per_side,
        pred_iou_thresh=settings.predicted_iou,
        stability_score_thresh=settings.stability,
        box_nms_thresh=settings.box_nms,
        output_mode="coco_rle",
    )
    prompts = []
    for frame_index in prompt_frames(len(video), settings):
        generator.predictor.set_image = lambda _, at=frame_index: video.install(
            generator.predictor, at
        )
        with precision(model.device):
            # Of the image only the size is read.
            found = generator.generate(np.empty((*video.size, 3), np.uint8))
        masks = [
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
        prompts += without_parts(masks, settings.part_overlap)
    return prompts


class _SmallLogits(SAM2AutomaticMaskGenerator):
    """The official generator, but what it asks of each mask is found without enlarging it.

    Hundreds of masks at the video's size cost far more than a small model on the CPU.
    """

    def __init__(self, model: SAM2Base, **settings: Any) -> None:
        super().__init__(model, **settings)
        self.predictor._transforms.postprocess_masks = lambda logits, _: logits.float()

    def _process_batch(
        self,
        points: np.ndarray,
        im_size: tuple[int, int],
        crop_box: list[int],
        orig_size: tuple[int, int],
        normalize: bool = False,
    ) -> MaskData:
        points_B2 = torch.as_tensor(points, dtype=torch.float32)
        inputs_B2 = self.predictor._transforms.transform_coords(
            points_B2, normalize=normalize, orig_hw=im_size
        )
        logits_BMHW, iou_BM, _ = self.predictor._predict(
            inputs_B2[:, None], torch.ones(len(points), 1, dtype=torch.int), return_logits=True
        )
        points_N2 = points_B2.repeat_interleave(iou_BM.shape[1], dim=0)
        found = MaskData(
            logits=logits_BMHW.flatten(0, 1), iou_preds=iou_BM.flatten(), points=points_N2
        )
        if self.pred_iou_thresh > 0:
            found.filter(found["iou_preds"] > self.pred_iou_thresh)
        surely, maybe = (
            torch.tensor([enlarged_runs(each, im_size, at)[1::2].sum() for each in found["logits"]])
            for at in (self.stability_score_offset, -self.stability_score_offset)
        )
        found["stability_score"] = surely / maybe
        if self.stability_score_thresh > 0:
            found.filter(found["stability_score"] >= self.stability_score_thresh)
        found["rles"] = [
            {"size": list(im_size), "counts": enlarged_runs(each, im_size)}
            for each in found["logits"]
        ]
        found["boxes"] = torch.tensor([_box(rle) for rle in found["rles"]]).reshape(-1, 4)
        del found["logits"]
        return found


def _box(rle: RLE) -> list[int]:
    """x0, y0, x1, y1 of a mask's outermost pixels; zeros if it is empty."""
    x, y, width, height = coco.toBbox(coco.frPyObjects(rle, *rle["size"])).astype(int).tolist()
    return [x, y, x + max(width - 1, 0), y + max(height - 1, 0)]


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


@torch.inference_mode()
def box_prompts(
    model: SAM2Base,
    video: EncodedVideo,
    boxes: Sequence[Box],
    settings: BoxPrompts,
    *,
    engine: Engine = AUTOMATIC,
) -> list[PromptMask]:
    """The masks of boxes, in the order of the boxes; boxes of unstable masks are left out.

    Boxes are clipped to the frame. Stability = area(logit > 1) / area(logit > -1) of the decoder's
    logits, which have a quarter of the image size (release). Where no logit is above -1 there is
    none; such an empty mask is used in the release, and left out of shared boxes, where every track
    that is not there either would cover it.

    Raises:
        ValueError: a box has no area inside the frame, or its frame does not exist.

    Source: `sam2.sam2_image_predictor.SAM2ImagePredictor.predict` with multimask_output=False,
    on the features that the video has for prompts.
    """
    clipped_N4 = np.array([_clipped(box, video) for box in boxes], np.float32).reshape(-1, 4)
    by_frame = defaultdict(list)
    for n, box in enumerate(boxes):
        by_frame[box.frame_index].append(n)
    predictor, batches = SAM2ImagePredictor(model), ObjectBatches(engine)
    prompts: dict[int, PromptMask] = {}
    for frame_index, members in by_frame.items():
        video.install(predictor, frame_index)

        def decode(part: slice, members: list[int] = members) -> None:
            corners = torch.from_numpy(clipped_N4[members[part]]).to(model.device)
            with precision(model.device):
                logits_B1HW, iou_B1, decoded_B1HW = predictor._predict(
                    None,
                    None,
                    predictor._transforms.transform_boxes(
                        corners, normalize=True, orig_hw=video.size
                    ),
                    multimask_output=False,
                    return_logits=True,
                )
            surely, maybe, area = (
                mask_B1HW.sum((1, 2, 3)).cpu().numpy()
                for mask_B1HW in (decoded_B1HW > 1, decoded_B1HW > -1, logits_B1HW > 0)
            )
            stability = surely / np.maximum(maybe, 1)
            used = np.where(maybe, stability >= settings.stability, not settings.shared)
            rles = encode_masks(logits_B1HW[:, 0] > 0)
            for b, n in enumerate(members[part]):
                if used[b]:
                    prompts[n] = PromptMask(
                        frame_index=boxes[n].frame_index,
                        source="box",
                        rle=rles[b],
                        area=int(area[b]),
                        predicted_iou=float(iou_B1[b, 0]),
                        stability=float(stability[b]) if maybe[b] else None,
                        expression_id=boxes[n].expression_id,
                    )

        batches.run(decode, len(members))
    return [prompts[n] for n in sorted(prompts)]


def _clipped(box: Box, video: EncodedVideo) -> np.ndarray:
    height, width = video.size
    if not 0 <= box.frame_index < len(video):
        raise ValueError(
            f"{box}: the video has no such frame; valid are 0 to {len(video) - 1}. Were the boxes "
            "made for this video?"
        )
    corners = np.clip(box.xyxy, 0, [width, height, width, height])
    if not (corners[:2] < corners[2:]).all():
        raise ValueError(
            f"{box}: has no area inside the frame, which is {width}x{height} (width x height). "
            "Boxes are x0, y0, x1, y1 in pixels of the video."
        )
    return corners


def mask_prompts(
    objects: Mapping[str, Sequence[RLE | None]], stride: int, source: str = "mask"
) -> list[PromptMask]:
    """Given masks as prompts, object by object: ground truth (release, training only), or "own".

    Args:
        objects: per object id one COCO RLE for each frame; None where the object is absent.
        stride: every so many frames are prompt frames. An object that none of them shows is
            prompted where it is first visible.
    """
    prompts = []
    for object_id, rles in objects.items():
        visible = {t: rle for t, rle in enumerate(rles) if rle and coco.area(rle)}
        prompted = [t for t in visible if t % stride == 0] or [*visible][:1]
        prompts += [
            PromptMask(
                frame_index=t,
                source=source,
                rle=visible[t],
                area=int(coco.area(visible[t])),
                predicted_iou=None,
                stability=None,
                object_id=object_id,
            )
            for t in prompted
        ]
    return prompts
