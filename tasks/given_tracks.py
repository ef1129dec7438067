"""Mask tracks that are given, made by any method, as the tables of the stage "precompute"."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from pycocotools import mask as coco

from sola_model.extraction.chains import MaskTrack, Prompt
from sola_model.extraction.prompts import PromptMask
from sola_model.extraction.tracks import VideoTracks
from sola_model.metrics.jf import RLE, empty_rle
from tasks.tables import track_tables
from tasks.track_sets import GIVEN
from warehouse import TABLES, Key


def given_tables(
    key: Key,
    tracks: Sequence[Sequence[RLE | None]],
    size: tuple[int, int],
    tokens_NTD: np.ndarray | None = None,
) -> dict[str, pa.Table]:
    """The tables of tracks that are each seen in some frame; None: nothing in this frame.

    What prompts a track is its mask in the first frame that has one.
    """
    prompts, found = [], []
    for n, masks in enumerate(tracks):
        first, prompt = next((t, rle) for t, rle in enumerate(masks) if rle is not None)
        mask = PromptMask(
            frame_index=first,
            source=GIVEN,
            rle=prompt,
            area=int(coco.area(prompt)),
            predicted_iou=None,
            stability=None,
        )
        prompts.append(Prompt(mask=mask, fate="tracked", track_id=n))
        tokens_TD = np.zeros((len(masks), 0)) if tokens_NTD is None else tokens_NTD[n]
        whole = [empty_rle(*size) if rle is None else rle for rle in masks]
        found.append(MaskTrack(prompt_id=n, masks=whole, tokens_TD=tokens_TD))
    tables = track_tables(key, VideoTracks(size=size, prompts=prompts, tracks=found))
    return tables if tokens_NTD is not None else tables | {"tokens": TABLES["tokens"].empty_table()}
