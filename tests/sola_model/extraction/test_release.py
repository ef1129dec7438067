"""Extraction equals the release's procedure, on clips of many shapes (`release_clips`)."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from pycocotools import mask as coco

from benchmarks import models
from sola_model.extraction.encoding import EncodedVideo
from sola_model.extraction.engine import Engine
from sola_model.extraction.prompts import (
    Box,
    PromptMask,
    box_prompts,
    grid_prompts,
    prompt_frames,
)
from sola_model.extraction.tracks import VideoTracks, track_prompts
from sola_model.parity import official
from sola_model.recipes import GridPrompts
from tests.sola_model.extraction.release_clips import (
    CLIPS,
    GOLDEN,
    Expected,
    ReleaseClip,
    expected,
)


@pytest.fixture(scope="module", params=CLIPS, ids=lambda clip: clip.name)
def extracted(request, tmp_path_factory) -> tuple[ReleaseClip, Expected, VideoTracks]:
    """A clip, what the release's procedure makes of it, and what ours does."""
    clip, (model, predictor) = request.param, models.demo_models()
    plain = expected(clip, predictor, tmp_path_factory.mktemp("frames"))
    video = EncodedVideo(model, plain.decoded, prompt_features=clip.settings.prompt_features)
    boxes = [
        Box(frame_index=t, xyxy=tuple(corners), score=0.5, expression_id="0")
        for t, corners in clip.boxes()
    ]
    prompts = grid_prompts(model, video, clip.settings.grid)
    # As many boxes at a time as the release decodes: all of a frame.
    prompts += box_prompts(model, video, boxes, clip.settings.boxes, engine=Engine(objects=500))
    return clip, plain, track_prompts(model, video, prompts, clip.settings)


def test_prompts_fates_masks_and_tokens_are_the_releases(extracted):
    _, plain, ours = extracted
    assert [(p.mask.source, p.mask.frame_index) for p in ours.prompts] == [
        (source, prompt.frame_index) for source, prompt in plain.prompts
    ]
    for prompt, (_, other) in zip(ours.prompts, plain.prompts, strict=True):
        np.testing.assert_array_equal(coco.decode(prompt.mask.rle), other.mask_HW)
    first = len(plain.tracks["grid"].masks)
    fates = [(first * (source == "box"), *fate)
             for source, tracks in plain.tracks.items() for fate in tracks.fates]  # fmt: skip
    for prompt, (shift, fate, track_id, iou) in zip(ours.prompts, fates, strict=True):
        assert prompt.fate == fate
        assert prompt.track_id == (None if track_id is None else shift + track_id)
        assert prompt.iou == (None if iou is None else pytest.approx(iou, abs=1e-6))
    made = [pair for tracks in plain.tracks.values()
            for pair in zip(tracks.masks, tracks.tokens, strict=True)]  # fmt: skip
    for track, (masks_THW, tokens_TD) in zip(ours.tracks, made, strict=True):
        np.testing.assert_array_equal([coco.decode(rle) for rle in track.masks], masks_THW)
        np.testing.assert_array_equal(track.tokens_TD, tokens_TD)


def test_golden_fates_of_golden_prompts(extracted):
    """Recorded once from the reference; other processors round differently."""
    clip, plain, _ = extracted
    golden, (model, _) = json.loads(GOLDEN.read_text())[clip.name], models.demo_models()
    masks = [
        PromptMask(
            frame_index=t,
            source=source,
            rle=rle,
            area=int(coco.area(rle)),
            predicted_iou=None,
            stability=None,
            expression_id="0" if source == "box" else None,
        )
        for source, t, counts in golden["prompts"]
        for rle in [{"size": list(clip.size), "counts": counts}]
    ]
    ours = track_prompts(model, EncodedVideo(model, plain.decoded), masks, clip.settings)
    grid = sum(p.fate == "tracked" and p.mask.source == "grid" for p in ours.prompts)
    assert [
        (p.fate, p.track_id if p.mask.source == "grid" or p.track_id is None else p.track_id - grid)
        for p in ours.prompts
    ] == [(fate, track_id) for fate, track_id, _ in golden["fates"]]
    ious = [p.iou or 0.0 for p in ours.prompts]
    np.testing.assert_allclose(ious, [iou for _, _, iou in golden["fates"]], rtol=0, atol=0.02)
    tokens = [track.tokens_TD.mean(0)[:8] for track in ours.tracks]
    np.testing.assert_allclose(tokens, golden["tokens"], rtol=0, atol=0.02)


def test_the_clips_reach_the_limit_and_every_fate():
    golden = json.loads(GOLDEN.read_text())
    assert {fate for clip in golden.values() for fate, _, _ in clip["fates"]} == {
        "tracked", "filtered", "unused"
    }  # fmt: skip


def test_the_reference_is_written_without_our_code():
    source = Path(official.__file__).read_text()
    ours = re.findall(
        r"^\s*(?:from|import) ((?:sola_model|tasks|flows|warehouse|benchmarks)\S*)", source, re.M
    )
    assert ours == ["sola_model.extraction.sam2_models"], "which hands on classes of the package"


@pytest.mark.parametrize(
    ("frame_count", "halves"),
    [(1, [0]), (2, [0, 1]), (3, [0, 1, 2]), (8, [0, 4]), (9, [0, 4, 8]), (200, [0, 100])],
)
def test_grid_frames_of_the_releases_evaluation(frame_count, halves):
    assert [*prompt_frames(frame_count, GridPrompts(frames="halves"))] == halves
    assert [*prompt_frames(frame_count, GridPrompts())] == [*range(0, frame_count, 4)]
