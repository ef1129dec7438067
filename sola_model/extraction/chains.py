"""Chains of prompt masks, replayed in the release's order: which are propagated, which left out.

Prompts in order of area, largest first. The first pending one is propagated, together with other
pending ones of its frame; then every prompt that a new track covers at the prompt's own frame is
filtered. There is no check inside a batch.
"""

from collections import defaultdict
from collections.abc import Generator, Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

import numpy as np

from sola_model.extraction.encoding import EncodedVideo
from sola_model.extraction.prompts import PromptMask
from sola_model.extraction.propagation import Propagated, Request
from sola_model.masks.compared import at_compared_size, pairwise_iou
from sola_model.masks.runs import RLE
from sola_model.recipes import Extraction

LONG_VIDEO = 200  # frames beyond which batches are halved

# Yields the prompt masks to propagate next, is sent their propagations, returns a result.
Replay = Generator[list[Request], list[Propagated], Any]


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """A prompt mask and its fate.

    "tracked": it became track `track_id`; "filtered": track `track_id` covers it at IoU `iou`;
    "unused": extraction had stopped before its turn.
    """

    mask: PromptMask
    fate: str = "unused"
    track_id: int | None = None
    iou: float | None = None


@dataclass(frozen=True, kw_only=True)
class MaskTrack:
    """One mask (COCO RLE at the video's size) and one object token per frame."""

    prompt_id: int
    masks: list[RLE]
    tokens_TD: np.ndarray


class Chain:
    """Prompts that filter each other, and the tracks they become.

    Prompt ids and track ids count from 0, or track ids from `first_track` in a shared replay.
    """

    def __init__(
        self, video: EncodedVideo, masks: Iterable[PromptMask], settings: Extraction
    ) -> None:
        self.video, self.settings = video, settings
        self.batch = settings.batch if len(video) <= LONG_VIDEO else max(1, settings.batch // 2)
        self.prompts = [Prompt(mask=mask) for mask in sorted(masks, key=lambda m: -m.area)]
        self.tracks: list[MaskTrack] = []
        self.first_track = 0
        self._compared = [at_compared_size([p.mask.rle], nearest=True) for p in self.prompts]

    def replay(self) -> Replay:
        """Grid prompts and ground truth: batch mates are looked for in the whole list."""
        limit = self.settings.max_tracks
        while (pending := self._pending()) and len(self.tracks) < limit:
            frame = self._frame(pending[0])
            mates = [i for i in pending if self._frame(i) == frame]
            yield from self._propagate(mates[: min(self.batch, limit - len(self.tracks))], pending)

    def replay_boxes(self) -> Replay:
        """Boxes of one expression: the first prompt of another frame ends the batch.

        So does a batch of half of what the limit leaves: the release counts its members twice.
        """
        limit = self.settings.boxes.max_tracks
        while (pending := self._pending()) and (room := limit - len(self.tracks)) > 0:
            _, mates = next(groupby(pending, self._frame))
            yield from self._propagate([*mates][: min(self.batch, (room + 1) // 2)], pending)

    def replay_shared(self, known: Mapping[int, list[RLE]], first_track: int) -> Replay:
        """Boxes of all expressions: what is covered by a known track, or by a mate, waits.

        An expression has the tracks that its prompts became and those that filtered them; when
        these are `boxes.max_tracks` or more, its other prompts stay unused.

        Args:
            known: by track id the masks of tracks that leave out boxes.
            first_track: id of the first new track.
        """
        self.first_track = first_track
        self._filter(known, self._pending())
        while pending := self._pending_with_room():
            frame = self._frame(pending[0])
            chosen: list[int] = []
            for i in pending:
                if len(chosen) < self.batch and self._frame(i) == frame:
                    mates = [self._compared[j] for j in chosen]
                    limit = self.settings.duplicate_iou
                    if not mates or pairwise_iou([self._compared[i]], mates, limit).max() <= limit:
                        chosen.append(i)
            yield from self._propagate(chosen, pending)

    def _frame(self, i: int) -> int:
        return self.prompts[i].mask.frame_index

    def _pending(self) -> list[int]:
        return [i for i, prompt in enumerate(self.prompts) if prompt.fate == "unused"]

    def _pending_with_room(self) -> list[int]:
        tracks = defaultdict(set)
        for prompt in self.prompts:
            if prompt.track_id is not None:
                tracks[prompt.mask.expression_id].add(prompt.track_id)
        limit = self.settings.boxes.max_tracks
        return [
            i for i in self._pending() if len(tracks[self.prompts[i].mask.expression_id]) < limit
        ]

    def _propagate(self, chosen: list[int], pending: list[int]) -> Replay:
        masks = [self.prompts[i].mask for i in chosen]
        produced = yield [Request(self.video, mask.frame_index, mask.rle) for mask in masks]
        new = {}
        for i, result in zip(chosen, produced, strict=True):
            track_id = self.first_track + len(self.tracks)
            self.prompts[i] = replace(self.prompts[i], fate="tracked", track_id=track_id)
            self.tracks.append(
                MaskTrack(prompt_id=i, masks=result.masks, tokens_TD=result.tokens_TD)
            )
            new[track_id] = result.masks
        self._filter(new, set(pending) - set(chosen))

    def _filter(self, tracks: Mapping[int, list[RLE]], pending: Iterable[int]) -> None:
        """Filter the pending prompts that one of these tracks covers at their frame."""
        if not tracks:
            return
        by_frame = defaultdict(list)
        for i in sorted(pending):
            by_frame[self._frame(i)].append(i)
        limit = self.settings.duplicate_iou
        for frame, here in by_frame.items():
            made = at_compared_size([masks[frame] for masks in tracks.values()], nearest=False)
            iou_PN = pairwise_iou([self._compared[i] for i in here], [made], limit)
            for i, iou_N in zip(here, iou_PN, strict=True):
                covering = np.nonzero(iou_N > limit)[0]
                if len(covering):
                    self.prompts[i] = replace(
                        self.prompts[i],
                        fate="filtered",
                        track_id=list(tracks)[covering[0]],
                        iou=float(iou_N[covering[0]]),
                    )
