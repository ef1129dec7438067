"""The cheaper parts of Grounding DINO against those that they replace, with random weights."""

import pytest
import torch
from transformers import GroundingDinoConfig
from transformers.models.grounding_dino.modeling_grounding_dino import (
    GroundingDinoBiMultiHeadAttention,
    GroundingDinoMultiscaleDeformableAttention,
)

from sola_model.detection.grounding_dino import LeanDeformableAttention, LeanFusion

CONFIG = GroundingDinoConfig(
    d_model=32, encoder_ffn_dim=48, encoder_attention_heads=4, num_feature_levels=3
)
SIZES = [(9, 12), (5, 6), (3, 3)]
POSITIONS = sum(height * width for height, width in SIZES)


def randomised(module: torch.nn.Module) -> torch.nn.Module:
    """Weights that matter: the class's own start at constants."""
    torch.manual_seed(0)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return module.eval().requires_grad_(False)


def test_fusion():
    theirs = randomised(GroundingDinoBiMultiHeadAttention(CONFIG))
    image, text = torch.randn(3, POSITIONS, 32), torch.randn(3, 7, 32)
    padding = torch.arange(7) >= torch.tensor([7, 4, 2])[:, None]
    no_padding = torch.zeros(3, POSITIONS, dtype=torch.bool)
    (image_expected, _), (text_expected, _) = theirs(image, text, no_padding, padding)
    (image_found, _), (text_found, _) = LeanFusion(theirs)(image, text, no_padding, padding)
    torch.testing.assert_close(image_found, image_expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(text_found, text_expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("coordinates", [2, 4])
def test_deformable_attention(coordinates):
    theirs = randomised(GroundingDinoMultiscaleDeformableAttention(CONFIG, 4, 2))
    inputs = {
        "hidden_states": torch.randn(2, 11, 32),
        "encoder_hidden_states": torch.randn(2, POSITIONS, 32),
        "position_embeddings": torch.randn(2, 11, 32),
        "reference_points": torch.rand(2, 11, 3, coordinates),
        "spatial_shapes": torch.tensor(SIZES),
        "spatial_shapes_list": SIZES,
        "level_start_index": torch.tensor([0, 108, 138]),
    }
    expected, _ = theirs(**inputs)
    found, _ = LeanDeformableAttention(theirs)(**inputs)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
