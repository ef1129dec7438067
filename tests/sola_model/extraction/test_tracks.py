"""Which prompts become tracks, shared box tracks, and odd videos and prompts."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from pycocotools import mask as coco

from sola_model.extraction import tracks
from sola_model.extraction.encoding import EncodedVideo
from sola_model.extraction.prompts import PromptMask
from sola_model.extraction.propagation import propagate
from sola_model.extraction.sam2_models import load_sam2
from sola_model.extraction.tracks import VideoTracks, extract_tracks, track_prompts
from sola_model.masks.rle import encode_masks
from sola_model.recipes import DEMO, BoxPrompts, Extraction, GridPrompts
from warehouse.demo_data import random_scene, render_frames

SHARED = Extraction(boxes=BoxPrompts(shared=True))


@pytest.fixture(scope="module")
def model():
    return load_sam2("demo")


def clip(seed: int, frames: int):
    """frames_THW3 and masks_NTHW of a random scene."""
    scene = random_scene(np.random.default_rng(seed), max(frames, 8))
    return render_frames(scene, range(frames))


def rle(mask_HW: np.ndarray) -> dict:
    return encode_masks(torch.from_numpy(mask_HW[None].astype(bool)))[0]


def prompt(mask_HW: np.ndarray, frame_index: int, **others) -> PromptMask:
    fields = {"source": "mask", "predicted_iou": None, "stability": None} | others
    return PromptMask(
        frame_index=frame_index, rle=rle(mask_HW), area=int((mask_HW > 0).sum()), **fields
    )


def test_grid_prompts_become_tracks_of_the_objects(model):
    frames_THW3, masks_NTHW = clip(11, 16)
    extracted = extract_tracks(model, frames_THW3, DEMO.extraction)
    assert {p.fate for p in extracted.prompts} >= {"tracked", "filtered"}
    areas = [p.mask.area for p in extracted.prompts]
    assert areas == sorted(areas, reverse=True)
    for object_THW in masks_NTHW:
        overlap = [
            coco.iou(track.masks, [rle(m) for m in object_THW], [0] * len(object_THW)).diagonal()
            for track in extracted.tracks
        ]
        assert max(np.mean(o) for o in overlap) > 0.6
    for prompt in extracted.prompts:
        if prompt.fate == "filtered":
            track = extracted.tracks[prompt.track_id]
            iou = coco.iou([track.masks[prompt.mask.frame_index]], [prompt.mask.rle], [0])[0, 0]
            assert prompt.iou > DEMO.extraction.duplicate_iou
            assert iou == pytest.approx(prompt.iou, abs=0.1)  # compared at another size


def test_extraction_stops_at_the_limit_and_marks_the_rest_unused(model):
    frames_THW3, masks_NTHW = clip(5, 8)
    video = EncodedVideo(model, frames_THW3)
    prompts = [prompt(mask_THW[t], t) for mask_THW in masks_NTHW for t in (0, 4)]
    settings = Extraction(max_tracks=1, duplicate_iou=2.0)
    fates = [p.fate for p in track_prompts(model, video, prompts, settings).prompts]
    assert fates == ["tracked"] + ["unused"] * (len(prompts) - 1)


def test_no_prompts_give_no_tracks(model):
    grey = np.full((3, 90, 120, 3), 127, np.uint8)
    strict = Extraction(grid=GridPrompts(points_per_side=4, predicted_iou=0.999))
    extracted = extract_tracks(model, grey, strict)
    assert (extracted.prompts, extracted.tracks, extracted.size) == ([], [], (90, 120))


def test_a_video_without_frames_is_an_error(model):
    with pytest.raises(ValueError, match="no frames"):
        extract_tracks(model, [], DEMO.extraction)


def test_portrait_videos(model):
    frames_THW3, _ = clip(3, 6)
    portrait = np.ascontiguousarray(frames_THW3.swapaxes(1, 2))
    extracted = extract_tracks(model, portrait, DEMO.extraction)
    assert extracted.size == portrait.shape[1:3]
    assert all(r["size"] == [144, 112] for track in extracted.tracks for r in track.masks)


def box_masks(masks_NTHW: np.ndarray, *expressions: str) -> list[PromptMask]:
    """Each expression has found the same objects on the same frames."""
    return [
        prompt(masks_THW[t], t, source="box", expression_id=expression_id)
        for expression_id in expressions
        for masks_THW in masks_NTHW
        for t in (0, 4, 8)
        if masks_THW[t].any()
    ]


def tracks_of(extracted: VideoTracks, expression_id: str) -> set[int]:
    return {
        p.track_id for p in extracted.prompts
        if p.mask.expression_id == expression_id and p.track_id is not None
    }  # fmt: skip


def test_shared_boxes_propagate_each_object_once(model):
    frames_THW3, masks_NTHW = clip(5, 12)
    video = EncodedVideo(model, frames_THW3)
    prompts = box_masks(masks_NTHW, "a", "b", "c")
    alone = track_prompts(model, video, box_masks(masks_NTHW, "a"), Extraction())
    apart = track_prompts(model, video, prompts, Extraction())
    assert len(apart.tracks) == 3 * len(alone.tracks)
    together = track_prompts(model, video, prompts, SHARED)
    assert len(together.tracks) == len(alone.tracks)
    assert tracks_of(together, "a") == tracks_of(together, "b") == tracks_of(together, "c")
    assert all(p.fate != "unused" for p in together.prompts)


def test_shared_boxes_of_objects_that_the_grid_found_need_no_track(model):
    frames_THW3, masks_NTHW = clip(5, 12)
    video = EncodedVideo(model, frames_THW3)
    boxes = box_masks(masks_NTHW, "a", "b")
    found = [replace(p, source="grid", expression_id=None) for p in box_masks(masks_NTHW, "a")]
    before = track_prompts(model, video, found, SHARED)
    together = track_prompts(model, video, boxes + found, SHARED)
    assert [p.mask.source for p in together.prompts] == ["grid"] * len(found) + ["box"] * len(boxes)
    assert len(together.tracks) == len(before.tracks)
    assert {p.fate for p in together.prompts if p.mask.source == "box"} == {"filtered"}

    existing = [track.masks for track in before.tracks]
    later = track_prompts(model, video, boxes, SHARED, existing)
    assert later.tracks == []
    assert later.prompts == together.prompts[len(found) :]
    one_hidden = track_prompts(model, video, boxes, SHARED, [None, *existing[1:]])
    assert len(one_hidden.tracks) == 1
    assert {p.track_id for p in one_hidden.prompts if p.fate == "tracked"} == {len(existing)}


def test_ids_go_on_from_existing_tracks(model):
    frames_THW3, masks_NTHW = clip(5, 6)
    video = EncodedVideo(model, frames_THW3)
    prompts = [prompt(masks_NTHW[0, 0], 0, source="box", expression_id="a")]
    extracted = track_prompts(model, video, prompts, Extraction(), [None] * 7)
    assert [p.track_id for p in extracted.prompts] == [7]


def test_an_expression_stops_at_its_limit_of_shared_tracks(model):
    frames_THW3, masks_NTHW = clip(5, 6)
    video = EncodedVideo(model, frames_THW3)
    settings = Extraction(boxes=BoxPrompts(shared=True, max_tracks=1), batch=1)
    prompts = [prompt(masks_THW[0], 0, source="box", expression_id="a") for masks_THW in masks_NTHW]
    extracted = track_prompts(model, video, prompts, settings)
    assert [p.fate for p in extracted.prompts] == ["tracked"] + ["unused"] * (len(prompts) - 1)


def test_batches_shrink_near_the_limit_of_boxes(model, monkeypatch):
    """The release counts the members of a batch twice there, and filters between batches."""
    frames_THW3, masks_NTHW = clip(5, 2)
    video = EncodedVideo(model, frames_THW3)
    prompts = [prompt(masks_NTHW[0, 0], 0, source="box", expression_id="a")] * 9
    batches = []
    monkeypatch.setattr(
        tracks, "propagate", lambda *args: batches.append(len(args[1])) or propagate(*args)
    )
    settings = Extraction(boxes=BoxPrompts(max_tracks=8), duplicate_iou=2.0)
    track_prompts(model, video, prompts, settings)
    assert batches == [4, 2, 1, 1]


def test_a_prompt_that_covers_everything(model):
    frames_THW3, _ = clip(5, 6)
    video = EncodedVideo(model, frames_THW3)
    full, empty = np.ones(video.size), np.zeros(video.size)
    extracted = track_prompts(model, video, [prompt(full, 2), prompt(empty, 0)], Extraction())
    whole, nothing = extracted.tracks
    assert coco.area(whole.masks[2]) == full.size
    assert coco.area(nothing.masks[0]) == 0
    assert np.isfinite(whole.tokens_TD).all() and np.isfinite(nothing.tokens_TD).all()


@pytest.mark.parametrize("frame_index", [6, -1])
def test_a_prompt_on_a_frame_that_does_not_exist(model, frame_index):
    frames_THW3, masks_NTHW = clip(5, 6)
    video = EncodedVideo(model, frames_THW3)
    wrong = prompt(masks_NTHW[0, 0], frame_index)
    with pytest.raises(ValueError, match=f"frame {frame_index}: the video has frames 0 to 5"):
        track_prompts(model, video, [prompt(masks_NTHW[0, 0], 0), wrong], Extraction())


def test_a_prompt_of_another_size(model):
    frames_THW3, masks_NTHW = clip(5, 6)
    video = EncodedVideo(model, frames_THW3)
    wrong = prompt(masks_NTHW[0, 0].T, 0)
    with pytest.raises(ValueError, match=r"\(144, 112\), the video \(112, 144\)"):
        track_prompts(model, video, [wrong], Extraction())


@pytest.mark.parametrize("settings", [
    lambda: BoxPrompts(stability=1.5), lambda: BoxPrompts(max_tracks=0),
    lambda: Extraction(batch=0), lambda: GridPrompts(stride=0),
    lambda: GridPrompts(frames="thirds"), lambda: Extraction(prompt_features="bicubic"),
])  # fmt: skip
def test_settings_that_cannot_be(settings):
    with pytest.raises(ValueError, match=r"must|choose"):
        settings()
