"""Our SAM2 beside the official predictor of the same weights."""

import tempfile
from pathlib import Path

import sam2
import torch
from omegaconf import OmegaConf

from sola_model.extraction.sam2_models import DEMO_CHECKPOINT, build_sam2, load_sam2
from sola_model.parity import official

TINY = Path(sam2.__file__).parent / "configs" / "sam2.1" / "sam2.1_hiera_t.yaml"


def demo_models():
    """The embedded model, and the official predictor with its weights."""
    model = load_sam2("demo")
    config = DEMO_CHECKPOINT.with_suffix(".yaml")
    return model, official.video_predictor(config, model.state_dict())


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
        return model, official.video_predictor(path, model.state_dict())
