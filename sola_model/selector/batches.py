"""Several videos and their expressions, padded to one size, for one step of the selector.

Padding changes nothing: what the selector gives for a batch is what it gives video by video.

Axes: V videos, N mask tracks, T frames, D token channels, E expressions of all videos together,
W words, C text channels.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Padded tokens and text with the real sizes of each video; make it with `pad_videos`.

    tokens_VNTD, text_EWC: zeros where padded. The expressions of a video stand together, in the
        order of the videos.
    words_EW: True for a word, False for padding.
    tracks, frames, expressions: N, T and number of expressions of each video, all at least 1.
    """

    tokens_VNTD: Tensor
    text_EWC: Tensor
    words_EW: Tensor
    tracks: tuple[int, ...]
    frames: tuple[int, ...]
    expressions: tuple[int, ...]

    @property
    def is_padded(self) -> bool:
        """Whether any video has fewer tracks or frames than another."""
        return len(set(self.tracks)) > 1 or len(set(self.frames)) > 1

    @property
    def video_E(self) -> Tensor:
        """The video of each expression, on the device of the tokens."""
        videos = [v for v, count in enumerate(self.expressions) for _ in range(count)]
        return torch.tensor(videos, device=self.tokens_VNTD.device)

    @property
    def tracks_VN(self) -> Tensor:
        """True for a track of the video, False for padding."""
        counts_V = torch.tensor(self.tracks, device=self.tokens_VNTD.device)
        return first(counts_V, self.tokens_VNTD.shape[1])

    @property
    def tracks_EN(self) -> Tensor:
        """The same for each expression: the tracks that it has a score with."""
        return self.tracks_VN[self.video_E]

    def of_own_video(self, x_EVN: Tensor) -> Tensor:
        """Of values for the tracks of every video those (E, N) of each expression's own video."""
        return x_EVN[torch.arange(len(x_EVN), device=x_EVN.device), self.video_E]

    def to(self, device: str | torch.device) -> "Batch":
        """The batch on another device; from pinned memory the copy does not wait."""
        moved = {
            name: getattr(self, name).to(device, non_blocking=True)
            for name in ("tokens_VNTD", "text_EWC", "words_EW")
        }
        return replace(self, **moved)


def pad_videos(videos: Sequence[tuple[Tensor, Sequence[Tensor]]]) -> Batch:
    """A batch of videos: of each its tokens_NTD and the features text_WC of its expressions.

    Tokens and texts stay on their device and keep their type. Raises ValueError for no videos and
    for a video without tracks, frames or expressions: leave it out, it has no scores.
    """
    for tokens_NTD, texts in videos:
        if tokens_NTD.ndim != 3 or 0 in tokens_NTD.shape or not texts:
            raise ValueError(
                f"A video with tokens of shape {tuple(tokens_NTD.shape)} and {len(texts)} "
                "expressions has no scores: give (tracks, frames, channels), each at least 1, and "
                "at least one expression, or leave the video out of the batch."
            )
    if not videos:
        raise ValueError("A batch of no videos: give at least one.")
    every_tokens = [tokens_NTD for tokens_NTD, _ in videos]
    tracks = tuple(len(tokens_NTD) for tokens_NTD in every_tokens)
    frames = tuple(tokens_NTD.shape[1] for tokens_NTD in every_tokens)
    shape = (len(videos), max(tracks), max(frames), every_tokens[0].shape[2])
    tokens_VNTD = every_tokens[0].new_zeros(shape)
    for padded_NTD, tokens_NTD in zip(tokens_VNTD, every_tokens, strict=True):
        padded_NTD[: tokens_NTD.shape[0], : tokens_NTD.shape[1]] = tokens_NTD
    text_EWC, words_EW = pad_texts([text_WC for _, texts in videos for text_WC in texts])
    return Batch(
        tokens_VNTD=tokens_VNTD,
        text_EWC=text_EWC,
        words_EW=words_EW,
        tracks=tracks,
        frames=frames,
        expressions=tuple(len(texts) for _, texts in videos),
    )


def pad_texts(texts: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Stack expressions of shape (W, C) into text_EWC, zeros at the end, and its words_EW."""
    text_EWC = nn.utils.rnn.pad_sequence(list(texts), batch_first=True)
    words_E = torch.tensor([len(text) for text in texts], device=text_EWC.device)
    return text_EWC, first(words_E, text_EWC.shape[1])


def first(counts_B: Tensor, size: int) -> Tensor:
    """A mask (B, size): True in the first `counts_B[b]` places of row b."""
    return torch.arange(size, device=counts_B.device) < counts_B[:, None]
