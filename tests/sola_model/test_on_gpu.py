"""All that computes on a GPU, on a pretended one: results as on the CPU, nothing left on it.

The models are on cuda:1 while cuda:0 is the current one, so that a tensor that forgets where it
belongs meets others on another device.
"""

import logging
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from pycocotools import mask as coco

from sola_model import memory
from sola_model.detection.detector import Detector, detect, load_detector
from sola_model.extraction.encoding import EncodedVideo
from sola_model.extraction.engine import Engine
from sola_model.extraction.prompts import Box, PromptMask, box_prompts, grid_prompts
from sola_model.extraction.sam2_models import load_sam2
from sola_model.extraction.trackers import load_tracker
from sola_model.extraction.tracks import VideoTracks, track_prompts
from sola_model.recipes import DEMO, BoxPrompts, DetectorSettings, Recipe
from sola_model.selector.base import Selector
from sola_model.selector.checkpoints import new_selector
from sola_model.selector.inference import alignment_scores
from sola_model.selector.search import query_of, text_logits, track_vectors
from sola_model.text.encoder import TextEncoder
from sola_model.training.loop import Progress, Trained, train_selector
from sola_model.training.validation import calibrate, choose_tau
from tests.pretended_gpu import GPUs, OnGPU, pretended_gpus
from tests.sola_model.training.training_videos import (
    TINY,
    TINY_TWO_TOWER,
    make_videos,
    with_geometry_and_words,
)
from warehouse.demo_data import describe, random_scene, render_frames

GPU = "cuda:1"
SCENE = random_scene(np.random.default_rng(5), 8)
FRAMES_THW3 = render_frames(SCENE)[0]
TEXTS = [described.text for described in describe(SCENE, np.random.default_rng(0))]
SETTINGS = replace(DEMO.extraction, max_tracks=5)
GRID = replace(SETTINGS.grid, points_per_side=6, predicted_iou=0.5, stability=0.5)
BOXES = [
    Box(frame_index=t, xyxy=(10.0, 20.0, 60.0, 90.0 - t), score=0.5, expression_id=str(t))
    for t in (0, 0, 0, 4, 4)
]


@pytest.fixture(autouse=True)
def nothing_learnt(monkeypatch: pytest.MonkeyPatch) -> None:
    """What fits memory is remembered by the process: forget it."""
    monkeypatch.setattr(memory, "_found", {})


class Expected(NamedTuple):
    """What a CPU gives."""

    prompts: list[PromptMask]
    tracks: VideoTracks
    boxes: list[PromptMask]
    detections: list[list[list]]
    texts: list[list[torch.Tensor]]


@pytest.fixture(scope="module")
def expected() -> Expected:
    model = load_sam2("demo")
    video = EncodedVideo(model, FRAMES_THW3)
    prompts = grid_prompts(model, video, GRID)
    return Expected(
        prompts,
        track_prompts(model, video, prompts, SETTINGS),
        box_prompts(model, video, BOXES, BoxPrompts(stability=0)),
        boxes_of(load_detector("demo")),
        [TextEncoder("demo").encode(TEXTS, words=words) for words in (False, True)],
    )


@pytest.fixture
def gpus(expected: Expected) -> Iterator[GPUs]:
    """After what is expected, which imports what does not know of pretended devices."""
    with pretended_gpus(2) as pretended:
        yield pretended


def overlap(some: list, others: list) -> float:
    """The mean IoU of masks, 1 where both are empty."""
    both = [np.stack([coco.decode(a), coco.decode(b)]).astype(bool) for a, b in
            zip(some, others, strict=True)]  # fmt: skip
    return float(np.mean([ab.all(0).sum() / max(1, ab.any(0).sum()) if ab.any() else 1
                          for ab in both]))  # fmt: skip


@pytest.mark.parametrize(
    ("tracker", "feature_bytes", "prompt_features"),
    [
        ("sam2", None, "video"),
        ("sam2", 0, "video"),
        ("sam2", None, "image"),
        ("sam2_video", None, "video"),
    ],
)
def test_extraction(
    gpus: GPUs, expected: Expected, tracker: str, feature_bytes: int | None, prompt_features: str
) -> None:
    """In bfloat16: tokens differ from the CPU's by a few percent."""
    engine = Engine(feature_bytes=feature_bytes)
    model = load_tracker(tracker, "demo", GPU)
    network = getattr(model, "model", model)
    assert {str(p.device) for p in [*network.parameters(), *network.buffers()]} == {GPU}
    assert gpus.current == 0
    video = EncodedVideo(model, FRAMES_THW3, engine, prompt_features=prompt_features)
    on_gpu = [isinstance(level, OnGPU) for levels in video._features.values() for level in levels]
    assert on_gpu == [feature_bytes is None] * len(on_gpu)

    found = grid_prompts(model, video, GRID)
    assert len(found) == pytest.approx(len(expected.prompts), abs=2)
    boxes = box_prompts(model, video, BOXES, BoxPrompts(stability=0), engine=engine)
    assert overlap([p.rle for p in boxes], [p.rle for p in expected.boxes]) > 0.9

    gpus.waits.clear()
    made = track_prompts(model, video, expected.prompts, SETTINGS, engine=engine)
    # It goes on while another thread reads masks and tokens.
    assert waits_of(gpus, threading.current_thread().name) == Counter()
    assert waits_of(gpus, "ThreadPoolExecutor") != Counter()
    for track, other in zip(made.tracks, expected.tracks.tracks, strict=True):
        difference = np.linalg.norm(track.tokens_TD - other.tokens_TD)
        assert difference < 0.1 * np.linalg.norm(other.tokens_TD)
        assert overlap(track.masks, other.masks) > 0.9


def waits_of(gpus: GPUs, thread: str) -> Counter:
    """What made a thread wait, and where."""
    return Counter({k[:2]: n for k, n in gpus.waits.items() if k[2].startswith(thread)})


def boxes_of(detector: Detector) -> list[list[list]]:
    settings = DetectorSettings(short_side=112, long_side=144, box_threshold=0.2)
    frames = list(enumerate(FRAMES_THW3[:2]))
    found = detect(detector, frames, TEXTS, settings)
    return [[[*box.xyxy, box.score] for box in boxes] for _, each in found for boxes in each]


def test_detector(gpus: GPUs, expected: Expected) -> None:
    assert sum(map(len, expected.detections)) > 3
    for boxes, others in zip(
        boxes_of(load_detector("demo", GPU)), expected.detections, strict=True
    ):
        np.testing.assert_allclose(boxes, others, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("words", [False, True])
def test_text(gpus: GPUs, expected: Expected, words: bool) -> None:
    encoded = TextEncoder("demo", GPU).encode(TEXTS, words=words)
    for text_WC, other_WC in zip(encoded, expected.texts[words], strict=True):
        torch.testing.assert_close(text_WC, other_WC, atol=1e-4, rtol=1e-4)
        assert not isinstance(text_WC, OnGPU)


RECIPES = [
    pytest.param(TINY, False, id="release"),
    pytest.param(TINY_TWO_TOWER, True, id="two towers"),
]


def trained_on(recipe: Recipe, words: bool, checkpoint: Path, device: str, **how) -> Trained:
    how_long = {"epochs": 2, "expressions_per_step": 4, "videos_per_step": 2, "videos_at_once": 2}
    recipe = replace(recipe, training=replace(recipe.training, **how_long))
    videos = [make_videos(5, 0, expressions=3), make_videos(3, 1, expressions=3)]
    videos = [with_geometry_and_words(some) for some in videos] if words else videos
    judge = lambda v, e, selected: len(selected) / 10  # noqa: E731
    trained = train_selector(*videos, recipe, checkpoint, judge=judge, device=device, **how)
    choose_tau(trained.best, videos[1], recipe, judge, device)
    calibrate(trained.best, videos[1], recipe, device)
    return trained


@pytest.mark.parametrize(("recipe", "words"), RECIPES)
def test_training(gpus: GPUs, tmp_path: Path, recipe: Recipe, words: bool) -> None:
    expected = trained_on(recipe, words, tmp_path / "cpu.pt", "cpu")

    class Interrupted(Exception):
        pass

    def interrupt(progress: Progress) -> None:
        if progress.metrics:
            raise Interrupted

    checkpoint = tmp_path / "gpu.pt"
    with pytest.raises(Interrupted):
        trained_on(recipe, words, checkpoint, GPU, on_progress=interrupt)
    trained = trained_on(recipe, words, checkpoint, GPU)
    for selector in (trained.last, trained.best):
        assert {str(p.device) for p in selector.parameters()} == {GPU}
    losses = [[m.train_loss, m.validation_loss] for m in trained.metrics]
    others = [[m.train_loss, m.validation_loss] for m in expected.metrics]
    np.testing.assert_allclose(losses, others, rtol=1e-3)


@pytest.mark.parametrize(("recipe", "words"), RECIPES)
def test_inference_and_search(gpus: GPUs, recipe: Recipe, words: bool) -> None:
    (video,) = make_videos(1, 0, expressions=3)
    (video,) = with_geometry_and_words([video]) if words else [video]
    tokens_NTD = video.tokens_NTD.float().numpy()
    candidates_EN = np.ones((3, len(tokens_NTD)), bool)
    candidates_EN[0, 0] = False

    class Encoded:
        def encode(self, *_, **__) -> list[torch.Tensor]:
            return [text_WC.float() for text_WC in video.texts]

    def everything(selector: Selector) -> list[np.ndarray]:
        texts = Encoded().encode()
        query = query_of(selector, texts[0], texts)
        return [
            alignment_scores(selector, Encoded(), tokens_NTD, ["a", "b", "c"], candidates_EN),
            track_vectors(selector, tokens_NTD, texts),
            text_logits(selector, tokens_NTD, texts),
            *(part.numpy() for part in query.__dict__.values()),
        ]

    selector = new_selector(recipe.selector).eval()
    expected = everything(selector)
    for found, other in zip(everything(selector.to(GPU)), expected, strict=True):
        np.testing.assert_allclose(found, other, atol=1e-4)


def test_memory_that_ends_ends_no_work(gpus: GPUs, caplog: pytest.LogCaptureFixture) -> None:
    """Each kind of batch is halved until it fits, once in a process, and gives the same."""
    model, detector = load_sam2("demo", GPU), load_detector("demo", GPU)
    text = TextEncoder("demo", GPU)
    settings = DetectorSettings(short_side=112, long_side=144, box_threshold=0.2)
    video = EncodedVideo(model, FRAMES_THW3)
    prompts = grid_prompts(model, video, GRID)

    def detected() -> list:
        ((_, found),) = detect(detector, [(0, FRAMES_THW3[0])], TEXTS * 2, settings)
        return [[[*box.xyxy, box.score] for box in boxes] for boxes in found]

    work = {
        "points": (lambda: grid_prompts(model, video, GRID), lambda found: len(found)),
        "boxes": (
            lambda: box_prompts(model, video, [BOXES[0]] * 16, BoxPrompts(stability=0)),
            lambda found: [prompt.area for prompt in found],
        ),
        "objects": (
            lambda: track_prompts(model, video, prompts, SETTINGS),
            lambda made: [len(track.masks) for track in made.tracks],
        ),
        "captions": (detected, lambda found: np.concatenate([f for f in found if f]).round(2)),
        "texts": (lambda: text.encode(TEXTS * 2), lambda found: [len(each) for each in found]),
    }
    for what, (make, seen) in work.items():
        gpus.largest, gpus.seen = float("inf"), 0
        expected = seen(make())
        gpus.largest = 0.7 * gpus.seen
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            np.testing.assert_array_equal(seen(make()), expected)
            assert [f" {what}, going on with " in r.getMessage() for r in caplog.records] == [True]
            make()  # it has learnt
            assert len(caplog.records) == 1


def test_one_that_does_not_fit_is_explained(gpus: GPUs) -> None:
    model, detector = load_sam2("demo", GPU), load_detector("demo", GPU)
    text = TextEncoder("demo", GPU)
    gpus.largest = 10_000
    for make, what in (
        (lambda: EncodedVideo(model, FRAMES_THW3), "frames"),
        (lambda: text.encode(["the red circle"]), "texts"),
        (lambda: boxes_of(detector), "images"),
    ):
        explained = rf"too small for a batch of 1 \({what}\).*SOLA_DEVICE=cpu.*pretended"
        with pytest.raises(torch.OutOfMemoryError, match=explained):
            make()
