"""Encoding once, reading ahead, spilling features, and going on when memory runs out."""

import logging
import threading

import numpy as np
import pytest
import torch
from pycocotools import mask as coco

from sola_model import memory
from sola_model.extraction import encoding
from sola_model.extraction.encoding import EncodedVideo, read_ahead
from sola_model.extraction.engine import Background, Engine
from sola_model.extraction.prompts import grid_prompts
from sola_model.extraction.propagation import Request, propagate
from sola_model.extraction.sam2_models import load_sam2
from sola_model.extraction.tracks import track_prompts
from sola_model.masks.rle import encode_masks
from sola_model.recipes import DEMO
from warehouse.demo_data import random_scene, render_frames


@pytest.fixture
def model():
    return load_sam2("demo")


@pytest.fixture(scope="module")
def clip():
    """Frames_THW3 and masks_NTHW of 18 frames."""
    return render_frames(random_scene(np.random.default_rng(5), 18))


def requests(video: EncodedVideo, masks_NTHW: np.ndarray, *frames: int) -> list[Request]:
    return [
        Request(video, t, encode_masks(torch.from_numpy(masks_THW[t : t + 1].astype(bool)))[0])
        for t in frames
        for masks_THW in masks_NTHW
    ]


def assert_same(some, others) -> None:
    for one, other in zip(some, others, strict=True):
        np.testing.assert_allclose(one.tokens_TD, other.tokens_TD, atol=1e-4)
        overlap = coco.iou(one.masks, other.masks, [0] * len(one.masks)).diagonal()
        empty = [not coco.area(a) and not coco.area(b)
                 for a, b in zip(one.masks, other.masks, strict=True)]  # fmt: skip
        assert all((overlap > 0.99) | empty)


def test_every_frame_is_encoded_once(model, clip):
    calls = []
    model.image_encoder.register_forward_hook(lambda *_: calls.append(1))
    video = EncodedVideo(model, clip[0])
    extracted = track_prompts(
        model, video, grid_prompts(model, video, DEMO.extraction.grid), DEMO.extraction
    )
    assert len(extracted.tracks) > 2
    assert len(calls) == len(video) == 18


def test_prompt_frames_are_encoded_again_for_features_of_their_own(model, clip):
    """For prompts alone: what is tracked does not change."""
    calls = []
    model.image_encoder.register_forward_hook(lambda *_: calls.append(1))
    video = EncodedVideo(model, clip[0], prompt_features="image")
    grid_prompts(model, video, DEMO.extraction.grid)
    assert len(calls) == 18 + len(range(0, 18, 4))
    wanted = requests(video, clip[1], 4)
    shared = requests(EncodedVideo(model, clip[0]), clip[1], 4)
    for one, other in zip(propagate(model, wanted), propagate(model, shared), strict=True):
        assert one.masks == other.masks
        np.testing.assert_array_equal(one.tokens_TD, other.tokens_TD)


def test_objects_do_not_see_their_batch_mates(model, clip):
    video = EncodedVideo(model, clip[0])
    wanted = requests(video, clip[1], 4, 14)
    together = propagate(model, wanted, Engine(objects=64))
    assert_same(together, [propagate(model, [request])[0] for request in wanted])
    assert_same(together, propagate(model, wanted, Engine(objects=3)))


def test_features_that_do_not_fit_are_made_again_and_give_the_same_tracks(model, clip):
    calls = []
    model.image_encoder.register_forward_hook(lambda *_: calls.append(1))
    kept = propagate(model, requests(EncodedVideo(model, clip[0]), clip[1], 4, 8))
    assert len(calls) == 18
    narrow = EncodedVideo(model, clip[0], Engine(feature_bytes=200_000))
    again = propagate(model, requests(narrow, clip[1], 4, 8))
    # Three fit. Objects of a frame pass the others together, those of another frame apart.
    assert len(calls) == 18 + 18 + 2 * (18 - 3)
    for one, other in zip(kept, again, strict=True):
        assert one.masks == other.masks
        np.testing.assert_array_equal(one.tokens_TD, other.tokens_TD)


def test_features_take_half_of_the_hosts_free_memory_at_most(model, clip, monkeypatch):
    """Also where others take of it meanwhile."""
    features = EncodedVideo(model, clip[0][:1])._features[0]
    size = sum(level.nbytes for level in features)
    left = iter([100 * size, 4 * size, 3 * size, *[8 * size] * 15])
    monkeypatch.setattr(encoding, "free_memory", lambda: next(left))
    video = EncodedVideo(model, clip[0])
    assert sorted(video._features) == [0, 1, 3, 4]
    assert sorted(video._images_SS3) == [2, *range(5, 18)]


def test_frames_can_be_encoded_when_they_are_needed(model, clip):
    """Once each; what comes out is the same."""
    expected = propagate(model, requests(EncodedVideo(model, clip[0]), clip[1], 4))
    calls = []
    model.image_encoder.register_forward_hook(lambda *_: calls.append(1))
    video = EncodedVideo(model, clip[0], at_once={4, 9})
    assert (len(video), video.size, len(calls)) == (18, clip[0][0].shape[:2], 2)
    for _ in range(2):
        found = propagate(model, requests(video, clip[1], 4))
        assert len(calls) == 18
        for one, other in zip(found, expected, strict=True):
            assert one.masks == other.masks
            np.testing.assert_array_equal(one.tokens_TD, other.tokens_TD)


def test_out_of_memory_halves_the_batch_and_goes_on(model, clip, monkeypatch, caplog):
    """Every batch of more than three objects fails, at first in the middle of a run."""
    video = EncodedVideo(model, clip[0])
    wanted = requests(video, clip[1], 4, 8)
    expected = propagate(model, wanted)
    track_step, sizes = model.track_step, []

    def limited(**arguments):
        size = arguments["current_vision_feats"][-1].shape[1]
        sizes.append(size)
        if size > 3 and len(sizes) > 12:
            raise torch.OutOfMemoryError("injected")
        return track_step(**arguments)

    monkeypatch.setattr(memory, "_found", {})  # the process would remember what fits
    monkeypatch.setattr(model, "track_step", limited)
    with caplog.at_level(logging.WARNING):
        produced = propagate(model, wanted)
    assert max(sizes) == len(wanted) == 8
    assert sizes[-1] <= 3
    assert [r.getMessage() for r in caplog.records] == [
        "out of memory with 8 objects, going on with 4",
        "out of memory with 4 objects, going on with 2",
    ]
    assert_same(produced, expected)


def test_out_of_memory_with_one_object_is_an_error(model, clip, monkeypatch):
    def fail(**_):
        raise torch.OutOfMemoryError("injected")

    video = EncodedVideo(model, clip[0])
    monkeypatch.setattr(model, "track_step", fail)
    alone = requests(video, clip[1], 4)[:1]
    with pytest.raises(torch.OutOfMemoryError, match=r"batch of 1 \(objects\).*injected"):
        propagate(model, alone)


def test_only_memory_that_can_still_be_read_is_kept(model, monkeypatch):
    """Of a long video: the prompt frame, the last frames, and the first ones after the prompt."""
    frames_THW3, masks_NTHW = render_frames(random_scene(np.random.default_rng(5), 48))
    video = EncodedVideo(model, frames_THW3)
    track_step, kept = model.track_step, []

    def watched(**arguments):
        outputs = arguments["output_dict"]["non_cond_frame_outputs"]
        masks = sum(o["maskmem_features"] is not None for o in outputs.values())
        kept.append((masks, len(outputs)))
        return track_step(**arguments)

    monkeypatch.setattr(model, "track_step", watched)
    propagate(model, requests(video, masks_NTHW, 16)[:1])
    assert max(masks for masks, _ in kept) == 11
    assert max(count for _, count in kept) == 29
    assert kept[-1] == (6, 15)


def test_frames_of_mixed_size_are_an_error(model, clip):
    frames_HW3 = [*clip[0][:3], clip[0][3][:, :100]]
    with pytest.raises(ValueError, match=r"frame 3 is 100x112 .* but the first is 144x112"):
        EncodedVideo(model, frames_HW3)
    assert not reading()


def test_an_error_while_reading_frames_is_passed_on(model, clip):
    def truncated():
        yield from clip[0][:2]
        raise EOFError("the video ends at frame 2")

    with pytest.raises(EOFError, match="ends at frame 2"):
        EncodedVideo(model, truncated())
    assert not reading()


def test_reading_ahead_is_bounded_and_stops_with_its_reader():
    taken = []

    def items():
        for n in range(100):
            taken.append(n)
            yield n

    reader = read_ahead(items(), 3)
    assert [next(reader), next(reader)] == [0, 1]
    reader.close()
    assert not reading()
    assert len(taken) <= 2 + 3 + 1
    assert list(read_ahead(range(10), 2)) == list(range(10))


def reading() -> bool:
    return any(thread.name == "frames" for thread in threading.enumerate())


def test_what_fails_in_the_background_is_raised():
    def fail() -> None:
        raise OSError("injected")

    with pytest.raises(OSError, match="injected"), Background() as background:
        background.call(fail)


@pytest.mark.parametrize("wrong", [{"objects": 0}, {"frames_ahead": 0}, {"feature_bytes": -1}])
def test_engine_settings_that_cannot_be(wrong):
    with pytest.raises(ValueError, match="must be at least 1"):
        Engine(**wrong)
