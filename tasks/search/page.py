"""What a search found as one HTML page: a strip of frames for each track."""

from html import escape
from pathlib import Path

import cv2
import numpy as np
from pycocotools import mask as coco

from sola_model.metrics.jf import RLE
from tasks.pictures.masks_on_frames import data_uri, overlay, shown_frames, strip
from tasks.search.track_search import Found, Hit
from tasks.tables import read_video
from tasks.track_sets import sets_of
from warehouse import Key, Warehouse
from warehouse.frames import frames_of
from warehouse.images import FrameError
from warehouse.masks import rles_from_table
from warehouse.submissions import replacing

FRAMES = 5
HEIGHT = 120  # of a frame in pixels

PAGE = """<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark }}
body {{ font: 1rem/1.5 system-ui; max-width: 64rem; margin: 1rem auto; padding: 0 1rem }}
h1 {{ font-size: 1.4rem }}
li {{ margin-bottom: 1.2rem }}
img {{ display: block; max-width: 100% }}
</style>
<h1>{title}</h1>
<p>{about}</p>
<ol>
{hits}
</ol>
</html>
"""


def write_page(store: Warehouse, found: Found, out: Path) -> None:
    """Write the page; frames that cannot be read are replaced by the reason.

    Raises SubmissionError (ValueError) when the file cannot be written.
    """
    about = (
        f"Run {found.run_id}; {found.tracks} tracks of {found.videos} videos, "
        f"{found.scored} of which were scored exactly."
    )
    page = PAGE.format(
        title=escape(f"“{found.text}”"),
        about=escape(about),
        hits="\n".join(_item(store, hit) for hit in found.hits),
    )
    with replacing(out) as stream:
        stream.write(page.encode())


def _item(store: Warehouse, hit: Hit) -> str:
    name = f"{hit.dataset}/{hit.split}/{hit.video_id}, track {hit.track_id}"
    try:
        picture = f'<img src="{_strip(store, hit)}" alt="{escape(name)} in up to {FRAMES} frames">'
    except (FrameError, OSError) as error:
        picture = f"<p>no picture: {escape(str(error))}</p>"
    seen = f"visible in {hit.visible_frames} of {hit.frame_count} frames"
    return f"<li>{100 * hit.confidence:.1f} %: {escape(name)}, {seen}{picture}</li>"


def _strip(store: Warehouse, hit: Hit) -> str:
    """Frames in which the track is visible, evenly spread, with its mask, as a `data:` address."""
    key = Key(hit.dataset, hit.split, hit.video_id, track_set=hit.track_set)
    ingested = key.of(track_set="")
    video = read_video(store, store.current("ingest", [ingested])[ingested])
    masks = store.read("masks", [store.current("precompute", [key])[key]])
    masks = masks.filter(masks["track_id"].to_numpy() == hit.track_id).sort_by("frame_index")
    areas = masks["area"].to_pylist()
    visible = [t for t, area in enumerate(areas) if area] or [*range(len(areas))]
    shown = [visible[i] for i in shown_frames(len(visible), FRAMES)]
    rles = rles_from_table(masks)
    corruption = sets_of(store, hit.dataset, hit.split)[hit.track_set].corruption
    frames = frames_of(video, corruption, [video["frames"][t] for t in shown])
    pictures = [_spotlight(frame, rles[t]) for frame, t in zip(frames, shown, strict=True)]
    return data_uri(strip(pictures, HEIGHT))


def _spotlight(frame_HW3: np.ndarray, rle: RLE) -> np.ndarray:
    """The frame inside the mask as it is, outlined, and dark around it."""
    width = 2 * max(1, len(frame_HW3) // 60) + 1  # leaves an outline of 2 pixels once scaled
    inner_HW = cv2.erode(coco.decode(rle), np.ones((width, width), np.uint8))
    return np.where(inner_HW[..., None] > 0, frame_HW3, overlay(frame_HW3 // 2, {0: rle}))
