"""Masks of small logits at a video's size, against enlarging the logits."""

import cv2
import numpy as np
import pytest
import torch
from pycocotools import mask as coco

from sola_model.extraction.encoding import EncodedVideo
from sola_model.extraction.sam2_models import SAM2ImagePredictor, load_sam2
from sola_model.masks import enlarged
from sola_model.masks.enlarged import enlarge, enlarged_runs
from sola_model.masks.rle import encode_enlarged, encode_masks
from warehouse.demo_data import random_scene, render_frames

SIZES = [(720, 1280), (112, 144), (97, 33), (32, 32), (20, 40), (1, 1)]


@pytest.fixture(scope="module")
def decoded() -> list[torch.Tensor]:
    """What the embedded decoder makes of points: logits (32, 32)."""
    frames_THW3, _ = render_frames(random_scene(np.random.default_rng(5), 8), range(1))
    model = load_sam2("demo")
    predictor = SAM2ImagePredictor(model)
    EncodedVideo(model, frames_THW3).install(predictor, 0)
    points_B12 = 128 * torch.rand(16, 1, 2, generator=torch.Generator().manual_seed(0))
    labels_B1 = torch.ones(16, 1, dtype=torch.int)
    predictor._transforms.postprocess_masks = lambda logits, _: logits
    logits_BMHW, _, _ = predictor._predict(points_B12, labels_B1, return_logits=True)
    return list(logits_BMHW.flatten(0, 1))


def made_up() -> list[torch.Tensor]:
    """Smooth and rough logits of several shapes, and constant ones."""
    rng = np.random.default_rng(0)
    shapes = [(32, 32), (256, 256), (48, 64), (5, 7), (1, 1)]
    rough = [rng.normal(0, 5, shape).astype(np.float32) for shape in shapes]
    coarse = rng.normal(0, 5, (6, 6)).astype(np.float32)
    smooth = [cv2.resize(coarse, shape[::-1], interpolation=cv2.INTER_CUBIC) for shape in shapes]
    constant = [np.full((4, 4), value, np.float32) for value in (0, 1, -1, 1e-30, -1024)]
    return [torch.from_numpy(logits) for logits in rough + smooth + constant]


@pytest.mark.parametrize("size", SIZES)
def test_runs_are_those_of_the_enlarged_logits(decoded, size):
    for logits_HW in decoded + made_up():
        for threshold in (0.0, 1.0, -1.0):
            mask_YX = enlarge(logits_HW[None], size)[0] > threshold
            runs = enlarged_runs(logits_HW, size, threshold)
            expected = encode_masks(mask_YX[None])[0]
            rle = coco.frPyObjects({"size": list(size), "counts": runs}, *size)
            assert rle["counts"].decode() == expected["counts"]
            if threshold == 0:
                assert encode_enlarged(logits_HW, size) == expected


def test_what_rounding_may_decide_is_enlarged(decoded, monkeypatch):
    """Only that, and never what is certain."""
    asked = []
    monkeypatch.setattr(enlarged, "enlarge", lambda *args: asked.append(args) or enlarge(*args))
    enlarged_runs(torch.zeros(4, 4), (720, 1280))
    assert len(asked) == 1 + 2  # and the weights of both sides
    for logits_HW in decoded:
        enlarged_runs(logits_HW, (720, 1280))
    assert len(asked) - 3 < 2 + 0.2 * len(decoded)


@pytest.mark.parametrize("size", SIZES[:4])
def test_no_pixel_is_certain_and_wrong(decoded, size):
    """Also where the threshold is just what some pixel has."""
    for logits_HW in decoded[::8]:
        large_YX = enlarge(logits_HW[None], size)[0]
        for threshold in large_YX.flatten()[:: max(1, large_YX.numel() // 20)].tolist():
            runs = enlarged_runs(logits_HW, size, threshold)
            assert runs[1::2].sum() == (large_YX > threshold).sum()
