"""The release's procedure with the official predictor, the plain way: what we equal and outrun.

Everything is dense arrays and loops, and every propagation encodes its frames again.
"""

import contextlib
import io
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import sam2
import torch
import torch.nn.functional as F
from hydra.utils import instantiate
from omegaconf import OmegaConf
from PIL import Image
from pycocotools import mask as coco
from sam2.automatic_mask_generator import SAM2AutomaticMaskGenerator

from sola_model.extraction.prompts import PromptMask
from sola_model.extraction.sam2_models import DEMO_CHECKPOINT, build_sam2, load_sam2
from sola_model.recipes import GridPrompts

TINY = Path(sam2.__file__).parent / "configs" / "sam2.1" / "sam2.1_hiera_t.yaml"


def demo_models():
    """The embedded model, and the official predictor with its weights."""
    model = load_sam2("demo")
    return model, video_predictor(DEMO_CHECKPOINT.with_suffix(".yaml"), model.state_dict())


def random_tiny(image_size: int):
    """sam2.1_hiera_tiny with seeded random weights, and the official predictor with the same."""
    config = OmegaConf.load(TINY)
    config.model.image_size = image_size
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "tiny.yaml")
        OmegaConf.save(config, path)
        torch.manual_seed(0)
        model = build_sam2(path).requires_grad_(False).eval()
        # Else random weights see no object anywhere, and all masks are empty.
        torch.nn.init.constant_(model.sam_mask_decoder.pred_obj_score_head.layers[-1].bias, 1.0)
        return model, video_predictor(path, model.state_dict())


def video_predictor(config: Path, weights: dict):
    """The package's legacy predictor, as its builder makes it but for hole filling."""
    settings = OmegaConf.load(config).model
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
    return [np.asarray(Image.open(p).convert("RGB")) for p in sorted(folder.glob("*.jpg"))]


@contextlib.contextmanager
def quiet():
    """Without the predictor's progress bars and warnings."""
    with contextlib.redirect_stderr(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def start(predictor, folder: Path) -> dict:
    """The state of a video: its frames are read."""
    with quiet():
        return predictor.init_state(str(folder), offload_video_to_cpu=True)


@torch.inference_mode()
def propagate(
    predictor, state: dict, frame_index: int, masks: Sequence[np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Masks (B, T, H, W) and object tokens (B, T, D) of B prompt masks on one frame."""
    predictor.reset_state(state)
    state["cached_features"] = {}
    for b, mask_HW in enumerate(masks):
        predictor.add_new_mask(state, frame_index, b, mask_HW.astype(bool))
    found = {}
    with quiet():
        for reverse in (False, True):
            for t, _, logits in predictor.propagate_in_video(state, frame_index, reverse=reverse):
                found.setdefault(t, logits[:, 0].numpy() > 0)
    outputs = {
        **state["output_dict"]["non_cond_frame_outputs"],
        frame_index: state["output_dict"]["cond_frame_outputs"][frame_index],
    }
    frames = range(len(found))
    return (
        np.stack([found[t] for t in frames], axis=1),
        np.stack([outputs[t]["obj_ptr"].numpy() for t in frames], axis=1),
    )


@dataclass
class PlainTracks:
    """`fates` has (fate, track id, IoU) per prompt, prompts in order of area."""

    fates: list[tuple[str, int | None, float | None]]
    masks: list[np.ndarray] = field(default_factory=list)
    tokens: list[np.ndarray] = field(default_factory=list)


def plain_tracks(
    predictor, state: dict, prompts: Sequence[PromptMask], limit: int, boxes: bool = False
) -> PlainTracks:
    """The release's loop over one list of prompts.

    Args:
        boxes: batch mates end at the first prompt of another frame, as the release's box variant.
    """
    prompts = sorted(prompts, key=lambda prompt: -prompt.area)
    dense = [coco.decode(prompt.rle) for prompt in prompts]
    compared = [_resized(mask_HW, "nearest") for mask_HW in dense]
    batch = 2 if state["num_frames"] > 200 else 4
    found = PlainTracks([("unused", None, None)] * len(prompts))
    pending = list(range(len(prompts)))
    while pending and len(found.masks) < limit:
        frame = prompts[pending[0]].frame_index
        mates = []
        for i in pending:
            if prompts[i].frame_index == frame:
                mates.append(i)
            elif boxes:
                break
        mates = mates[: min(batch, limit - len(found.masks))]
        masks_BTHW, tokens_BTD = propagate(predictor, state, frame, [dense[i] for i in mates])
        newest = {}
        for i, masks_THW, tokens_TD in zip(mates, masks_BTHW, tokens_BTD, strict=True):
            newest[len(found.masks)] = masks_THW
            found.fates[i] = ("tracked", len(found.masks), None)
            found.masks.append(masks_THW)
            found.tokens.append(tokens_TD)
        pending = [i for i in pending if i not in mates]
        for i in pending:
            for track_id, masks_THW in newest.items():
                overlap = _iou(compared[i], _resized(masks_THW[prompts[i].frame_index], "bilinear"))
                if overlap > 0.7:
                    found.fates[i] = ("filtered", track_id, overlap)
                    break
        pending = [i for i in pending if found.fates[i][0] == "unused"]
    return found


def _resized(mask_HW: np.ndarray, mode: str) -> np.ndarray:
    height, width = mask_HW.shape
    size = (540, 960) if height <= width else (960, 540)
    mask_11HW = torch.from_numpy(np.ascontiguousarray(mask_HW))[None, None].float()
    return (F.interpolate(mask_11HW, size, mode=mode)[0, 0] > 0.5).numpy()


def _iou(a_HW: np.ndarray, b_HW: np.ndarray) -> float:
    union = (a_HW | b_HW).sum()
    return float((a_HW & b_HW).sum() / union) if union else 1.0


def grid_masks(predictor, frame_HW3: np.ndarray, settings: GridPrompts) -> list[dict]:
    """The official mask generator's records of a frame, which it encodes."""
    generator = SAM2AutomaticMaskGenerator(
        predictor,
        points_per_side=settings.points_per_side,
        pred_iou_thresh=settings.predicted_iou,
        stability_score_thresh=settings.stability,
        box_nms_thresh=settings.box_nms,
        output_mode="coco_rle",
    )
    # The package's image predictor knows no image size but 1024.
    side = predictor.image_size
    generator.predictor._bb_feat_sizes = [(side // s, side // s) for s in (4, 8, 16)]
    return generator.generate(frame_HW3)
