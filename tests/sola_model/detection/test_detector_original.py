"""The original package beside transformers 5: the same boxes from the same weights.

The package is optional (`pip install groundingdino-py`). Its checkpoint is made here, of its own
classes with random weights, and converted for `transformers`.
"""

import json
import re
import shutil
from collections.abc import Iterator
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

from sola_model.detection.detector import (
    DEMO_DETECTOR,
    Detection,
    detect,
    load_detector,
)
from sola_model.detection.detector_original import architecture, build_original
from sola_model.extraction.sam2_models import DEMO_CHECKPOINT
from sola_model.recipes import DetectorSettings

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
NETWORK = {"enc_layers": 2, "dec_layers": 2, "dim_feedforward": 64, "num_queries": 20}

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
def checkpoint(tmp_path_factory) -> Iterator[Path]:
    """A small network of the package's, with its text encoder beside it."""
    from groundingdino.models.GroundingDINO.backbone import backbone
    from groundingdino.models.GroundingDINO.backbone.swin_transformer import SwinTransformer

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
        model = build_original(architecture(path))
        for name, parameter in model.named_parameters():
            if "gamma" in name:  # 1e-4: language would hardly matter
                torch.nn.init.constant_(parameter, 0.5)
        torch.save({"model": {f"module.{k}": v for k, v in model.state_dict().items()}}, path)
        yield path


@pytest.fixture(scope="module")
def original(checkpoint):
    return load_detector(checkpoint)


@pytest.fixture(scope="module")
def image_HW3() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (100, 140, 3), np.uint8)


def assert_equal(found: list[list[Detection]], expected: list[list[Detection]]) -> None:
    assert [len(boxes) for boxes in found] == [len(boxes) for boxes in expected]
    for boxes, others in zip(found, expected, strict=True):
        assert [d.phrase for d in boxes] == [d.phrase for d in others]
        np.testing.assert_allclose([d.xyxy for d in boxes], [d.xyxy for d in others], atol=1e-3)
        np.testing.assert_allclose([d.score for d in boxes], [d.score for d in others], atol=1e-4)


def test_boxes_are_those_of_transformers_with_the_same_weights(
    checkpoint, original, image_HW3, tmp_path
):
    config = GroundingDinoConfig(
        backbone_config=SwinConfig(image_size=224, out_indices=[2, 3, 4], **SWIN),
        text_config=BERT,
        encoder_layers=2,
        decoder_layers=2,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        num_queries=20,
    )
    model = GroundingDinoForObjectDetection(config)
    state = {k.removeprefix("module."): v for k, v in torch.load(checkpoint)["model"].items()}
    missing, unexpected = model.load_state_dict(converted(state), strict=False)
    assert not unexpected and all("swin.layernorm" in name for name in missing)  # never used
    model.save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(DEMO_DETECTOR).save_pretrained(tmp_path)
    ((_, found),) = detect(original, [(0, image_HW3)], CAPTIONS, SETTINGS)
    ((_, expected),) = detect(load_detector(tmp_path), [(0, image_HW3)], CAPTIONS, SETTINGS)
    assert all(len(boxes) > 5 for boxes in found)
    assert_equal(found, expected)


def test_captions_of_a_batch_do_not_disturb_each_other(original, image_HW3):
    ((_, together),) = detect(original, [(0, image_HW3)], CAPTIONS, SETTINGS)
    alone = [
        next(detect(original, [(0, image_HW3)], [caption], SETTINGS))[1][0] for caption in CAPTIONS
    ]
    assert_equal(together, alone)


def test_a_frame_is_encoded_once(original, image_HW3):
    images = []
    swin = original.backbone.joiner[0]
    hook = swin.register_forward_pre_hook(lambda _, inputs: images.append(len(inputs[0].tensors)))
    frames = [(0, image_HW3), (4, image_HW3[::-1].copy())]
    assert len(list(detect(original, frames, CAPTIONS, SETTINGS))) == 2
    hook.remove()
    assert images == [1, 1]


def test_a_caption_that_the_text_encoder_cannot_take_is_an_error(original, image_HW3):
    with pytest.raises(ValueError, match=r"67 tokens, this detector takes at most 64"):
        list(detect(original, [(0, image_HW3)], ["star " * 64], SETTINGS))


def test_wrong_files_are_errors_that_say_what_is_valid(checkpoint, tmp_path):
    other = tmp_path / "groundingdino_swint_ogc.pth"
    shutil.copy(checkpoint.with_suffix(".json"), other.with_suffix(".json"))
    other.write_bytes(b"no checkpoint")
    with pytest.raises(ValueError, match="is not a checkpoint of Grounding DINO's original"):
        load_detector(other)
    torch.save({"model": converted(torch.load(checkpoint)["model"])}, other)
    with pytest.raises(ValueError, match=r"does not fit the package's model: \d+ tensors"):
        load_detector(other)
    shutil.copy(DEMO_CHECKPOINT, other)
    with pytest.raises(ValueError, match=r"does not fit [^$]* as a folder"):
        load_detector(other)
    with pytest.raises(ValueError, match="keep the official file name"):
        load_detector(shutil.copy(checkpoint, tmp_path / "mine.pth"))
