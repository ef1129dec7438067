"""What the host does beside the network, against the plain way, at 1920x1080.

    python -m benchmarks.host_work       # or: make bench

Frames: from JPEG to what SAM2 takes at 1024. Plain: one after the other, resized by Pillow,
normalised in double precision, as the official predictor loads them.
Comparisons: a replay of 2,000 prompts, 40 on every fourth of 200 frames, which become 64 tracks.
Plain: every mask decoded, resized as an array and encoded again. Propagations are known here, so
all that is measured is the chain's own work.
Results must be equal to the bit. Seconds of processor time, but for frames a second, which the
clock says: they depend on the cores.
"""

import os
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from pycocotools import mask as coco

from benchmarks.tracks import Timer
from sola_model.extraction import chains
from sola_model.extraction.encoding import resized_ahead
from sola_model.extraction.engine import Engine
from sola_model.extraction.frames import MEAN, STD, normalise, resize
from sola_model.extraction.prompts import PromptMask
from sola_model.extraction.propagation import Propagated
from sola_model.masks.rle import encode_enlarged, encode_masks
from sola_model.masks.runs import RLE
from sola_model.recipes import RELEASE
from warehouse.demo_data import random_scene, render_frames
from warehouse.frames import read_frames
from warehouse.images import read_image

WIDTH, HEIGHT, SIDE = 1920, 1080, 1024
FRAMES, OBJECTS, STRIDE, SHOWN = 200, 64, 4, 40
REPEATS = 20


# --- frames -----------------------------------------------------------------------------------


def plain_prepare(frame_HW3: np.ndarray) -> torch.Tensor:
    image_SS3 = np.asarray(Image.fromarray(frame_HW3).resize((SIDE, SIDE)))
    image_3SS = torch.from_numpy(image_SS3 / 255.0).permute(2, 0, 1).float()
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (MEAN, STD))
    return (image_3SS - mean) / std


def prepare(frame_HW3: np.ndarray) -> torch.Tensor:
    return normalise(torch.from_numpy(resize(frame_HW3, SIDE)))


def milliseconds(function: Callable[[], Any], repeats: int = REPEATS) -> float:
    """Of processor time, a call."""
    function()  # compiles
    with Timer() as timer:
        for _ in range(repeats):
            function()
    return 1000 * timer.seconds / repeats


def frames_a_second(make: Callable[[], Iterable[Any]], count: int) -> float:
    """By the clock, the best of three."""
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        deque(make(), maxlen=0)
        seconds.append(time.perf_counter() - started)
    return count / min(seconds)


def read_and_resize(folder: Path, names: Sequence[str], threads: int) -> Iterable[Any]:
    torch.set_num_threads(threads)
    with patch("warehouse.frames.READERS", threads):
        engine = Engine(frames_ahead=threads)
        yield from resized_ahead(read_frames(folder, names), SIDE, engine)


def measure_frames(folder: Path) -> float:
    """Prints what a frame costs; milliseconds of decoding and resizing one."""
    scene_THW3, _ = render_frames(random_scene(np.random.default_rng(5), 24))
    names = [f"{t:05d}" for t in range(len(scene_THW3))]
    for name, small_HW3 in zip(names, scene_THW3, strict=True):
        large_HW3 = cv2.resize(small_HW3, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
        Image.fromarray(large_HW3).save(folder / f"{name}.jpg", quality=95)
    files = [folder / f"{name}.jpg" for name in names]
    frame_HW3 = read_image(files[0])
    assert torch.equal(prepare(frame_HW3), plain_prepare(frame_HW3))
    decoding = milliseconds(lambda: read_image(files[0]))
    resizing = milliseconds(lambda: resize(frame_HW3, SIDE))
    ours = milliseconds(lambda: prepare(frame_HW3))
    plain = milliseconds(lambda: plain_prepare(frame_HW3))
    print(
        f"a frame is decoded in {decoding:.1f} ms; prepared in {plain:.1f} ms plain, {ours:.1f} ms "
        f"ours ({plain / ours:.1f}x), {resizing:.1f} ms if a GPU normalises "
        f"({plain / resizing:.1f}x)"
    )
    speed = frames_a_second(lambda: map(plain_prepare, map(read_image, files)), len(files))
    print(f"decoded and prepared, plain: {speed:.0f} frames a second")
    for threads in (1, 2, 4, 8):
        if threads <= (os.cpu_count() or 1):
            ours = partial(read_and_resize, folder, names, threads)
            speed = frames_a_second(ours, len(names))
            print(f"decoded and resized, {threads} threads for each: {speed:.0f}")
    torch.set_num_threads(1)
    return decoding + resizing


# --- comparisons ------------------------------------------------------------------------------


def plain_at_compared_size(masks: Sequence[RLE], nearest: bool) -> list[RLE]:
    size = (540, 960) if HEIGHT < WIDTH else (960, 540)
    mode = {"mode": "nearest"} if nearest else {"mode": "bilinear", "align_corners": False}
    dense = [torch.from_numpy(coco.decode(rle))[None, None].float() for rle in masks]
    return [encode_masks(F.interpolate(m_11HW, size, **mode)[0] > 0.5)[0] for m_11HW in dense]


def plain_iou(a: Sequence[list[RLE]], b: Sequence[list[RLE]], _: float) -> np.ndarray:
    some, others = ([rle for rles in each for rle in rles] for each in (a, b))
    empty, no_other = (np.array([coco.area(m) == 0 for m in each]) for each in (some, others))
    return np.where(empty[:, None] & no_other[None], 1.0, coco.iou(some, others, [0] * len(others)))


def logits(rng: np.random.Generator, t: int, o: int) -> torch.Tensor:
    """Of an object with a rough outline, never quite the same."""
    y_H1, x_1W = np.ogrid[:256, :256]
    middle = 128 + 90 * np.sin(0.7 * o + 0.01 * t), 128 + 90 * np.cos(1.3 * o + 0.013 * t)
    radius = 12 + 0.6 * o, 8 + 0.4 * o
    distance_HW = ((y_H1 - middle[0]) / radius[0]) ** 2 + ((x_1W - middle[1]) / radius[1]) ** 2
    rough_HW = cv2.resize(rng.normal(0, 0.1, (64, 64)), (256, 256))
    return torch.from_numpy((1 - distance_HW + rough_HW).astype(np.float32))


def blob(rng: np.random.Generator, t: int, o: int) -> RLE:
    return encode_enlarged(logits(rng, t, o), (HEIGHT, WIDTH))


def replay(prompts: Sequence[PromptMask], tracks: dict[str | bytes, list[RLE]]) -> chains.Chain:
    """A chain to its end; `tracks`: by a prompt's RLE counts, the masks that it becomes."""
    chain = chains.Chain(range(FRAMES), prompts, RELEASE.extraction)
    steps, produced = chain.replay(), None
    try:
        while True:
            requests = steps.send(produced)
            produced = [Propagated(tracks[r.rle["counts"]], np.empty((0, 0))) for r in requests]
    except StopIteration:
        return chain


def measure_comparisons() -> float:
    """Prints what the replay costs; its seconds."""
    rng = np.random.default_rng(0)
    absent = encode_masks(torch.zeros(1, HEIGHT, WIDTH, dtype=torch.bool))[0]
    objects = [
        [absent if t % STRIDE else blob(rng, t, o) for t in range(FRAMES)] for o in range(OBJECTS)
    ]
    prompts, tracks = [], {}
    for t in range(0, FRAMES, STRIDE):
        for o in rng.permutation(OBJECTS)[:SHOWN]:
            rle = blob(rng, t, o)
            tracks[rle["counts"]] = objects[o]
            prompts.append(
                PromptMask(
                    frame_index=t, source="grid", rle=rle, area=int(coco.area(rle)),
                    predicted_iou=None, stability=None,
                )
            )  # fmt: skip
    replay(prompts[:1], tracks)  # compiles, and asks `F.interpolate` about this size
    with Timer() as ours:
        found = replay(prompts, tracks)
    with (
        patch.object(chains, "at_compared_size", plain_at_compared_size),
        patch.object(chains, "pairwise_iou", plain_iou),
        Timer() as plain,
    ):
        expected = replay(prompts, tracks)
    assert found.prompts == expected.prompts
    filtered = sum(prompt.fate == "filtered" for prompt in found.prompts)
    print(
        f"{len(prompts)} prompts, of which {filtered} are filtered by {len(found.tracks)} tracks: "
        f"{plain.seconds:.1f} s plain, {ours.seconds:.2f} s ours "
        f"({plain.seconds / ours.seconds:.0f}x)"
    )
    return ours.seconds


def main() -> None:
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as name:
        frame = measure_frames(Path(name))
    comparing = 1000 * measure_comparisons() / (FRAMES * OBJECTS)
    rng = np.random.default_rng(0)
    small = [logits(rng, 0, o) for o in range(OBJECTS)]
    writing = milliseconds(lambda: [encode_enlarged(each, (HEIGHT, WIDTH)) for each in small], 3)
    shares = frame / OBJECTS, comparing, writing / OBJECTS
    print(
        f"an object on a frame, {FRAMES} frames and {OBJECTS} tracks: {sum(shares):.2f} ms of the "
        "host, of which reading {:.2f}, comparing {:.2f}, writing its mask {:.2f}".format(*shares)
    )


if __name__ == "__main__":
    main()
