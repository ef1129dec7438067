"""Parts of `transformers`' Grounding DINO, replaced by cheaper ones that give the same results.

The whole encoder of Grounding DINO depends on the text; only its image backbone does not. So a
frame's captions share the backbone, and the encoder is made cheaper where rounding is all that
changes.

Shapes: G images, R rows (captions) of a batch, N image positions, W text tokens, D channels, h
heads of e channels, L levels, P points sampled for each of Q queries.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def make_lean(model: nn.Module) -> "SharedBackbone":
    """Replace parts of a `GroundingDinoForObjectDetection`; returns its new backbone.

    From then on the model looks at the images that the backbone was last given to encode.
    """
    parts: Any = model.model
    backbone = SharedBackbone(parts.backbone)
    parts.backbone = backbone
    for layer in parts.encoder.layers:
        layer.fusion_layer.attn = LeanFusion(layer.fusion_layer.attn)
        layer.deformable_layer.self_attn = LeanDeformableAttention(layer.deformable_layer.self_attn)
    for layer in parts.decoder.layers:
        layer.encoder_attn = LeanDeformableAttention(layer.encoder_attn)
    return backbone


class SharedBackbone(nn.Module):
    """Stands in for the model's backbone: an image, encoded once, serves many captions.

    The rows of a batch are images times captions, the captions of an image side by side.
    """

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone: Any = backbone
        self.encoded: tuple[list[tuple[Tensor, Tensor]], list[Tensor]] | None = None

    @property
    def position_embedding(self) -> nn.Module:
        """What the model itself uses for its coarser levels."""
        return self.backbone.position_embedding

    def encode(self, pixels_G3HW: Tensor) -> int:
        """Encode the images of the coming forward passes; returns the positions of one."""
        mask = torch.ones_like(pixels_G3HW[:, 0], dtype=torch.long)
        self.encoded = self.backbone(pixels_G3HW, mask)
        return sum(features[0, 0].numel() for features, _ in self.encoded[0])

    def forward(self, pixels_R3HW: Tensor, mask: Tensor) -> tuple[list, list]:
        """The features of each row's image, as the backbone itself gives them."""
        assert self.encoded is not None
        levels, places = self.encoded
        times = len(pixels_R3HW) // len(places[0])
        return (
            [(f.repeat_interleave(times, 0), m.repeat_interleave(times, 0)) for f, m in levels],
            [p.repeat_interleave(times, 0) for p in places],
        )


class LeanFusion(nn.Module):
    """Bidirectional attention of image and text, with the projections moved to the text's side.

    As `GroundingDinoBiMultiHeadAttention` for images without padding, to rounding: projecting the
    few tokens of a caption in place of the many positions of an image gives the same products,
    with about 20 times fewer operations in a network of grounding-dino-tiny's size.
    """

    def __init__(self, attention: nn.Module) -> None:
        super().__init__()
        self.attention: Any = attention

    def forward(
        self,
        vision_features: Tensor,
        text_features: Tensor,
        vision_attention_mask: Tensor | None = None,
        text_attention_mask: Tensor | None = None,
    ) -> tuple[tuple[Tensor, None], tuple[Tensor, None]]:
        """Updates (R, N, D) and (R, W, D); `text_attention_mask` (R, W) is true for padding."""
        own, heads = self.attention, self.attention.num_heads
        key_RWhe = own.text_proj(text_features).unflatten(2, (heads, -1)) * own.scale
        query_heD = own.vision_proj.weight.unflatten(0, (heads, -1))
        query_bias_he = own.vision_proj.bias.unflatten(0, (heads, -1))
        key_RhWD = torch.einsum("rwhe,hed->rhwd", key_RWhe, query_heD)
        key_bias_RhW = torch.einsum("rwhe,he->rhw", key_RWhe, query_bias_he)
        logits = key_RhWD.flatten(1, 2) @ vision_features.transpose(1, 2)
        logits_RhWN = logits.unflatten(1, (heads, -1)) + key_bias_RhW[..., None]

        seen_RhWD = logits_RhWN.softmax(3) @ vision_features[:, None]
        vision_heD = own.values_vision_proj.weight.unflatten(0, (heads, -1))
        seen_RWC = torch.einsum("rhwd,hed->rwhe", seen_RhWD, vision_heD).flatten(2)
        text_RWD = own.out_text_proj(seen_RWC + own.values_vision_proj.bias)

        if text_attention_mask is not None:
            logits_RhWN = logits_RhWN.masked_fill(text_attention_mask[:, None, :, None], -torch.inf)
        value_RWhe = own.values_text_proj(text_features).unflatten(2, (heads, -1))
        out_Dhe = own.out_vision_proj.weight.unflatten(1, (heads, -1))
        value_RhWD = torch.einsum("rwhe,dhe->rhwd", value_RWhe, out_Dhe)
        weights = logits_RhWN.softmax(2).flatten(1, 2).transpose(1, 2)
        vision_RND = weights @ value_RhWD.flatten(1, 2) + own.out_vision_proj.bias
        return (vision_RND, None), (text_RWD, None)


class LeanDeformableAttention(nn.Module):
    """As `GroundingDinoMultiscaleDeformableAttention` for images without padding, to rounding.

    Queries come last in memory, which softmax and sums are quicker with, and samples are summed
    level by level.
    """

    def __init__(self, attention: nn.Module) -> None:
        super().__init__()
        self.attention: Any = attention

    def forward(
        self,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        position_embeddings: Tensor,
        reference_points: Tensor,
        spatial_shapes: Tensor,
        spatial_shapes_list: list[tuple[int, int]],
        **ignored: object,
    ) -> tuple[Tensor, None]:
        """The attended features (R, Q, D) of `hidden_states` (R, Q, D).

        `encoder_hidden_states` (R, N, D) are sampled around `reference_points` (R, Q, L, 2 or 4):
        x, y and perhaps width, height, 0..1. `spatial_shapes` are the levels' (height, width).
        """
        own, heads, points = self.attention, self.attention.n_heads, self.attention.n_points
        queries_RQD = hidden_states + position_embeddings
        offsets = own.sampling_offsets(queries_RQD).unflatten(2, (heads, -1, points, 2))
        offsets_RhLPQ2 = offsets.permute(0, 2, 3, 4, 1, 5).contiguous()
        around = reference_points.transpose(1, 2)[:, None, :, None]
        if reference_points.shape[-1] == 2:
            places_RhLPQ2 = around + offsets_RhLPQ2 / spatial_shapes.flip(1)[:, None, None]
        else:
            places_RhLPQ2 = around[..., :2] + offsets_RhLPQ2 * (around[..., 2:] * (0.5 / points))
        grid_RhLPQ2 = 2 * places_RhLPQ2 - 1
        logits_RhKQ = own.attention_weights(queries_RQD).transpose(1, 2).unflatten(1, (heads, -1))
        weights_RhLPQ = logits_RhKQ.softmax(2).unflatten(2, (-1, points))

        values_RDN = own.value_proj(encoder_hidden_states).transpose(1, 2)
        values = values_RDN.split([height * width for height, width in spatial_shapes_list], dim=2)
        attended: Any = 0  # from the first level on a tensor
        for level, size in enumerate(spatial_shapes_list):
            image = values[level].unflatten(1, (heads, -1)).flatten(0, 1).unflatten(2, size)
            grid = grid_RhLPQ2[:, :, level].flatten(0, 1)
            sampled = F.grid_sample(image, grid, align_corners=False)
            attended += (sampled * weights_RhLPQ[:, :, level].flatten(0, 1)[:, None]).sum(2)
        attended_RDQ = attended.view(len(hidden_states), -1, hidden_states.shape[1])
        return own.output_proj(attended_RDQ.transpose(1, 2)), None
