"""Weights of package `sam2` as a `Sam2VideoModel` of `transformers`.

The two implementations name the same parameters differently; `NAMES` says how. Architecture and
settings are read off the built model, so any checkpoint that `load_sam2` takes can be converted.
"""

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Sam2VideoConfig, Sam2VideoModel

from sola_model.extraction.sam2_models import SAM2Base

# What is replaced in the names of parameters, one rule after the other.
NAMES = (
    (r"^maskmem_tpos_enc", "memory_temporal_positional_encoding"),
    (r"^no_mem_embed", "no_memory_embedding"),
    (r"^no_mem_pos_enc", "no_memory_positional_encoding"),
    (r"^no_obj_ptr", "no_object_pointer"),
    (r"^no_obj_embed_spatial", "occlusion_spatial_embedding_parameter"),
    (r"^obj_ptr_tpos_proj", "temporal_positional_encoding_projection_layer"),
    (r"^obj_ptr_proj", "object_pointer_proj"),
    (r"^image_encoder\.trunk", "vision_encoder.backbone"),
    (r"patch_embed\.proj\.", "patch_embed.projection."),
    (r"^image_encoder\.neck\.convs\.(\d)\.conv", r"vision_encoder.neck.convs.\1"),
    (r"^memory_encoder\.pix_feat_proj", "memory_encoder.feature_projection"),
    (r"^memory_encoder\.out_proj", "memory_encoder.projection"),
    (r"^memory_encoder\.fuser", "memory_encoder.memory_fuser"),
    (r"\.gamma$", ".scale"),
    (r"\.dwconv\.", ".depthwise_conv."),
    (r"\.pwconv(\d)\.", r".pointwise_conv\1."),
    (r"^sam_prompt_encoder\.mask_downscaling\.6", "prompt_encoder.mask_embed.conv3"),
    (r"^sam_prompt_encoder", "prompt_encoder"),
    (r"pe_layer\.positional_encoding_gaussian_matrix", "shared_embedding.positional_embedding"),
    (r"^sam_mask_decoder", "mask_decoder"),
    (r"output_upscaling\.0", "upscale_conv1"),
    (r"output_upscaling\.1", "upscale_layer_norm"),
    (r"output_upscaling\.3", "upscale_conv2"),
    (r"\.norm_final_attn", ".layer_norm_final_attn"),
    (r"\.norm(\d?)\.", r".layer_norm\1."),
    (r"\.out_proj\.", ".o_proj."),
    (r"\.mlp\.layers\.0", ".mlp.proj_in"),
    (r"\.mlp\.layers\.1", ".mlp.proj_out"),
)
# Perceptrons of three layers, of which `transformers` has the outer two under names of their own.
THREE_LAYERS = (
    r"(object_pointer_proj|output_hypernetworks_mlps\.\d|iou_prediction_head|pred_obj_score_head)"
    r"\.layers\.(\d)"
)
LAYERS = {"0": "proj_in", "1": "layers.0", "2": "proj_out"}


def converted(model: SAM2Base) -> Any:
    """The same as a `Sam2VideoModel`, with a copy of the weights."""
    copy: Any = Sam2VideoModel(_config(model))
    if model.mem_dim != 64:  # the width that `transformers` takes memory to have
        for layer in copy.memory_attention.layers:
            attention = layer.cross_attn_image
            attention.k_proj = nn.Linear(model.mem_dim, attention.internal_dim)
            attention.v_proj = nn.Linear(model.mem_dim, attention.internal_dim)
    copy.load_state_dict(_renamed(model.state_dict()))
    return copy.requires_grad_(False).eval()


def _renamed(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    points = [state[f"sam_prompt_encoder.point_embeddings.{n}.weight"] for n in range(4)]
    renamed = {
        _name(name): weight for name, weight in state.items() if "point_embeddings" not in name
    }
    renamed["prompt_encoder.point_embed.weight"] = torch.cat(points)
    shared = "prompt_encoder.shared_embedding.positional_embedding"
    renamed["shared_image_embedding.positional_embedding"] = renamed[shared]
    return renamed


def _name(name: str) -> str:
    """What `transformers` calls a parameter of package `sam2`."""
    if found := re.match(r"memory_encoder\.mask_downsampler\.encoder\.(\d+)(\..*)", name):
        place, rest = int(found[1]), found[2]  # a convolution, a norm and an activation each
        part = ("conv", "layer_norm")[place % 3]
        final = place == 12
        within = "final_conv" if final else f"layers.{place // 3}.{part}"
        return f"memory_encoder.mask_downsampler.{within}{rest}"
    if found := re.match(r"sam_prompt_encoder\.mask_downscaling\.([0134])(\..*)", name):
        place, rest = int(found[1]), found[2]
        part = ("conv", "layer_norm")[place % 3]
        return f"prompt_encoder.mask_embed.{part}{place // 3 + 1}{rest}"
    for pattern, replacement in NAMES:
        name = re.sub(pattern, replacement, name)
    return re.sub(THREE_LAYERS, lambda found: f"{found[1]}.{LAYERS[found[2]]}", name)


def _config(model: SAM2Base) -> Sam2VideoConfig:
    """Architecture and settings of a model of package `sam2`."""
    trunk, attention = model.image_encoder.trunk, model.memory_attention
    ends = trunk.stage_ends
    side, stride, width = model.image_size, model.backbone_stride, model.hidden_dim
    fuser = model.memory_encoder.fuser.layers
    backbone: dict[str, Any] = {
        "model_type": "sam2_hiera_det_model",
        "image_size": [side, side],
        "hidden_size": trunk.blocks[0].dim,
        "blocks_per_stage": [end - before for before, end in zip([-1, *ends], ends, strict=False)],
        "embed_dim_per_stage": [trunk.blocks[end].dim_out for end in ends],
        "num_attention_heads": trunk.blocks[0].attn.num_heads,
        "num_attention_heads_per_stage": [trunk.blocks[end].attn.num_heads for end in ends],
        "window_size_per_stage": [*trunk.window_spec],
        "global_attention_blocks": [*trunk.global_att_blocks],
        "window_positional_embedding_background_size": [*trunk.window_pos_embed_bkg_spatial_size],
    }
    return Sam2VideoConfig(
        vision_config={
            "model_type": "sam2_vision_model",
            "backbone_config": backbone,
            "backbone_channel_list": [*trunk.channel_list],
            "backbone_feature_sizes": [[side // s, side // s] for s in (4, 8, 16)],
            "fpn_hidden_size": width,
            "fpn_top_down_levels": [*model.image_encoder.neck.fpn_top_down_levels],
        },
        prompt_encoder_config={"hidden_size": width, "image_size": side, "patch_size": stride},
        mask_decoder_config={"hidden_size": width},
        image_size=side,
        num_maskmem=model.num_maskmem,
        max_object_pointers_in_encoder=model.max_obj_ptrs_in_encoder,
        max_cond_frame_num=model.max_cond_frames_in_attn,
        sigmoid_scale_for_mem_enc=model.sigmoid_scale_for_mem_enc,
        sigmoid_bias_for_mem_enc=model.sigmoid_bias_for_mem_enc,
        enable_occlusion_spatial_embedding=model.no_obj_embed_spatial is not None,
        enable_temporal_pos_encoding_for_object_pointers=model.proj_tpos_enc_in_obj_ptrs,
        multimask_output_in_sam=model.multimask_output_in_sam,
        multimask_output_for_tracking=model.multimask_output_for_tracking,
        multimask_min_pt_num=model.multimask_min_pt_num,
        multimask_max_pt_num=model.multimask_max_pt_num,
        memory_attention_hidden_size=attention.d_model,
        memory_attention_num_layers=attention.num_layers,
        memory_attention_feed_forward_hidden_size=attention.layers[0].linear1.out_features,
        memory_attention_rope_feat_sizes=[side // stride, side // stride],
        memory_encoder_hidden_size=width,
        memory_encoder_output_channels=model.mem_dim,
        mask_downsampler_embed_dim=width,
        memory_fuser_embed_dim=width,
        memory_fuser_num_layers=len(fuser),
        memory_fuser_intermediate_dim=fuser[0].pwconv1.out_features,
    )
