"""The release's track generation with the official predictors, the plain way: what we equal.

Written from the authors' scripts (`track_generation/` of cvlab-kaist/SOLA), step by step, and apart
from our code, of which it uses nothing (the package's own classes come through `sam2_models`).
Everything is dense arrays and loops, and every propagation encodes its frames again. Numbers that
stand here are the scripts'. On a GPU call it in `torch.autocast`, as the scripts do.
"""

import contextlib
import io
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from hydra.utils import instantiate
from omegaconf import OmegaConf
from PIL import Image

from sola_model.extraction.sam2_models import SAM2AutomaticMaskGenerator, SAM2ImagePredictor


def video_predictor(config: Path, weights: Mapping[str, torch.Tensor]) -> Any:
    """The package's legacy predictor, as its builder makes it but for hole filling."""
    settings: Any = OmegaConf.load(config).model
    settings["_target_"] = "sam2.sam2_video_predictor_legacy.SAM2VideoPredictor"
    predictor = instantiate(
        settings,
        sam_mask_decoder_extra_args={
            "dynamic_multimask_via_stability": True,
            "dynamic_multimask_stability_delta": 0.05,
            "dynamic_multimask_stability_thresh": 0.98,
        },
        binarize_mask_from_pts_for_mem_enc=True,
        fill_hole_area=0,
    )
    predictor.load_state_dict(weights)
    return predictor.eval()


def save_frames(folder: Path, frames_THW3: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Write frames as the predictor reads them, and return them as it will see them."""
    for t, frame_HW3 in enumerate(frames_THW3):
        Image.fromarray(frame_HW3).save(folder / f"{t:05d}.jpg", quality=95)
    return read_frames(folder)


def read_frames(folder: Path) -> list[np.ndarray]:
    """The frames that `save_frames` wrote."""
    return [np.array(Image.open(p).convert("RGB")) for p in sorted(folder.glob("*.jpg"))]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without the predictor's progress bars and warnings."""
    with contextlib.redirect_stderr(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def start(predictor: Any, folder: Path) -> dict:
    """The state of a video: its frames are read."""
    with quiet():
        return predictor.init_state(str(folder), offload_video_to_cpu=True)


@torch.inference_mode()
def propagate(
    predictor: Any, state: dict, frame_index: int, masks: Sequence[np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Masks (B, T, H, W) and object tokens (B, T, D) of B prompt masks on one frame."""
    predictor.reset_state(state)
    state["cached_features"] = {}
    for b, mask_HW in enumerate(masks):
        predictor.add_new_mask(state, frame_index, b, mask_HW.astype(bool))
    found: dict[int, np.ndarray] = {}
    with quiet():
        for reverse in (False, True):
            for t, _, logits in predictor.propagate_in_video(state, frame_index, reverse=reverse):
                found.setdefault(t, (logits[:, 0] > 0).cpu().numpy())
    outputs = {
        **state["output_dict"]["non_cond_frame_outputs"],
        frame_index: state["output_dict"]["cond_frame_outputs"][frame_index],
    }
    frames = range(len(found))
    return (
        np.stack([found[t] for t in frames], axis=1),
        np.stack([outputs[t]["obj_ptr"].float().cpu().numpy() for t in frames], axis=1),
    )


@dataclass(frozen=True)
class Prompt:
    """A mask (H, W) to propagate from a frame."""

    frame_index: int
    mask_HW: np.ndarray


def grid_masks(predictor: Any, frame_HW3: np.ndarray, settings: Mapping) -> list[np.ndarray]:
    """The masks of a frame that the official generator makes, largest first, without parts.

    Args:
        settings: of the generator; the release leaves them at their defaults.
    """
    generator = SAM2AutomaticMaskGenerator(predictor, **settings)
    _set_sizes(generator.predictor, predictor.image_size)
    found = sorted(generator.generate(frame_HW3), key=lambda record: record["area"], reverse=True)
    masks_NHW = [record["segmentation"].astype(bool) for record in found]
    part = [False] * len(masks_NHW)
    for n, whole_HW in enumerate(masks_NHW):
        if not part[n]:
            for other, mask_HW in enumerate(masks_NHW):
                inside = (mask_HW & whole_HW).sum() / mask_HW.sum()
                if other != n and inside > 0.7:
                    part[other] = True
    return [mask_HW for mask_HW, is_part in zip(masks_NHW, part, strict=True) if not is_part]


def grid_prompts(
    predictor: Any, frames_THW3: Sequence[np.ndarray], bin_size: int, settings: Mapping
) -> list[Prompt]:
    """Grid prompts of a video; `bin_size` 4 in training, 0 in evaluation (two bins, then)."""
    bin_size = bin_size or len(frames_THW3) // 2
    return [
        Prompt(t, mask_HW)
        for t in range(0, len(frames_THW3), bin_size)
        for mask_HW in grid_masks(predictor, frames_THW3[t], settings)
    ]


def box_prompts(
    predictor: Any, frames_THW3: Sequence[np.ndarray], boxes: Sequence[tuple[int, Sequence[float]]]
) -> list[Prompt]:
    """The masks of an expression's boxes (frame, corners) that are stable enough."""
    image_predictor = SAM2ImagePredictor(predictor)
    _set_sizes(image_predictor, predictor.image_size)
    prompts = []
    for t in sorted({t for t, _ in boxes}):
        image_predictor.set_image(frames_THW3[t])
        corners_N4 = np.array([corners for at, corners in boxes if at == t])
        masks, _, logits = image_predictor.predict(box=corners_N4, multimask_output=False)
        for n in range(len(corners_N4)):
            mask_HW, logits_HW = (a.reshape(-1, *a.shape[-2:])[n] for a in (masks, logits))
            with np.errstate(invalid="ignore"):
                stability = (logits_HW > 1).sum() / (logits_HW > -1).sum()
            if not stability < 0.85:  # 0 / 0 is not below
                prompts.append(Prompt(t, mask_HW > 0))
    return prompts


def _set_sizes(image_predictor: SAM2ImagePredictor, side: int) -> None:
    """The package's image predictor knows no image size but 1024."""
    image_predictor._bb_feat_sizes = [(side // s, side // s) for s in (4, 8, 16)]


def by_area(prompts: Sequence[Prompt]) -> list[Prompt]:
    """The prompts as they are numbered: largest first."""
    return sorted(prompts, key=lambda prompt: prompt.mask_HW.sum(), reverse=True)


Fate = tuple[str, int | None, float | None]
Batch = Callable[[list[Prompt], int], list[Prompt]]
"""The prompts that wait, the number of tracks -> those to propagate next."""


@dataclass
class PlainTracks:
    """`fates` has (fate, track id, IoU) per prompt, prompts in order of area."""

    fates: list[Fate]
    masks: list[np.ndarray] = field(default_factory=list)
    tokens: list[np.ndarray] = field(default_factory=list)


def grid_tracks(
    predictor: Any, state: dict, prompts: Sequence[Prompt], limit: int = 64
) -> PlainTracks:
    """The script for grid prompts: batch mates are looked for in the whole list."""

    def batch(pending: list[Prompt], tracked: int) -> list[Prompt]:
        chosen = [pending[0]]
        for prompt in pending[1:]:
            if len(chosen) >= _most(state) or tracked + len(chosen) >= limit:
                break
            if prompt.frame_index == chosen[0].frame_index:
                chosen.append(prompt)
        return chosen

    return _tracks(predictor, state, prompts, limit, batch)


def box_tracks(
    predictor: Any, state: dict, prompts: Sequence[Prompt], limit: int = 16
) -> PlainTracks:
    """The script for boxes of an expression: a prompt of another frame ends the batch.

    `tracked` counts the members of the batch as they join, and the limit adds them once more.
    """

    def batch(pending: list[Prompt], tracked: int) -> list[Prompt]:
        chosen: list[Prompt] = []
        for prompt in pending:
            if chosen and prompt.frame_index != chosen[0].frame_index:
                break
            chosen.append(prompt)
            tracked += 1
            if len(chosen) >= _most(state) or len(chosen) + tracked >= limit:
                break
        return chosen

    return _tracks(predictor, state, prompts, limit, batch)


def _most(state: dict) -> int:
    """Prompts in a batch, at most."""
    return 2 if state["num_frames"] > 200 else 4


def _tracks(
    predictor: Any, state: dict, prompts: Sequence[Prompt], limit: int, batch: Batch
) -> PlainTracks:
    """Propagate batch after batch; after each, filter what its tracks cover."""
    prompts = by_area(prompts)
    fates: dict[int, Fate] = {id(prompt): ("unused", None, None) for prompt in prompts}
    found = PlainTracks([])
    while len(found.masks) < limit:
        pending = [prompt for prompt in prompts if fates[id(prompt)][0] == "unused"]
        if not pending:
            break
        chosen = batch(pending, len(found.masks))
        made = propagate(
            predictor, state, chosen[0].frame_index, [prompt.mask_HW for prompt in chosen]
        )
        first = len(found.masks)
        for prompt, masks_THW, tokens_TD in zip(chosen, *made, strict=True):
            fates[id(prompt)] = ("tracked", len(found.masks), None)
            found.masks.append(masks_THW)
            found.tokens.append(tokens_TD)
        for track_id in range(first, len(found.masks)):
            for prompt in pending:
                if fates[id(prompt)][0] == "unused":
                    covered = overlap(found.masks[track_id][prompt.frame_index], prompt.mask_HW)
                    if covered > 0.7:
                        fates[id(prompt)] = ("filtered", track_id, covered)
    found.fates = [fates[id(prompt)] for prompt in prompts]
    return found


def overlap(track_HW: np.ndarray, prompt_HW: np.ndarray) -> float:
    """IoU of a track's mask and a prompt, both at the size for comparisons."""
    height, width = track_HW.shape
    size = (540, 960) if height < width else (960, 540)
    a = F.interpolate(_batch(track_HW), size, mode="bilinear") > 0.5
    b = F.interpolate(_batch(prompt_HW), size, mode="nearest") > 0
    union = (a | b).sum().item()
    return (a & b).sum().item() / union if union else 1.0


def _batch(mask_HW: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(mask_HW))[None, None].float()
