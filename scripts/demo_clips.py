"""Random clips and prompts that `train_demo_sam2.py` learns from.

Shapes: B objects, G clips, N objects of a clip, T frames, H and W of the model's square image.
"""

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from drawn_clips import drawn_clip
from torch import Tensor

from sola_model.extraction.encoding import MEAN, STD
from warehouse.demo_data import random_scene, render_frames
from warehouse.demo_data.scene import COLOURS, KINDS

IMAGE_SIZE = 128
VISIBLE = 12  # pixels of the model's image from which an object counts as visible


def clips(
    rng: np.random.Generator, count: int, frames: int, drawn: float = 0.5
) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """Random clips: images_GT3HW (normalised) and, per clip, masks_NTHW (float, 0 or 1) and
    looks_N2 (indices of colour and kind, -1 for one without a name).

    This share of the clips is drawn (`drawn_clips`), the others are the embedded data set's.
    """
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (MEAN, STD))
    images, masks, looks = [], [], []
    for _ in range(count):
        if rng.random() < drawn:
            frames_THW3, masks_NTHW, looks_N2 = drawn_clip(rng, frames, IMAGE_SIZE)
        else:
            frames_THW3, masks_NTHW, looks_N2 = embedded_clip(rng, frames)
        tensor = torch.from_numpy(frames_THW3).permute(0, 3, 1, 2).float() / 255
        images.append((tensor - mean) / std)
        masks.append(torch.from_numpy(masks_NTHW).float())
        looks.append(torch.from_numpy(looks_N2))
    return torch.stack(images), masks, looks


def embedded_clip(
    rng: np.random.Generator, frames: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Frames of a random scene of the embedded data set, as `drawn_clip` gives its own."""
    scene = random_scene(rng)
    stride = int(rng.integers(1, 3)) if frames > 1 else 1
    start = int(rng.integers(0, scene.frames - (frames - 1) * stride))
    indices = range(start, start + (frames - 1) * stride + 1, stride)
    if rng.random() < 0.5:
        indices = indices[::-1]
    frames_THW3, masks_NTHW = render_frames(scene, indices)
    frames_THW3 = np.stack([cv2.resize(f, (IMAGE_SIZE, IMAGE_SIZE)) for f in frames_THW3])
    soft_NTHW = F.interpolate(
        torch.from_numpy(masks_NTHW).float(),
        (IMAGE_SIZE, IMAGE_SIZE),
        mode="bilinear",
        align_corners=False,
    )
    colours = list(COLOURS)
    looks_N2 = np.array([[colours.index(s.colour), KINDS.index(s.kind)] for s in scene.shapes])
    return frames_THW3, (soft_NTHW > 0.5).numpy(), looks_N2


def geometry(masks_BHW: Tensor) -> Tensor:
    """x, y, log width, log height, visible of each mask (B, 5); positions in -1..1."""
    grid = torch.linspace(-1, 1, masks_BHW.shape[-1])
    area = masks_BHW.sum((1, 2)).clamp(min=1)
    column, row = masks_BHW.sum(1), masks_BHW.sum(2)
    x, y = (column @ grid) / area, (row @ grid) / area
    width, height = (column > 0).sum(1), (row > 0).sum(1)
    visible = (masks_BHW.sum((1, 2)) >= VISIBLE).float()
    sizes = [torch.log(side.clamp(min=1) / 32) for side in (width, height)]
    return torch.stack([x, y, *sizes, visible], dim=1)


def random_points(rng: np.random.Generator, masks_BHW: Tensor) -> Tensor:
    """One random foreground pixel (x, y) of each mask (B, 2)."""
    points = []
    for mask in masks_BHW:
        pixels = torch.nonzero(mask)
        row, column = pixels[int(rng.integers(len(pixels)))].tolist()
        points.append([float(column), float(row)])
    return torch.tensor(points)


def boxes_as_points(rng: np.random.Generator, masks_BHW: Tensor) -> Tensor:
    """Slightly jittered boxes as two corner points each (B, 2, 2), as SAM2 takes them."""
    corners = []
    for mask in masks_BHW:
        rows, columns = torch.nonzero(mask.any(1))[:, 0], torch.nonzero(mask.any(0))[:, 0]
        box = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
        corners.append([float(side) + rng.normal(0, 1.0) for side in box])
    return torch.tensor(corners).float().view(-1, 2, 2)


def first_frame_prompt(rng: np.random.Generator, target_BHW: Tensor) -> dict:
    """A mask (60 %), point or box prompt; half of the masks are as coarse as predicted ones."""
    kind = rng.random()
    if kind < 0.6:
        mask_B1HW = target_BHW[:, None]
        if kind < 0.3:
            coarse = F.interpolate(mask_B1HW, scale_factor=0.25, mode="area")
            size = (IMAGE_SIZE, IMAGE_SIZE)
            fine = F.interpolate(coarse, size, mode="bilinear", align_corners=False)
            mask_B1HW = (fine > rng.uniform(0.35, 0.65)).float()
        return {"mask": mask_B1HW}
    if kind < 0.8:
        coords, label = random_points(rng, target_BHW)[:, None], [1]
    else:
        coords, label = boxes_as_points(rng, target_BHW), [2, 3]
    labels = torch.tensor(label, dtype=torch.int32).expand(len(target_BHW), -1)
    return {"points": {"point_coords": coords, "point_labels": labels}}
