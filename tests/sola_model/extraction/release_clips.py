"""Clips of many shapes, and what the release's procedure makes of them.

python -m tests.sola_model.extraction.release_clips     # records tests/golden/tracks.json anew

Recorded from `sola_model.parity.official`, which knows nothing of our code; only after a change
there.
"""

import json
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from pycocotools import mask as coco

from benchmarks import models
from sola_model.parity import official
from sola_model.parity.compare import generator_settings
from sola_model.recipes import DEMO, Extraction, GridPrompts
from warehouse.demo_data import random_scene, render_frames

GOLDEN = Path(__file__).parents[2] / "golden" / "tracks.json"


@dataclass(frozen=True)
class ReleaseClip:
    """A scene of the embedded data, resized to (height, width), and random boxes.

    The boxes are one expression's; `grid` says which frames the grid prompts.
    """

    size: tuple[int, int]
    frame_count: int
    seed: int
    box_count: int
    grid: Literal["stride", "halves"] = "stride"

    @property
    def name(self) -> str:
        return f"{self.size[0]}x{self.size[1]}-T{self.frame_count}-{self.grid}"

    @property
    def settings(self) -> Extraction:
        """The release's, with a grid that suits the embedded SAM2."""
        grid: GridPrompts = replace(DEMO.extraction.grid, frames=self.grid)
        return Extraction(grid=grid, prompt_features="image")

    def frames(self) -> list[np.ndarray]:
        scene = random_scene(np.random.default_rng(self.seed), max(self.frame_count, 8))
        frames_THW3, _ = render_frames(scene, range(self.frame_count))
        return [cv2.resize(f, self.size[::-1], interpolation=cv2.INTER_AREA) for f in frames_THW3]

    def boxes(self) -> list[tuple[int, list[float]]]:
        """Frames and corners, on every fourth frame, in the order of frames."""
        rng = np.random.default_rng(self.seed)
        sides = np.array(self.size[::-1])
        boxes = []
        for _ in range(self.box_count):
            t = int(rng.choice(range(0, self.frame_count, 4)))
            middle, half = rng.random(2) * sides, (0.05 + 0.2 * rng.random(2)) * sides
            corners = np.clip([*(middle - half), *(middle + half)], 0, np.tile(sides, 2))
            if (corners[:2] + 2 < corners[2:]).all():
                boxes.append((t, corners.tolist()))
        return sorted(boxes, key=lambda box: box[0])


# In the second clip the comparison size of square clips decides a fate, in the first the limit.
CLIPS = [
    ReleaseClip((112, 144), 12, 0, 400),
    ReleaseClip((65, 65), 12, 0, 300),
    ReleaseClip((128, 128), 24, 4, 100, "halves"),
    ReleaseClip((144, 112), 9, 5, 100),
    ReleaseClip((97, 131), 7, 3, 100, "halves"),
    ReleaseClip((131, 97), 1, 1, 100),
    ReleaseClip((160, 61), 2, 2, 100, "halves"),
    ReleaseClip((90, 160), 40, 11, 100),
]


@dataclass
class Expected:
    """What the release makes of a clip; prompts are (source, prompt), by area within a source."""

    decoded: list[np.ndarray]
    prompts: list[tuple[str, official.Prompt]]
    tracks: dict[str, official.PlainTracks]


def expected(clip: ReleaseClip, predictor, folder: Path) -> Expected:
    decoded = official.save_frames(folder, clip.frames())
    state = official.start(predictor, folder)
    bin_size = {"stride": 4, "halves": 0}[clip.grid]
    settings = generator_settings(clip.settings.grid)
    prompts = {
        "grid": official.grid_prompts(predictor, decoded, bin_size, settings),
        "box": official.box_prompts(predictor, decoded, clip.boxes()),
    }
    return Expected(
        decoded,
        [(s, p) for s, found in prompts.items() for p in official.by_area(found)],
        {
            "grid": official.grid_tracks(predictor, state, prompts["grid"]),
            "box": official.box_tracks(predictor, state, prompts["box"]),
        },
    )


def recorded(found: Expected) -> dict:
    """What of it is golden: prompts, their fates, and a part of each track's mean token."""
    return {
        "prompts": [
            [source, prompt.frame_index, rle(prompt.mask_HW)["counts"].decode()]
            for source, prompt in found.prompts
        ],
        "fates": [
            [fate, track_id, round(iou or 0.0, 4)]
            for tracks in found.tracks.values()
            for fate, track_id, iou in tracks.fates
        ],
        "tokens": [
            np.round(tokens_TD.mean(0)[:8].astype(float), 4).tolist()
            for tracks in found.tracks.values()
            for tokens_TD in tracks.tokens
        ],
    }


def rle(mask_HW: np.ndarray) -> dict:
    return coco.encode(np.asfortranarray(mask_HW, dtype=np.uint8))


def main() -> None:
    _, predictor = models.demo_models()
    golden = {}
    for clip in CLIPS:
        with tempfile.TemporaryDirectory() as folder:
            golden[clip.name] = recorded(expected(clip, predictor, Path(folder)))
    lines = [f"{json.dumps(name)}: {json.dumps(found)}" for name, found in golden.items()]
    GOLDEN.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
