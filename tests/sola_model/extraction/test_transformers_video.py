"""Video models of `transformers`: results of package `sam2`, and of a plain loop over a session."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import transformers
from omegaconf import OmegaConf
from PIL import Image
from pycocotools import mask as coco
from safetensors.torch import load_file, save_file
from torch import Tensor
from torchvision.transforms.functional import normalize

from sola_model.extraction.converted import converted
from sola_model.extraction.encoding import EncodedVideo
from sola_model.extraction.given_masks import given_tokens
from sola_model.extraction.prompts import Box, box_prompts, grid_prompts
from sola_model.extraction.propagation import Request, propagate
from sola_model.extraction.sam2_models import build_sam2, config_path
from sola_model.extraction.trackers import load_tracker
from sola_model.extraction.tracks import track_prompts
from sola_model.extraction.transformers_video import VideoModel
from sola_model.masks.runs import RLE
from sola_model.recipes import DEMO
from tests.sola_model.extraction.test_tracks import clip, prompt, rle
from tests.tiny_video_models import KINDS, WIDTH, save_tiny

# Of the normalisation that SAM2 and the SAM3 tracker have.
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def extracted(model, frames_THW3, masks_NTHW, boxes):
    """Grid, mask and box prompts of a clip, tracked."""
    video = EncodedVideo(model, frames_THW3)
    prompts = grid_prompts(model, video, DEMO.extraction.grid)
    prompts += [prompt(mask_THW[2], 2) for mask_THW in masks_NTHW if mask_THW[2].any()]
    prompts += box_prompts(model, video, boxes, DEMO.extraction.boxes)
    return track_prompts(model, video, prompts, DEMO.extraction)


@pytest.mark.parametrize(("seed", "frames"), [(11, 19), (5, 6)])
def test_the_demo_is_the_same_in_both_implementations(seed, frames):
    """Long enough for steps that see no mask of the prompt's neighbours, and short."""
    frames_THW3, masks_NTHW = clip(seed, frames)
    boxes = [
        Box(frame_index=4, xyxy=(10.0, 12.0, 90.0, 80.0), score=1.0, expression_id="0"),
        Box(frame_index=0, xyxy=(60.0, 30.0, 120.0, 90.0), score=1.0, expression_id="1"),
    ]
    package, theirs = (
        extracted(load_tracker(tracker, "demo", "cpu"), frames_THW3, masks_NTHW, boxes)
        for tracker in ("sam2", "sam2_video")
    )
    assert {p.mask.source for p in package.prompts} == {"grid", "mask", "box"}
    assert [p.mask.rle for p in theirs.prompts] == [p.mask.rle for p in package.prompts]
    fates = [[(p.fate, p.track_id) for p in each.prompts] for each in (package, theirs)]
    assert fates[0] == fates[1]
    for ours, other in zip(package.tracks, theirs.tracks, strict=True):
        assert ours.masks == other.masks
        largest = np.abs(ours.tokens_TD).max()
        np.testing.assert_allclose(other.tokens_TD, ours.tokens_TD, rtol=0, atol=1e-4 * largest)


def test_given_masks_have_the_same_tokens_in_both():
    frames_THW3, masks_NTHW = clip(11, 3)
    tracks = [[rle(mask_HW) for mask_HW in mask_THW] for mask_THW in masks_NTHW]
    tokens = []
    for tracker in ("sam2", "sam2_video"):
        model = load_tracker(tracker, "demo", "cpu")
        tokens.append(given_tokens(model, EncodedVideo(model, frames_THW3), tracks))
    np.testing.assert_allclose(tokens[1], tokens[0], rtol=0, atol=1e-4 * np.abs(tokens[0]).max())


@pytest.mark.parametrize("name", ["sam2_hiera_tiny", "sam2.1_hiera_base_plus"])
def test_official_architectures_convert(tmp_path, name):
    """With random weights and small images, three frames."""
    settings = OmegaConf.load(config_path(Path(f"{name}.pt")))
    settings.model.image_size = 128
    OmegaConf.save(settings, tmp_path / "small.yaml")
    torch.manual_seed(0)
    package = build_sam2(tmp_path / "small.yaml").eval()
    torch.nn.init.constant_(package.sam_mask_decoder.pred_obj_score_head.layers[-1].bias, 1.0)
    frames_THW3, masks_NTHW = clip(11, 4)
    package_TD, theirs_TD = (
        propagate(model, [Request(EncodedVideo(model, frames_THW3), 1, rle(masks_NTHW[0][1]))])[
            0
        ].tokens_TD
        for model in (package, VideoModel(converted(package)))
    )
    largest = np.abs(package_TD).max()
    np.testing.assert_allclose(theirs_TD, package_TD, rtol=0, atol=1e-4 * largest)


@pytest.mark.parametrize("tracker", KINDS)
def test_tokens_are_those_of_a_plain_loop_over_the_session(tmp_path, tracker):
    """Forward and back from the middle, more frames than the memory reaches."""
    frames_THW3, masks_NTHW = clip(11, 20)
    wrapped = load_tracker(tracker, save_tiny(tracker, tmp_path), "cpu")
    video, mask = EncodedVideo(wrapped, frames_THW3), rle(masks_NTHW[0][10])
    other = rle(masks_NTHW[0][0])
    requests = [Request(video, 10, mask), Request(video, 0, other)]
    (result, _) = propagate(wrapped, requests)
    expected_TD = plain_loop(wrapped.model, frames_THW3, mask, 10)
    assert expected_TD.shape == (20, WIDTH)
    largest = np.abs(expected_TD).max()
    assert expected_TD.std(0).max() > 0.05 * largest, "tokens that never change show nothing"
    # Frames of the SAM3 tracker are normalised in two steps, and memory is rounded to bfloat16.
    close = 5e-4 if tracker == "sam3_tracker_video" else 1e-5
    np.testing.assert_allclose(result.tokens_TD, expected_TD, rtol=0, atol=close * largest)


@torch.inference_mode()
def plain_loop(model, frames_THW3: Sequence[np.ndarray], mask: RLE, start: int) -> np.ndarray:
    """tokens_TD of one prompt by a session of `transformers`, prompt frame and rounding SAM2's."""
    kind, side = type(model).__name__, model.image_size
    mean, std = HALF if "Sam3" in kind else IMAGENET
    pixels_THW3 = np.stack([np.array(Image.fromarray(f).resize((side, side))) for f in frames_THW3])
    images_T3HW = torch.from_numpy(pixels_THW3 / 255).float().permute(0, 3, 1, 2)
    images_T3HW = normalize(images_T3HW, mean, std)
    session = getattr(transformers, kind.replace("Model", "InferenceSession"))(
        video=images_T3HW, dtype=torch.float32
    )
    object_index = session.obj_id_to_idx(1)
    session.add_mask_inputs(object_index, start, at_size(mask, side))
    session.obj_with_new_inputs = [1]
    kept = session.output_dict_per_obj[object_index]
    model(session, frame_idx=start)
    prompted = kept["cond_frame_outputs"][start]
    prompted |= official_prompt(model, session, start, prompted, at_size(mask, side))
    for reverse in (False, True):
        for t in range(start - 1, -1, -1) if reverse else range(start + 1, len(frames_THW3)):
            model(session, frame_idx=t, reverse=reverse)
            output = kept["non_cond_frame_outputs"][t]
            output["maskmem_features"] = output["maskmem_features"].to(torch.bfloat16)
    outputs = kept["cond_frame_outputs"] | kept["non_cond_frame_outputs"]
    return np.stack([outputs[t]["object_pointer"].flatten() for t in range(len(frames_THW3))])


def official_prompt(model, session, start: int, output: dict, mask_11HW: Tensor) -> dict:
    """Pointer and memory of a mask prompt as the official predictor makes them."""
    levels, _ = model._prepare_vision_features(session, start, 1)
    maps = [
        level.permute(1, 2, 0).view(1, -1, *size)
        for level, size in zip(levels, model.backbone_feature_sizes, strict=True)
    ]
    decoded = model._single_frame_forward(
        input_masks=model.mask_downsample(mask_11HW), image_embeddings=maps, multimask_output=False
    )
    enlarged = F.interpolate(output["pred_masks"], (model.image_size,) * 2, mode="bilinear")
    memory, position = model._encode_new_memory(
        levels[-1], enlarged, output["object_score_logits"], True
    )
    return {
        "object_pointer": decoded.object_pointer,
        "maskmem_features": memory.to(torch.bfloat16),
        "maskmem_pos_enc": position,
    }


def at_size(mask: RLE, side: int) -> Tensor:
    """A mask at the model's size (1, 1, side, side), resized as the official predictor does."""
    mask_11HW = torch.from_numpy(coco.decode(mask)).float()[None, None]
    resized = F.interpolate(mask_11HW, (side, side), mode="bilinear", antialias=True)
    return (resized >= 0.5).float()


def test_a_model_that_misses_weights_is_refused(tmp_path):
    name = save_tiny("sam2_video", tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    del weights["no_object_pointer"]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"no weights of 1 parameters .* no_object_pointer"):
        load_tracker("sam2_video", name, "cpu")
