"""Selecting tracks without a warehouse."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from pycocotools import mask as coco

import sola_model
from sola_model.extraction.chains import MaskTrack
from sola_model.extraction.tracks import VideoTracks
from sola_model.masks.geometry import CHANNELS
from sola_model.recipes import DEMO, DEMO_RELEASE
from sola_model.selector.base import Selector
from sola_model.selector.inference import select, track_features
from sola_model.selector.modules import new_selector
from sola_model.text.encoder import TextEncoder

RNG = np.random.default_rng(0)
SIZE, FRAMES = (20, 30), 6
FIXED = replace(DEMO, tau=0.5)


def video_tracks(count: int) -> VideoTracks:
    masks_NTHW = RNG.random((count, FRAMES, *SIZE)) > 0.9
    tracks = [
        MaskTrack(
            prompt_id=n,
            masks=[coco.encode(np.asfortranarray(m, np.uint8)) for m in masks_THW],
            tokens_TD=RNG.normal(size=(FRAMES, 64)).astype(np.float32),
        )
        for n, masks_THW in enumerate(masks_NTHW)
    ]
    return VideoTracks(size=SIZE, prompts=[], tracks=tracks)


@pytest.fixture(params=[DEMO, DEMO_RELEASE], ids=lambda recipe: recipe.name)
def selector(request: pytest.FixtureRequest) -> Selector:
    torch.manual_seed(0)
    return new_selector(request.param.selector).eval()


def test_what_scores_above_tau_is_merged(selector: Selector) -> None:
    tracks, encoder = video_tracks(4), TextEncoder("demo")
    scores_EN, _ = select(selector, encoder, tracks, ["the red circle", "a bar"], FIXED)
    assert scores_EN.shape == (2, 4)
    ordered = np.sort(scores_EN[0])
    tau = float(ordered[1:3].mean())
    recipe = replace(FIXED, tau=tau)
    _, masks_ET = select(selector, encoder, tracks, ["the red circle", "a bar"], recipe)
    chosen = np.flatnonzero(scores_EN[0] > tau)
    assert len(chosen) == 2
    for t, rle in enumerate(masks_ET[0]):
        expected = np.any([coco.decode(tracks.tracks[n].masks[t]) for n in chosen], axis=0)
        np.testing.assert_array_equal(coco.decode(rle) > 0, expected)


def test_tokens_are_those_of_the_warehouse_with_geometry_if_asked_for() -> None:
    tracks = video_tracks(2)
    pointers_NTD = track_features(tracks, "pointer")
    given_NTD = np.stack([track.tokens_TD for track in tracks.tracks])
    np.testing.assert_array_equal(pointers_NTD, given_NTD.astype(np.float16).astype(np.float32))
    both_NTD = track_features(tracks, "pointer+geometry")
    assert both_NTD.shape == (2, FRAMES, 64 + CHANNELS)
    np.testing.assert_array_equal(both_NTD[..., :64], pointers_NTD)


def test_a_video_without_tracks_has_no_masks(selector: Selector) -> None:
    found = select(selector, TextEncoder("demo"), video_tracks(0), ["the red circle"], FIXED)
    assert found.scores_EN.shape == (1, 0) and found.masks_ET == [[]]


def test_a_tau_that_is_not_chosen_yet_is_refused(selector: Selector) -> None:
    with pytest.raises(ValueError, match=r"recipe 'demo' has no tau.*column config"):
        select(selector, TextEncoder("demo"), video_tracks(2), ["the red circle"], DEMO)


def test_names_for_notebooks() -> None:
    for name in sola_model.__all__:
        assert callable(getattr(sola_model, name))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = sola_model.nothing
