"""Mask tracks and object tokens: frozen SAM2 propagates prompt masks through a video.

Paper, section 3.3 and supplement D: prompts are propagated from the largest to the smallest,
forward and backward, and a prompt that a track already covers at its own frame is left out.
Shapes: N tracks, T frames, D channels, B objects of one batch, H and W pixels of the video.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from pycocotools import mask as coco
from torch import Tensor

from sola_model.encoding import EncodedVideo
from sola_model.prompts import PromptMask, grid_prompts
from sola_model.recipes import Extraction
from sola_model.sam2_models import SAM2Base

COMPARED_AT = (540, 960)  # masks are compared at this (height, width), turned for portrait
LONG_VIDEO = 200  # frames beyond which batches are halved


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """A prompt mask and its fate.

    "tracked": it became track `track_id`; "filtered": track `track_id` covers it at IoU `iou`;
    "unused": extraction had stopped before its turn.
    """

    mask: PromptMask
    fate: str = "unused"
    track_id: int | None = None
    iou: float | None = None


@dataclass(frozen=True, kw_only=True)
class MaskTrack:
    """One mask (COCO RLE at the video's size) and one object token per frame."""

    prompt_id: int
    masks: list[dict]
    tokens_TD: np.ndarray


@dataclass(frozen=True, kw_only=True)
class VideoTracks:
    """Everything extracted from a video; `track_id`s index `tracks`, prompt ids `prompts`."""

    size: tuple[int, int]
    prompts: list[Prompt]
    tracks: list[MaskTrack]


def extract_tracks(
    model: SAM2Base, frames_HW3: Iterable[np.ndarray], settings: Extraction
) -> VideoTracks:
    """Encode a video, prompt it with a grid of points and propagate the distinct prompt masks.

    Args:
        frames_HW3: RGB uint8 frames of one size.

    Raises:
        ValueError: there are no frames.
    """
    video = EncodedVideo(model, frames_HW3)
    return track_prompts(model, video, grid_prompts(model, video, settings.grid), settings)


def track_prompts(
    model: SAM2Base, video: EncodedVideo, masks: list[PromptMask], settings: Extraction
) -> VideoTracks:
    """Propagate prompt masks in order of area, leaving out those that a track covers already."""
    prompts = [Prompt(mask=mask) for mask in sorted(masks, key=lambda m: -m.area)]
    compared = [_at_compared_size(p.mask.rle, nearest=True) for p in prompts]
    pending = list(range(len(prompts)))
    tracks: list[MaskTrack] = []
    batch = settings.batch if len(video) <= LONG_VIDEO else settings.batch // 2
    while pending and len(tracks) < settings.max_tracks:
        frame_index = prompts[pending[0]].mask.frame_index
        mates = [i for i in pending if prompts[i].mask.frame_index == frame_index]
        chosen = mates[: min(batch, settings.max_tracks - len(tracks))]
        produced = propagate(model, video, frame_index, [prompts[i].mask.rle for i in chosen])
        for prompt_id, (rles, tokens_TD) in zip(chosen, produced, strict=True):
            prompts[prompt_id] = replace(prompts[prompt_id], fate="tracked", track_id=len(tracks))
            tracks.append(MaskTrack(prompt_id=prompt_id, masks=rles, tokens_TD=tokens_TD))
        pending = [i for i in pending if i not in chosen]
        newest = range(len(tracks) - len(chosen), len(tracks))
        for frame in sorted({prompts[i].mask.frame_index for i in pending}):
            here = [i for i in pending if prompts[i].mask.frame_index == frame]
            made = [_at_compared_size(tracks[n].masks[frame]) for n in newest]
            for i, iou_B in zip(here, _iou([compared[i] for i in here], made), strict=True):
                covering = np.nonzero(iou_B > settings.duplicate_iou)[0]
                if len(covering):
                    n = covering[0]
                    prompts[i] = replace(
                        prompts[i], fate="filtered", track_id=newest[n], iou=float(iou_B[n])
                    )
        pending = [i for i in pending if prompts[i].fate == "unused"]
    return VideoTracks(size=video.size, prompts=prompts, tracks=tracks)


def _at_compared_size(rle: dict, nearest: bool = False) -> dict:
    """A mask at the release's size for comparisons: prompts by nearest, tracks by bilinear."""
    height, width = COMPARED_AT if rle["size"][0] <= rle["size"][1] else COMPARED_AT[::-1]
    mask_11HW = torch.from_numpy(coco.decode(rle))[None, None].float()
    mode = {"mode": "nearest"} if nearest else {"mode": "bilinear", "align_corners": False}
    resized = F.interpolate(mask_11HW, (height, width), **mode)[0, 0] > 0.5
    return _encode_rle(resized.numpy())


def _iou(a: list[dict], b: list[dict]) -> np.ndarray:
    """IoU of every pair of masks (len(a), len(b)); 1 where both are empty."""
    empty_a, empty_b = (np.array([coco.area(rle) == 0 for rle in rles]) for rles in (a, b))
    both_empty = empty_a[:, None] & empty_b[None]
    return np.where(both_empty, 1.0, coco.iou(a, b, [0] * len(b)))


def _encode_rle(mask_HW: np.ndarray) -> dict:
    rle = coco.encode(np.asfortranarray(mask_HW, dtype=np.uint8))
    return {"size": [int(side) for side in rle["size"]], "counts": rle["counts"].decode()}


@torch.inference_mode()
def propagate(
    model: SAM2Base, video: EncodedVideo, frame_index: int, prompts: list[dict]
) -> list[tuple[list[dict], np.ndarray]]:
    """Propagate prompt masks of one frame forward, then backward, over the whole video.

    Backward steps attend to what the forward run left in memory around the prompt frame, as
    in the official predictor; objects do not see their batch mates.

    Args:
        prompts: B COCO RLEs at the video's size.

    Returns:
        For each prompt T masks (COCO RLE) and tokens_TD (float32), SAM2's object pointers.

    Source: `sam2.sam2_video_predictor_legacy` (`add_new_mask`, `propagate_in_video`).
    """
    size = len(prompts)
    masks: list[list[dict]] = [[{}] * len(video) for _ in prompts]
    tokens_TBD = torch.empty(len(video), size, model.hidden_dim)
    for step, output in _steps(model, video, frame_index, prompts):
        tokens_TBD[step] = output["obj_ptr"].float().cpu()
        logits_BHW = F.interpolate(
            output["pred_masks"], video.size, mode="bilinear", align_corners=False
        )[:, 0]
        for b, mask_HW in enumerate((logits_BHW > 0).cpu().numpy()):
            masks[b][step] = _encode_rle(mask_HW)
    return [(masks[b], tokens_TBD[:, b].numpy()) for b in range(size)]


def _steps(
    model: SAM2Base, video: EncodedVideo, start: int, prompts: list[dict]
) -> Iterator[tuple[int, dict]]:
    """(frame index, `track_step` output) of the prompt frame, the later frames, the earlier."""
    size, last = len(prompts), len(video) - 1
    mask_B1HW = _model_input(prompts, model)
    # One object at a time, as the official predictor takes prompts: so results are bit-identical.
    alone = [
        model.track_step(
            frame_idx=start,
            is_init_cond_frame=True,
            **video.batch(start, 1),
            point_inputs=None,
            mask_inputs=mask_11HW,
            output_dict={"cond_frame_outputs": {}, "non_cond_frame_outputs": {}},
            num_frames=len(video),
            run_mem_encoder=False,
        )
        for mask_11HW in mask_B1HW.split(1)
    ]
    prompted = {
        name: torch.cat([output[name] for output in alone])
        for name in ("pred_masks", "obj_ptr", "object_score_logits")
    }
    at_start = video.batch(start, size)
    # The memory of the prompt frame is made from its mask after a trip through image_size / 4.
    _remember(
        prompted,
        *model._encode_new_memory(
            current_vision_feats=at_start["current_vision_feats"],
            feat_sizes=at_start["feat_sizes"],
            pred_masks_high_res=F.interpolate(
                prompted["pred_masks"],
                (model.image_size, model.image_size),
                mode="bilinear",
                align_corners=False,
            ),
            object_score_logits=prompted["object_score_logits"],
            is_mask_from_pts=True,
        ),
    )
    yield start, prompted
    memory = {"cond_frame_outputs": {start: prompted}, "non_cond_frame_outputs": {}}
    for reverse, frames in ((False, range(start + 1, last + 1)), (True, range(start - 1, -1, -1))):
        for t in frames:
            output = model.track_step(
                frame_idx=t,
                is_init_cond_frame=False,
                **video.batch(t, size),
                point_inputs=None,
                mask_inputs=None,
                output_dict=memory,
                num_frames=len(video),
                track_in_reverse=reverse,
            )
            _remember(output, output["maskmem_features"], output["maskmem_pos_enc"])
            memory["non_cond_frame_outputs"][t] = output
            yield t, output
            _forget(model, memory["non_cond_frame_outputs"], start, t, reverse)


def _remember(output: dict, features_BCHW: Tensor, positions: list[Tensor]) -> None:
    """Keep memory in bfloat16, as the official predictor does."""
    output["maskmem_features"] = features_BCHW.to(torch.bfloat16)
    output["maskmem_pos_enc"] = positions


def _forget(model: SAM2Base, outputs: dict[int, dict], start: int, t: int, reverse: bool) -> None:
    """Drop what no later step reads: memories outside the last few frames and, while going
    forward, beyond the few after the prompt frame that backward steps attend to."""
    reach = max(model.num_maskmem - 1, model.max_obj_ptrs_in_encoder - 1)
    for frame in list(outputs):
        behind = abs(frame - t) >= reach
        needed_backward = not reverse and start < frame <= start + reach
        if behind and not needed_backward:
            del outputs[frame]
    for unused in ("pred_masks", "pred_masks_high_res"):
        outputs[t].pop(unused, None)


def _model_input(prompts: list[dict], model: SAM2Base) -> Tensor:
    """Prompt masks at the model's image size (B, 1, H, W), 0 or 1."""
    masks_B1HW = torch.from_numpy(np.stack([coco.decode(p) for p in prompts]))[:, None].float()
    side = model.image_size
    if masks_B1HW.shape[-2:] != (side, side):
        masks_B1HW = F.interpolate(
            masks_B1HW, (side, side), mode="bilinear", align_corners=False, antialias=True
        )
        masks_B1HW = (masks_B1HW >= 0.5).float()
    return masks_B1HW.to(model.device)
