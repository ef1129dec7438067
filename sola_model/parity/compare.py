"""Our extraction of a clip beside the official predictor's, or beside ours on another device.

N tracks, T frames, D channels, H and W pixels.
"""

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco

from sola_model.extraction.encoding import EncodedVideo
from sola_model.extraction.engine import precision
from sola_model.extraction.prompts import PromptMask, grid_prompts, prompt_frames
from sola_model.extraction.sam2_models import SAM2Base
from sola_model.extraction.tracks import track_prompts
from sola_model.masks.runs import RLE
from sola_model.parity import official
from sola_model.recipes import Extraction, GridPrompts

SAME_MASK = 0.95  # IoU of two grid masks that are the same but for rounding


@dataclass(frozen=True, kw_only=True)
class Extracted:
    """What was made of a clip, and in how many seconds.

    grid: the masks (H, W) of the grid's prompt frames, with their frames. fates: of the given
    prompts, largest first, with the number of the track. masks_NTHW, tokens_NTD: of the tracks.
    """

    grid: list[tuple[int, np.ndarray]]
    fates: list[tuple[str, int | None]]
    masks_NTHW: np.ndarray
    tokens_NTD: np.ndarray
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How far two extractions of a clip agree.

    grid: the share of grid masks that both have. fates: the share of prompts with the same fate.
    mask_iou: of a track in all frames, the lowest. token_difference: the largest of a channel,
    relative to the largest channel. speed: how many times as fast the first one was.
    """

    grid: float
    fates: float
    mask_iou: float
    token_difference: float
    speed: float


def extracted_by_us(
    model: SAM2Base,
    frames_THW3: Sequence[np.ndarray],
    prompts: Sequence[PromptMask],
    settings: Extraction,
) -> Extracted:
    """The grid's masks, and the tracks of these prompts: one video, in the release's batches."""
    started = time.perf_counter()
    video = EncodedVideo(model, frames_THW3, prompt_features="image")
    grid = grid_prompts(model, video, settings.grid)
    found = track_prompts(model, video, prompts, replace(settings, merged=False))
    return Extracted(
        grid=[(mask.frame_index, _decoded(mask.rle)) for mask in grid],
        fates=[(prompt.fate, prompt.track_id) for prompt in found.prompts],
        masks_NTHW=np.array([[_decoded(rle) for rle in track.masks] for track in found.tracks]),
        tokens_NTD=np.array([track.tokens_TD for track in found.tracks]),
        seconds=time.perf_counter() - started,
    )


def extracted_officially(
    predictor: Any, folder: Path, prompts: Sequence[PromptMask], settings: Extraction
) -> Extracted:
    """The same by the official predictor, of the frames that `official.save_frames` wrote."""
    started = time.perf_counter()
    frames_THW3 = official.read_frames(folder)
    with precision(predictor.device):
        grid = [
            (t, mask_HW)
            for t in prompt_frames(len(frames_THW3), settings.grid)
            for mask_HW in official.grid_masks(
                predictor, frames_THW3[t], generator_settings(settings.grid)
            )
        ]
        state = official.start(predictor, folder)
        found = official.grid_tracks(predictor, state, dense_prompts(prompts), settings.max_tracks)
    return Extracted(
        grid=grid,
        fates=[(fate, track_id) for fate, track_id, _ in found.fates],
        masks_NTHW=np.array(found.masks),
        tokens_NTD=np.array(found.tokens),
        seconds=time.perf_counter() - started,
    )


def official_agreement(
    model: SAM2Base,
    config: Path,
    frames_THW3: Sequence[np.ndarray],
    prompts: Sequence[PromptMask],
    settings: Extraction,
) -> Agreement:
    """Our extraction beside the official predictor's, of the same weights on the same device.

    Args:
        config: the architecture of the model, in the official yaml format.
    """
    predictor = official.video_predictor(config, model.state_dict()).to(model.device)
    with tempfile.TemporaryDirectory() as name:
        decoded = official.save_frames(Path(name), frames_THW3)
        first = [prompt for prompt in prompts if prompt.frame_index == 0]
        extracted_by_us(model, decoded[:1], first, settings)  # the first use of all takes longer
        ours = extracted_by_us(model, decoded, prompts, settings)
        return agreement(ours, extracted_officially(predictor, Path(name), prompts, settings))


def agreement(ours: Extracted, other: Extracted) -> Agreement:
    """How far two extractions of the same prompts on the same frames agree."""
    same = [one == another for one, another in zip(ours.fates, other.fates, strict=True)]
    pairs = list(zip(ours.masks_NTHW, other.masks_NTHW, strict=False))
    tokens = list(zip(ours.tokens_NTD, other.tokens_NTD, strict=False))
    return Agreement(
        grid=_shared(ours.grid, other.grid),
        fates=sum(same) / len(same),
        mask_iou=min(_iou(one, another) for one, another in pairs),
        token_difference=float(
            max(np.abs(one - another).max() for one, another in tokens)
            / np.abs(other.tokens_NTD).max()
        ),
        speed=other.seconds / ours.seconds,
    )


def object_prompts(masks_NTHW: np.ndarray, frames: Sequence[int]) -> list[PromptMask]:
    """The masks of a clip's objects, where they can be seen on these frames, as grid prompts."""
    return [
        PromptMask(
            frame_index=t,
            source="grid",
            rle=coco.encode(np.asfortranarray(masks_THW[t], np.uint8)),
            area=int(masks_THW[t].sum()),
            predicted_iou=None,
            stability=None,
        )
        for t in frames
        for masks_THW in masks_NTHW.astype(bool)
        if masks_THW[t].any()
    ]


def generator_settings(grid: GridPrompts) -> dict[str, Any]:
    """The settings under the names that the official mask generator has for them."""
    return {
        "points_per_side": grid.points_per_side,
        "pred_iou_thresh": grid.predicted_iou,
        "stability_score_thresh": grid.stability,
        "box_nms_thresh": grid.box_nms,
    }


def dense_prompts(prompts: Sequence[PromptMask]) -> list[official.Prompt]:
    """Our prompts as dense masks."""
    return [official.Prompt(p.frame_index, coco.decode(p.rle)) for p in prompts]


def _decoded(rle: RLE) -> np.ndarray:
    mask_HW: np.ndarray = coco.decode(rle).astype(bool)
    return mask_HW


def _shared(ours: list[tuple[int, np.ndarray]], other: list[tuple[int, np.ndarray]]) -> float:
    """The share of masks with a counterpart, of the larger number."""
    found = sum(
        any(at == t and _iou(mask_HW, other_HW) >= SAME_MASK for at, mask_HW in ours)
        for t, other_HW in other
    )
    return found / max(len(ours), len(other)) if ours or other else 1.0


def _iou(one: np.ndarray, other: np.ndarray) -> float:
    union = (one | other).sum()
    return float((one & other).sum() / union) if union else 1.0
