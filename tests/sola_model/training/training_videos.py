"""Small videos with a task that can be learned: what the tests of training train on."""

from dataclasses import replace

import torch

from sola_model.masks.geometry import CHANNELS
from sola_model.recipes import LossConfig, Recipe, SelectorConfig, TrainingConfig, TwoTowerConfig
from sola_model.text.words import with_words
from sola_model.training.data import TrainingVideo

TINY = Recipe(
    name="tiny",
    selector=SelectorConfig(token_dim=8, text_dim=16, layers=1, heads=2, negative_anchors=4),
    loss=LossConfig(),
    training=TrainingConfig(epochs=4, learning_rate=1e-3, expressions_per_step=2),
)

# The same task for the two-tower selector, which keeps some of the videos out.
TINY_TWO_TOWER = replace(
    TINY,
    name="tiny-two-tower",
    token_features="pointer+geometry",
    selector=TwoTowerConfig(token_dim=8 + CHANNELS, text_dim=16, vocabulary=20, width=16),
    loss=LossConfig(positive_weight=1.0, alignment_weight=0.0, contrast_weight=0.1),
)


def with_geometry_and_words(videos: list[TrainingVideo]) -> list[TrainingVideo]:
    """These videos as the two-tower selector reads them; geometry and words say nothing."""
    return [
        replace(
            video,
            tokens_NTD=torch.cat(
                [video.tokens_NTD, torch.ones(*video.tokens_NTD.shape[:2], CHANNELS)], dim=-1
            ),
            texts=[with_words(text_WC, torch.arange(len(text_WC))) for text_WC in video.texts],
        )
        for video in videos
    ]


def with_training(**changes) -> Recipe:
    return replace(TINY, training=replace(TINY.training, **changes))


def make_videos(count: int, seed: int, tracks: int = 4, expressions: int = 3):
    """Each expression names one of four directions; tracks moving its way are positive."""
    fixed = torch.Generator().manual_seed(99)
    words_KC = torch.randn(4, 16, generator=fixed)
    kinds_KD = torch.randn(4, 8, generator=fixed)
    generator = torch.Generator().manual_seed(seed)
    videos = []
    for v in range(count):
        track_N = torch.randint(4, (tracks,), generator=generator)
        said_E = torch.randint(4, (expressions,), generator=generator)
        noise_NTD = 0.3 * torch.randn(tracks, 9, 8, generator=generator)
        filler = [torch.randn(1 + e % 3, 16, generator=generator) for e in range(expressions)]
        videos.append(
            TrainingVideo(
                video_id=f"video{v}",
                tokens_NTD=kinds_KD[track_N][:, None] + noise_NTD,
                texts=[
                    torch.cat([0.1 * words_WC, words_KC[said][None]])
                    for words_WC, said in zip(filler, said_E, strict=True)
                ],
                labels_EN=said_E[:, None] == track_N,
            )
        )
    return videos
