"""An experiment: memory attention with keys and values pooled 2 x 2. Not in the product.

    python -m benchmarks.pooled_memory

Speed: one memory attention of sam2.1_hiera_tiny at 1024 (that of every official size) with seven
memories and sixteen pointers, random weights, processor time. Quality: J&F of tracks that start
from the objects' true masks in the middle of clips of the embedded data, and how far object tokens
move, embedded model. Keys are pooled after their rotary positions, pointers are not pooled.
"""

import statistics
import warnings

import numpy as np
import torch
import torch.nn.functional as F
from sam2.modeling.position_encoding import apply_rotary_enc
from sam2.modeling.sam.transformer import RoPEAttention
from torch import Tensor

from benchmarks import models
from benchmarks.tracks import Timer
from sola_model.extraction.encoding import EncodedVideo
from sola_model.extraction.propagation import Request, propagate
from sola_model.extraction.sam2_models import SAM2Base, load_sam2
from sola_model.masks.rle import encode_masks
from sola_model.metrics.jf import j_and_f
from warehouse.demo_data import random_scene, render_frames

CLIPS, FRAMES = 10, 24


class PooledAttention(torch.nn.Module):
    """`RoPEAttention` whose keys and values are averaged over 2 x 2 positions of each memory."""

    def __init__(self, attention: RoPEAttention, side: int) -> None:
        super().__init__()
        self.attention, self.side = attention, side
        self.rotations = attention.compute_cis(end_x=side, end_y=side)

    def forward(self, q: Tensor, k: Tensor, v: Tensor, num_k_exclude_rope: int = 0) -> Tensor:
        """q (B, hw, C), k and v (B, n * hw + pointers, C)."""
        q, k, v = (
            project(x)[:, None]
            for project, x in zip(
                (self.attention.q_proj, self.attention.k_proj, self.attention.v_proj),
                (q, k, v),
                strict=True,
            )
        )
        spatial = k.shape[2] - num_k_exclude_rope
        q, rotated = apply_rotary_enc(q, k[:, :, :spatial], self.rotations, repeat_freqs_k=True)
        k = torch.cat([self._pooled(rotated), k[:, :, spatial:]], dim=2)
        v = torch.cat([self._pooled(v[:, :, :spatial]), v[:, :, spatial:]], dim=2)
        return self.attention.out_proj(F.scaled_dot_product_attention(q, k, v)[:, 0])

    def _pooled(self, x_B1LC: Tensor) -> Tensor:
        batch, _, _, channels = x_B1LC.shape
        maps = x_B1LC.reshape(-1, self.side, self.side, channels).permute(0, 3, 1, 2)
        pooled = F.avg_pool2d(maps, 2).flatten(2).transpose(1, 2)
        return pooled.reshape(batch, 1, -1, channels)


def pool_memory(model: SAM2Base) -> None:
    """Replace the cross-attention of every memory attention layer (heads: one, as official)."""
    for layer in model.memory_attention.layers:
        assert layer.cross_attn_image.num_heads == 1
        pooled = PooledAttention(layer.cross_attn_image, model.sam_image_embedding_size)
        layer.cross_attn_image.forward = pooled.forward


@torch.inference_mode()
def seconds_per_step(model: SAM2Base) -> float:
    positions, channels = model.sam_image_embedding_size**2, model.mem_dim
    pointers = 16 * model.hidden_dim // channels
    frame = torch.randn(positions, 1, model.hidden_dim)
    memory = torch.randn(7 * positions + pointers, 1, channels)
    with Timer() as timer:
        model.memory_attention(
            curr=[frame],
            curr_pos=[frame],
            memory=memory,
            memory_pos=memory,
            num_obj_ptr_tokens=pointers,
        )
    return timer.seconds


def tracks_of_clips(model: SAM2Base) -> tuple[np.ndarray, np.ndarray]:
    """J&F per object, and all tokens."""
    scores, tokens = [], []
    for seed in range(CLIPS):
        frames_THW3, masks_NTHW = render_frames(random_scene(np.random.default_rng(seed), FRAMES))
        video = EncodedVideo(model, frames_THW3)
        start = FRAMES // 2
        objects = [encode_masks(torch.from_numpy(m > 0)) for m in masks_NTHW if m[start].any()]
        requests = [Request(video, start, rles[start]) for rles in objects]
        for rles, track in zip(objects, propagate(model, requests), strict=True):
            scores.append(j_and_f(rles, track.masks).jf)
            tokens.append(track.tokens_TD)
    return np.array(scores), np.concatenate(tokens)


def main() -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    exact, pooled = load_sam2("demo"), load_sam2("demo")
    pool_memory(pooled)
    (scores, tokens), (pooled_scores, pooled_tokens) = map(tracks_of_clips, (exact, pooled))
    similarity = F.cosine_similarity(*map(torch.from_numpy, (tokens, pooled_tokens)), dim=-1)
    print(
        f"embedded model, {len(scores)} objects: J&F {100 * scores.mean():.1f}, pooled "
        f"{100 * pooled_scores.mean():.1f}; cosine similarity of tokens "
        f"{similarity.mean():.3f}"
    )
    model, _ = models.random_tiny(1024)
    plain = statistics.median(seconds_per_step(model) for _ in range(2))
    pool_memory(model)
    cheap = statistics.median(seconds_per_step(model) for _ in range(2))
    print(f"memory attention at 1024: {plain:.1f} s, pooled {cheap:.1f} s ({plain / cheap:.2f}x)")


if __name__ == "__main__":
    main()
