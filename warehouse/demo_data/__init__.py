"""The embedded data set: a deterministic generator of small RVOS videos in MeViS's layout.

`scene` says what moves how, `render` draws it, `language` describes it, `write` puts it on disk.
`SAMPLE_CLIP` is a video file that the generator has no part in, as a user's own would be.
"""

from pathlib import Path

from warehouse.demo_data.language import describe, fits, holds
from warehouse.demo_data.render import render_frames
from warehouse.demo_data.scene import Scene, random_scene
from warehouse.demo_data.write import clip_of, write_dataset

SAMPLE_CLIP = Path(__file__).parent / "sample.mp4"

__all__ = [
    "SAMPLE_CLIP",
    "Scene",
    "clip_of",
    "describe",
    "fits",
    "holds",
    "random_scene",
    "render_frames",
    "write_dataset",
]
