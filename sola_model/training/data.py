"""What the selector is trained on: frozen inputs and pseudo-labels, video by video, and batches.

Axes as in `sola_model.selector.batches`.
"""

import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from sola_model.selector.batches import Batch, pad_videos

Item = TypeVar("Item")
Loaded = TypeVar("Loaded")
Part = Sequence[tuple[int, Sequence[int]]]
"""Expressions that are computed together: (video, some of its expressions), by index."""


@dataclass(frozen=True, kw_only=True)
class TrainingVideo:
    """One video's frozen inputs and its pseudo-labels; tensors may lie in a memory-mapped file.

    tokens_NTD: any float type. texts: features (W, C) of each expression. labels_EN: 1 for a
    positive track, else 0.
    """

    video_id: str
    tokens_NTD: Tensor
    texts: Sequence[Tensor]
    labels_EN: Tensor

    def __post_init__(self) -> None:
        expected = (len(self.texts), len(self.tokens_NTD))
        if tuple(self.labels_EN.shape) != expected:
            raise ValueError(
                f"Video {self.video_id}: labels have shape {tuple(self.labels_EN.shape)}, "
                f"its expressions and tracks ask for {expected}."
            )
        if not ((self.labels_EN == 0) | (self.labels_EN == 1)).all():
            raise ValueError(
                f"Video {self.video_id}: labels must be 0 or 1; compare mIoU with the recipe's "
                "label_threshold first."
            )


def usable(videos: Sequence[TrainingVideo]) -> list[TrainingVideo]:
    """The videos that have tracks and expressions."""
    return [video for video in videos if video.labels_EN.numel()]


def describe(videos: Sequence[TrainingVideo]) -> str:
    """The training data in a line: counts, and a checksum of video ids and labels."""
    checksum = 0
    for video in videos:
        checksum = zlib.crc32(video.video_id.encode(), checksum)
        checksum = zlib.crc32(video.labels_EN.bool().cpu().numpy().tobytes(), checksum)
    return (
        f"{len(videos)} videos with tracks and expressions, "
        f"{sum(len(v.texts) for v in videos)} expressions, "
        f"{sum(v.labels_EN.numel() for v in videos)} pairs of expression and track, "
        f"{sum(int(v.labels_EN.sum()) for v in videos)} of them positive (checksum {checksum:08x})"
    )


def load_part(videos: Sequence[TrainingVideo], part: Part) -> tuple[Batch, Tensor]:
    """The batch of some expressions of some videos, text in float32, and its labels_EN."""
    batch = pad_videos(
        [
            (videos[v].tokens_NTD, [videos[v].texts[e].float() for e in expressions])
            for v, expressions in part
        ]
    )
    labels_EN = torch.zeros(len(batch.text_EWC), batch.tokens_VNTD.shape[1])
    rows = iter(labels_EN)
    for v, expressions in part:
        for e in expressions:
            next(rows)[: videos[v].labels_EN.shape[1]] = videos[v].labels_EN[e]
    return batch, labels_EN


def prefetch(
    load: Callable[[Item], Loaded], items: Iterable[Item], ahead: int = 2
) -> Iterator[Loaded]:
    """`load(item)` of every item in order, `ahead` of them made by a thread while others wait."""
    with ThreadPoolExecutor(1) as pool:
        pending: deque[Future[Loaded]] = deque()
        for item in items:
            pending.append(pool.submit(load, item))
            if len(pending) > ahead:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
