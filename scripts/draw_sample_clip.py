"""Draw the sample clip that ships with the package: solid shapes on a plain ground, 640 x 360.

    python -m scripts.draw_sample_clip     # writes warehouse/demo_data/sample.mp4

It is drawn by hand, not by the generator of the embedded data set, as a clip of a user's own would
be: another size, another background, no textures, no noise.
"""

from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from tasks.own_video.video_writer import h264_video
from warehouse.demo_data import SAMPLE_CLIP

WIDTH, HEIGHT = 640, 360
FRAMES, RATE = 24, 12
SCALE = 4  # drawn larger and reduced, for smooth edges
PAPER, RED, BLUE, GREEN = (236, 232, 222), (214, 48, 42), (44, 92, 208), (38, 158, 72)


def frame(time: float) -> np.ndarray:
    """The picture (H, W, 3) at a time from 0 to 1.

    A red circle goes right and turns back, a blue square stands still, a green triangle spins.
    """
    image = Image.new("RGB", (SCALE * WIDTH, SCALE * HEIGHT), PAPER)
    draw = ImageDraw.Draw(image)
    x = 90 + 300 * (1 - abs(1 - 2 * time))
    draw.regular_polygon((SCALE * 530, SCALE * 110, SCALE * 62), 4, fill=BLUE)
    angle = 240 * time
    draw.regular_polygon((SCALE * 470, SCALE * 272, SCALE * 58), 3, rotation=angle, fill=GREEN)
    draw.circle((SCALE * x, SCALE * 140), SCALE * 48, fill=RED)
    return np.asarray(image.resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS))


def main(out: Path = SAMPLE_CLIP) -> None:
    with h264_video(out, Fraction(RATE)) as show:
        for t in range(FRAMES):
            show(frame(t / (FRAMES - 1)))


if __name__ == "__main__":
    main()
