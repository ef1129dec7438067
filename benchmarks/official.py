"""The official video predictor driven the plain way: the reference that we equal and outrun."""

from pathlib import Path

import numpy as np
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from pycocotools import mask as coco

from sola_model.sam2_models import DEMO_CHECKPOINT, load_sam2


def video_predictor():
    """The package's legacy predictor with the embedded weights, without hole filling."""
    config = OmegaConf.load(DEMO_CHECKPOINT.with_suffix(".yaml")).model
    config["_target_"] = "sam2.sam2_video_predictor_legacy.SAM2VideoPredictor"
    predictor = instantiate(config, binarize_mask_from_pts_for_mem_enc=True, fill_hole_area=0)
    predictor.load_state_dict(load_sam2("demo").state_dict())
    return predictor.eval()


@torch.inference_mode()
def propagate(
    predictor, folder: Path, start: int, prompts: list[dict]
) -> tuple[np.ndarray, np.ndarray]:
    """Masks (T, B, H, W) and object tokens (T, B, D) of B prompt masks on frame `start`."""
    state = predictor.init_state(str(folder), offload_video_to_cpu=True)
    for b, prompt in enumerate(prompts):
        predictor.add_new_mask(state, start, b, coco.decode(prompt).astype(bool))
    masks = {}
    for reverse in (False, True):
        for t, _, logits in predictor.propagate_in_video(state, start, reverse=reverse):
            masks.setdefault(t, logits[:, 0].numpy() > 0)
    outputs = state["output_dict"]["non_cond_frame_outputs"] | {
        start: state["output_dict"]["cond_frame_outputs"][start]
    }
    frames = range(len(masks))
    return (
        np.stack([masks[t] for t in frames]),
        np.stack([outputs[t]["obj_ptr"].numpy() for t in frames]),
    )
