"""Load SAM2, see `sola_model.extraction.checkpoints`. The only file that imports package `sam2`."""

import warnings
from contextlib import nullcontext
from pathlib import Path

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from sam2.automatic_mask_generator import SAM2AutomaticMaskGenerator
from sam2.modeling.sam2_base import SAM2Base
from sam2.sam2_image_predictor import SAM2ImagePredictor
from sam2.utils.amg import MaskData

from sola_model.extraction.checkpoints import (
    DEMO_CHECKPOINT,
    checkpoint_identity,
    config_path,
    read_state,
    resolve_checkpoint,
)

__all__ = [
    "DEMO_CHECKPOINT",
    "MaskData",
    "SAM2AutomaticMaskGenerator",
    "SAM2Base",
    "SAM2ImagePredictor",
    "build_sam2",
    "checkpoint_identity",
    "load_sam2",
    "resolve_checkpoint",
]

# The package's image transforms use torch.jit.script, which newer versions of torch warn of.
warnings.filterwarnings("ignore", "`torch.jit.script` is deprecated", FutureWarning)


def load_sam2(name: str | Path, device: str | torch.device = "cpu") -> SAM2Base:
    """The frozen SAM2 of a checkpoint, in evaluation mode (see `resolve_checkpoint` for names).

    Raises:
        ValueError: the file is not a SAM2 checkpoint, or its weights do not fit its architecture.
    """
    path, where = resolve_checkpoint(name), torch.device(device)
    # The package puts tables on "cuda": on the one that is meant, not on the first.
    with torch.cuda.device(where) if where.type == "cuda" else nullcontext():
        model, state = build_sam2(config_path(path)), read_state(path)
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(
            f"the weights in {path} do not fit the architecture its name stands for "
            f"({config_path(path).name}): {str(error)[:500]}. Keep the official file name."
        ) from error
    return model.requires_grad_(False).eval().to(where)


def build_sam2(config: Path) -> SAM2Base:
    """The untrained SAM2 that a configuration file (the official yaml format) describes.

    With the settings that the package's builders add (`sam2.build_sam`), but for `fill_hole_area`,
    which acts on CUDA only and so would make CPU and GPU differ: holes are never filled. Objects
    may overlap; else they would depend on their batch mates.

    Raises:
        ValueError: the architecture skips frames in its memory, which extraction does not do.
    """
    settings = OmegaConf.load(config)
    assert isinstance(settings, DictConfig)
    stride = settings.model.get("memory_temporal_stride_for_eval", 1)
    if stride != 1:
        raise ValueError(f"{config}: memory_temporal_stride_for_eval is {stride}; only 1 is valid")
    stability = {
        "dynamic_multimask_via_stability": True,
        "dynamic_multimask_stability_delta": 0.05,
        "dynamic_multimask_stability_thresh": 0.98,
    }
    return instantiate(
        settings.model,
        sam_mask_decoder_extra_args=stability,
        binarize_mask_from_pts_for_mem_enc=True,
        non_overlap_masks_for_mem_enc=False,
        _recursive_=True,
    )
