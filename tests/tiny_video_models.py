"""Video models of `transformers` of a tiny architecture with random weights, as folders."""

from pathlib import Path

import torch
import transformers
from torch import nn

SIDE, WIDTH = 64, 128  # of the image, of an object token
HIERA = {
    "model_type": "sam2_vision_model",
    "backbone_config": {
        "model_type": "sam2_hiera_det_model", "image_size": [SIDE, SIDE], "hidden_size": 8,
        "blocks_per_stage": [1, 1, 2, 1], "embed_dim_per_stage": [8, 16, 32, 64],
        "num_attention_heads_per_stage": [1, 1, 1, 1], "global_attention_blocks": [3],
        "window_size_per_stage": [4, 4, 4, 2],
    },
    "backbone_channel_list": [64, 32, 16, 8],
    "backbone_feature_sizes": [[16, 16], [8, 8], [4, 4]],
    "fpn_hidden_size": WIDTH,
}  # fmt: skip
VIT = {
    "backbone_config": {
        "model_type": "sam3_vit_model", "hidden_size": 32, "intermediate_size": 64,
        "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": SIDE, "patch_size": 16,
        "window_size": 2, "global_attn_indexes": [0], "pretrain_image_size": SIDE,
    },
    "fpn_hidden_size": WIDTH,
}  # fmt: skip
MEMORY = {
    "memory_attention_hidden_size": WIDTH, "memory_attention_num_layers": 1,
    "memory_attention_rope_feat_sizes": [4, 4], "memory_encoder_hidden_size": WIDTH,
    "mask_downsampler_embed_dim": WIDTH, "memory_fuser_embed_dim": WIDTH,
    "memory_fuser_intermediate_dim": WIDTH, "memory_fuser_num_layers": 1,
}  # fmt: skip
PROMPTS = {"hidden_size": WIDTH, "image_size": SIDE, "patch_size": 16}
PERCEIVER = {
    "perceiver_resampler_num_latents": 4, "perceiver_resampler_num_latents_2d": 4,
    "memory_attention_rope_k_sizes": [2, 2],
}  # fmt: skip
KINDS: dict[str, tuple[str, dict]] = {
    "sam2_video": ("Sam2Video", {"vision_config": HIERA}),
    "edgetam_video": ("EdgeTamVideo", {"vision_config": HIERA, **PERCEIVER}),
    "sam3_tracker_video": ("Sam3TrackerVideo", {"vision_config": VIT}),
}


def save_tiny(tracker: str, folder: Path) -> str:
    """Write a model that sees every object everywhere; the folder's name."""
    torch.manual_seed(0)
    name, settings = KINDS[tracker]
    config = getattr(transformers, f"{name}Config")(
        image_size=SIDE,
        prompt_encoder_config=PROMPTS,
        mask_decoder_config={"hidden_size": WIDTH, "mlp_dim": 64, "iou_head_hidden_dim": 32},
        **MEMORY,
        **settings,
    )
    model = getattr(transformers, f"{name}Model")(config).eval()
    for parameter in model.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)
    nn.init.constant_(model.mask_decoder.pred_obj_score_head.proj_out.bias, 20.0)
    model.save_pretrained(folder)
    return str(folder)
