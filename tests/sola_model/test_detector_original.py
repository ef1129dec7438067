"""The original package beside transformers 5: the same boxes from the same weights.

The package is optional (`pip install groundingdino-py`). Its checkpoint is made here, of its own
classes with random weights, and converted for `transformers`.
"""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import (
    AutoTokenizer,
    BertConfig,
    BertModel,
    GroundingDinoConfig,
    GroundingDinoForObjectDetection,
    SwinConfig,
)

from sola_model.detector import DEMO_DETECTOR, DetectorSettings, detect, load_detector
from sola_model.sam2_models import DEMO_CHECKPOINT

pytest.importorskip("groundingdino", reason="the optional package groundingdino-py")

SETTINGS = DetectorSettings(short_side=90, long_side=130)
CAPTIONS = ["The red circle", "all stars that move to the left", "a cat. a dog", "thing"]
SWIN = {"embed_dim": 24, "depths": [1, 1, 2, 1], "num_heads": [1, 2, 4, 8], "window_size": 7}
BERT = BertConfig(
    vocab_size=1030,
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=64,
    max_position_embeddings=64,
)
NETWORK = {
    "enc_layers": 2,
    "dec_layers": 2,
    "dim_feedforward": 64,
    "num_queries": 20,
    "use_checkpoint": False,
    "use_transformer_ckpt": False,
}

# How names of the package's tensors become those of transformers, applied in this order.
RENAMED = [
    (r"^backbone\.0\.norm1\.", "model.backbone.conv_encoder.model.hidden_states_norms.stage2."),
    (r"^backbone\.0\.norm2\.", "model.backbone.conv_encoder.model.hidden_states_norms.stage3."),
    (r"^backbone\.0\.norm3\.", "model.backbone.conv_encoder.model.hidden_states_norms.stage4."),
    (r"^backbone\.0\.patch_embed\.proj", "swin.embeddings.patch_embeddings.projection"),
    (r"^backbone\.0\.patch_embed\.norm", "swin.embeddings.norm"),
    (r"^backbone\.0\.", "swin.encoder."),
    (r"^swin\.", "model.backbone.conv_encoder.model.swin."),
    (r"(blocks\.\d+)\.norm1", r"\1.layernorm_before"),
    (r"(blocks\.\d+)\.norm2", r"\1.layernorm_after"),
    (r"attn\.relative", "attention.relative_position_bias.relative"),
    (r"(blocks\.\d+)\.attn\.proj", r"\1.attention.o_proj"),
    (r"(blocks\.\d+)\.attn\.qkv\.", r"\1.attention.split_"),
    (r"^bert", "model.text_backbone"),
    (r"^input_proj", "model.input_proj_vision"),
    (r"^feat_map", "model.text_projection"),
    (r"^transformer\.encoder\.text_layers\.(\d+)", r"model.encoder.layers.\1.text_enhancer_layer"),
    (r"^transformer\.encoder\.fusion_layers\.(\d+)", r"model.encoder.layers.\1.fusion_layer"),
    (r"^transformer\.encoder\.layers\.(\d+)", r"model.encoder.layers.\1.deformable_layer"),
    (r"^transformer\.", "model."),
    (r"(deformable_layer)\.norm1", r"\1.self_attn_layer_norm"),
    (r"(deformable_layer)\.norm2", r"\1.final_layer_norm"),
    (r"(text_enhancer_layer)\.norm1", r"\1.layer_norm_before"),
    (r"(text_enhancer_layer)\.norm2", r"\1.layer_norm_after"),
    (r"gamma_v", "vision_param"),
    (r"gamma_l", "text_param"),
    (r"layer_norm_v\.", "layer_norm_vision."),
    (r"layer_norm_l\.", "layer_norm_text."),
    (r"(fusion_layer\.attn\.\w*)v_proj", r"\1vision_proj"),
    (r"(fusion_layer\.attn\.\w*)l_proj", r"\1text_proj"),
    (r"decoder\.norm", "decoder.layer_norm"),
    (r"ref_point_head", "reference_points_head"),
    (r"ca_text", "encoder_attn_text"),
    (r"catext_norm", "encoder_attn_text_layer_norm"),
    (r"cross_attn", "encoder_attn"),
    (r"(decoder\.layers\.\d+)\.norm1", r"\1.encoder_attn_layer_norm"),
    (r"(decoder\.layers\.\d+)\.norm2", r"\1.self_attn_layer_norm"),
    (r"(decoder\.layers\.\d+)\.norm3", r"\1.final_layer_norm"),
    (r"\.linear(\d)", r".fc\1"),
    (r"tgt_embed", "query_position_embeddings"),
    (r"enc_out_bbox_embed", "encoder_output_bbox_embed"),
]


def converted(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The package's tensors under the names of transformers; joint projections are split."""
    found = {}
    for name, tensor in state.items():
        if "relative_position_index" in name or "pooler" in name:
            continue
        for pattern, replacement in RENAMED:
            name = re.sub(pattern, replacement, name)
        if "attention.split_" in name:
            parts = zip(("q_proj.", "k_proj.", "v_proj."), tensor.chunk(3), strict=True)
            found |= {name.replace("split_", part): piece for part, piece in parts}
        elif ".in_proj_" in name:
            parts = zip(("query.", "key.", "value."), tensor.chunk(3), strict=True)
            found |= {name.replace("in_proj_", part): piece for part, piece in parts}
        else:
            found[name] = tensor
    return found


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    """A small network of the package's, with its text encoder beside it."""
    from groundingdino.models.GroundingDINO.backbone import backbone
    from groundingdino.models.GroundingDINO.backbone.swin_transformer import SwinTransformer

    from sola_model.detector_original import _settings, build_original

    folder = tmp_path_factory.mktemp("original")
    torch.manual_seed(0)
    BertModel(BERT).save_pretrained(folder / "bert")
    AutoTokenizer.from_pretrained(DEMO_DETECTOR).save_pretrained(folder / "bert")
    path = folder / "groundingdino_swint_small.pth"
    settings = NETWORK | {"text_encoder_type": str(folder / "bert")}
    path.with_suffix(".json").write_text(json.dumps(settings))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            backbone,
            "build_swin_transformer",
            lambda *_, out_indices, **__: SwinTransformer(out_indices=out_indices, **SWIN),
        )
        patch.setattr("sola_model.detector_original.CACHED_BACKBONE", None, raising=False)
        model = build_original(_settings(path))
    for name, parameter in model.named_parameters():
        if "gamma" in name:  # 1e-4: language would hardly matter
            torch.nn.init.constant_(parameter, 0.5)
    torch.save({"model": {f"module.{k}": v for k, v in model.state_dict().items()}}, path)
    return path
