"""Figures of experiments as PNG files, and pictures of predictions."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from tasks.pictures.masks_on_frames import jpeg, overlay, shown_frames, strip
from tasks.results.predictions import EvaluatedVideo
from tasks.tables import read_mask_tracks, read_objects, read_video
from warehouse import Warehouse
from warehouse.frames import frames_of
from warehouse.submissions import replacing

FRAMES, HEIGHT = 6, 160  # of a strip


def draw_similarity(path: Path, buckets: Sequence[tuple[float, float, float]]) -> None:
    """Token similarity over mIoU (paper Figure 4): start of each bucket, mean, deviation."""
    start, mean, spread = np.array(buckets).T
    x = start + 0.05
    figure = Figure(figsize=(5, 3.5), layout="constrained")
    axes = figure.subplots()
    axes.fill_between(x, mean - spread, mean + spread, alpha=0.25)
    axes.plot(x, mean, marker="o", linewidth=2)
    axes.set(xlabel="mIoU of masks", ylabel="cosine similarity of object tokens", xlim=(0, 1))
    _save(figure, path)


def draw_scores(
    path: Path, points: Sequence[tuple[float, Sequence[float], str]], xlabel: str, line: bool
) -> None:
    """J&F in percent, mean and spread, over something: (x, fractions over seeds, name) each."""
    figure = Figure(figsize=(5, 3.5), layout="constrained")
    axes = figure.subplots()
    x = [point[0] for point in points]
    mean = [100 * np.mean(values) for _, values, _ in points]
    spread = [
        100 * float(np.std(values, ddof=1)) if len(values) > 1 else 0.0 for _, values, _ in points
    ]
    axes.errorbar(x, mean, spread, marker="o", capsize=3, linestyle="-" if line else "none")
    for position, height, (_, _, name) in zip(x, mean, points, strict=True):
        axes.annotate(name, (position, height), (4, 4), textcoords="offset points", fontsize=7)
    axes.set(xlabel=xlabel, ylabel="J&F (%)")
    _save(figure, path)


def draw_prediction(
    path: Path, evaluated: EvaluatedVideo, expression_id: str, selected: Sequence[int]
) -> None:
    """Two strips of a video: the ground truth of an expression, and the tracks selected for it."""
    store, ingested = Warehouse(evaluated.warehouse), evaluated.ingested
    video, objects = read_video(store, ingested), read_objects(store, ingested)
    rows = store.read("expressions", [ingested]).to_pylist()
    (ids,) = (row["object_ids"] for row in rows if row["expression_id"] == expression_id)
    tracks = read_mask_tracks(store, *evaluated.tracks)
    chosen = shown_frames(video["frame_count"], FRAMES)
    frames = list(frames_of(video, evaluated.corruption, [video["frames"][t] for t in chosen]))
    truth = {n: objects[i] for n, i in enumerate(objects) if i in (ids or ())}
    strips = [
        strip(
            [
                overlay(frame_HW3, {n: masks[t] for n, masks in shown.items()})
                for t, frame_HW3 in zip(chosen, frames, strict=True)
            ],
            HEIGHT,
        )
        for shown in (truth, {n: tracks[n] for n in selected})
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as stream:
        stream.write(jpeg(np.concatenate(strips)))


def _save(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as stream:
        figure.savefig(stream, dpi=150, format=path.suffix[1:])
