"""The embedded data set: a deterministic generator of small RVOS videos in MeViS's layout.

`scene` says what moves how, `render` draws it, `language` describes it, `write` puts it on disk.
"""

from warehouse.demo_data.language import describe
from warehouse.demo_data.render import render_frames
from warehouse.demo_data.scene import Scene, random_scene
from warehouse.demo_data.write import write_dataset

__all__ = ["Scene", "describe", "random_scene", "render_frames", "write_dataset"]
