"""Grounding DINO: the embedded model, and the plain `transformers` pipeline as the reference."""

import shutil
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torchvision.ops import box_iou, masks_to_boxes
from transformers import AutoProcessor, GroundingDinoForObjectDetection

from sola_model.detection import detector as detector_module
from sola_model.detection.detector import (
    DEMO_DETECTOR,
    detect,
    load_detector,
    normal_caption,
)
from sola_model.detection.names import detector_identity
from sola_model.extraction.sam2_models import DEMO_CHECKPOINT
from sola_model.recipes import DetectorSettings
from sola_model.text.encoder import DEMO_TEXT_ENCODER
from warehouse.demo_data import describe, random_scene, render_frames

SETTINGS = DetectorSettings(short_side=112, long_side=144)


@pytest.fixture(scope="module")
def detector():
    return load_detector("demo")


@pytest.fixture(scope="module")
def clip():
    """Three frames of a clip, with their indices, and its expressions."""
    scene = random_scene(np.random.default_rng(0))
    frames_THW3, _ = render_frames(scene, range(0, 24, 8))
    texts = [d.text for d in describe(scene, np.random.default_rng(0))]
    return list(zip(range(0, 24, 8), frames_THW3, strict=True)), texts


class Fixed:
    """A detector that finds the same boxes everywhere."""

    device, max_tokens = "cpu", 100

    def __init__(self, boxes: list[list[float]], scores: list[float]) -> None:
        self.tokenizer = load_detector("demo").tokenizer
        self.boxes, self.logits = torch.tensor(boxes), torch.logit(torch.tensor(scores))

    def encode(self, pixels_13HW: torch.Tensor) -> int:
        return 1

    def find(self, captions: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
        logits = self.logits[None, :, None].expand(len(captions), -1, 20)
        return logits, self.boxes[None].expand(len(captions), -1, -1)


def plain_pipeline(folder, image_HW3, caption, settings):
    """Boxes, scores and phrases, best first, of one call of the pipeline as it is documented."""
    model = GroundingDinoForObjectDetection.from_pretrained(folder, dtype=torch.float32).eval()
    processor = AutoProcessor.from_pretrained(folder)
    size = {"shortest_edge": settings.short_side, "longest_edge": settings.long_side}
    inputs = processor(images=image_HW3, text=caption, return_tensors="pt", size=size)
    with torch.no_grad():
        outputs = model(**inputs)
    (found,) = processor.post_process_grounded_object_detection(
        outputs,
        threshold=settings.box_threshold,
        text_threshold=settings.text_threshold,
        target_sizes=[image_HW3.shape[:2]],
    )
    order = found["scores"].argsort(descending=True, stable=True)
    height, width = image_HW3.shape[:2]
    boxes = found["boxes"][order]
    boxes = boxes.clamp(torch.zeros(4), torch.tensor([width, height] * 2).float())
    return boxes, found["scores"][order], [found["text_labels"][i] for i in order]


@pytest.mark.parametrize("features", [1, 50_000, 10**9])
def test_captions_together_equal_single_calls_of_the_plain_pipeline(
    detector, clip, features, monkeypatch
):
    monkeypatch.setitem(detector_module.FEATURES, "cpu", features)
    frames, texts = clip
    captions = texts[:5] if features < 10**9 else texts
    ((index, found),) = detect(detector, frames[1:2], captions, SETTINGS)
    assert index == 8 and len(found) == len(captions)
    assert any(found)
    for caption, detections in zip(captions, found, strict=True):
        boxes, scores, phrases = plain_pipeline(
            DEMO_DETECTOR, frames[1][1], caption + ".", SETTINGS
        )
        assert [d.phrase for d in detections] == phrases
        for detection, box, score in zip(detections, boxes, scores, strict=True):
            np.testing.assert_allclose(detection.xyxy, box, atol=1e-4)
            assert detection.score == pytest.approx(float(score), abs=1e-5)
            assert max(detection.token_scores) == detection.score


def test_images_of_other_shapes_are_resized_as_the_pipeline_does(detector):
    image_HW3 = np.random.default_rng(0).integers(0, 255, (50, 210, 3), np.uint8)
    settings = DetectorSettings(box_threshold=0.02, short_side=90, long_side=200)
    ((_, (detections,)),) = detect(detector, [(0, image_HW3)], ["the red circle"], settings)
    boxes, _, _ = plain_pipeline(DEMO_DETECTOR, image_HW3, "the red circle.", settings)
    assert detections
    np.testing.assert_allclose([d.xyxy for d in detections], boxes, atol=1e-4)


def test_a_frame_is_encoded_once_whatever_the_number_of_captions(detector, clip, monkeypatch):
    monkeypatch.setitem(detector_module.FEATURES, "cpu", 50_000)  # several batches of captions
    frames, texts = clip
    images = []
    encoder = detector.backbone.backbone.conv_encoder
    hook = encoder.register_forward_pre_hook(lambda _, inputs: images.append(len(inputs[0])))
    for captions in (texts[:1], texts):
        assert [t for t, _ in detect(detector, frames, captions, SETTINGS)] == [0, 8, 16]
    hook.remove()
    assert len(texts) > 10
    assert images == [1] * 6


def test_boxes_are_sorted_clipped_to_the_image_and_dropped_outside_of_it():
    boxes = [[0.5, 0.5, 0.5, 0.5], [0.0, 0.5, 0.5, 2.0], [1.5, 0.5, 0.5, 0.5], [0.5, 0.5, 1, 1]]
    fixed = Fixed(boxes, [0.6, 0.9, 0.8, 0.1])
    image_HW3 = np.zeros((40, 80, 3), np.uint8)
    ((_, (found, _)),) = detect(fixed, [(0, image_HW3)], ["a", "b"], SETTINGS)
    assert [d.xyxy for d in found] == [(0, 0, 20, 40), (20, 10, 60, 30)]
    assert [d.score for d in found] == pytest.approx([0.9, 0.6])


def test_no_boxes_above_the_threshold_are_an_empty_list(detector, clip):
    frames, texts = clip
    nothing = DetectorSettings(box_threshold=0.999, short_side=112, long_side=144)
    assert [f for _, f in detect(detector, frames[:1], texts[:3], nothing)] == [[[], [], []]]


def test_no_captions_and_no_frames(detector, clip):
    assert list(detect(detector, clip[0][:1], [], SETTINGS)) == [(0, [])]
    assert list(detect(detector, [], ["the star"], SETTINGS)) == []


@pytest.mark.parametrize(
    ("text", "caption"),
    [
        ("The Red Circle", "the red circle."),
        ("  a cat. a dog . ", "a cat. a dog."),
        ("Über uns..", "über uns."),
    ],
)
def test_captions_are_normalised(text, caption):
    assert normal_caption(text) == caption
    assert normal_caption(caption) == caption


@pytest.mark.parametrize("text", ["", "  ", ".", " . "])
def test_an_empty_caption_is_an_error(detector, clip, text):
    with pytest.raises(ValueError, match=r"caption .* is empty"):
        list(detect(detector, clip[0], ["the star", text], SETTINGS))


def test_a_caption_that_the_text_encoder_cannot_take_is_an_error(detector, clip):
    longest = "star " * (detector.max_tokens - 3)  # with [CLS], the full stop and [SEP]
    assert list(detect(detector, clip[0][:1], [longest], SETTINGS))
    with pytest.raises(ValueError, match=r"'star star .* 257 tokens, .* at most 256: shorten"):
        list(detect(detector, clip[0][:1], ["the star", longest + "star"], SETTINGS))


def test_other_checkpoints_are_errors_that_say_what_is_valid(tmp_path):
    single_file = DEMO_DETECTOR / "model.safetensors"
    for wrong in (DEMO_CHECKPOINT, DEMO_TEXT_ENCODER, single_file, tmp_path, tmp_path / "none"):
        with pytest.raises(ValueError, match=r"cannot be loaded: [^$]*save_pretrained"):
            load_detector(str(wrong))
    with pytest.raises(ValueError, match="model of type 'roberta'"):
        load_detector(DEMO_TEXT_ENCODER)


def test_a_folder_without_all_weights_is_an_error(tmp_path):
    folder = tmp_path / "detector"
    shutil.copytree(DEMO_DETECTOR, folder)
    weights = load_file(folder / "model.safetensors")
    del weights["model.level_embed"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"weights are missing, e.g. model.level_embed"):
        load_detector(folder)


def test_an_original_checkpoint_without_its_package_is_an_error(tmp_path, monkeypatch):
    for name in [name for name in sys.modules if name.startswith("groundingdino.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "groundingdino", None)
    path = tmp_path / "groundingdino_swint_ogc.pth"
    with pytest.raises(ValueError, match="there is no detector checkpoint"):
        load_detector(path)
    torch.save({"model": {"x": torch.zeros(1)}}, path)
    with pytest.raises(ValueError, match="pip install groundingdino-py"):
        load_detector(path)


def test_identity_follows_the_files(tmp_path):
    folder = tmp_path / "detector"
    shutil.copytree(DEMO_DETECTOR, folder)
    assert detector_identity(folder) == detector_identity("demo")
    (folder / "config.json").write_text("{}")
    assert detector_identity(folder) != detector_identity("demo")
    assert detector_identity("IDEA-Research/grounding-dino-tiny").startswith("IDEA")


def test_the_embedded_detector_finds_shapes_by_colour(detector):
    found, right = [], []
    for seed in range(12):
        scene = random_scene(np.random.default_rng([99, seed]))
        (image_HW3,), masks_N1HW = render_frames(scene, range(12, 13))
        truth: dict[str, list] = {}
        for shape, (mask_HW,) in zip(scene.shapes, masks_N1HW, strict=True):
            if mask_HW.sum() > 60:
                box = masks_to_boxes(torch.from_numpy(mask_HW[None]))[0]
                truth.setdefault(f"{shape.colour} {shape.kind}", []).append(box)
        ((_, detections),) = detect(detector, [(0, image_HW3)], list(truth), SETTINGS)
        for boxes, expected in zip(detections, truth.values(), strict=True):
            corners = torch.tensor([d.xyxy for d in boxes]).view(-1, 4)
            hits = box_iou(corners, torch.stack(expected)) > 0.5
            found += hits.any(0).tolist()
            right += hits.any(1).tolist()
    assert len(found) > 25
    assert np.mean(found) > 0.9
    assert np.mean(right) > 0.9
