"""How far `sola plan` is from the truth, on embedded clips of mixed length and size.

    python -m benchmarks.costs [CLIPS]        # default 500; or: make bench

The clips have 6 to 40 frames and 108 to 360 pixels in width, in four sizes. All are precomputed
with recipe `demo`, one after the other on one thread, the longest first as a run does it. Then the
estimate of their cost in all is compared with what they cost, from the three clips that `sola plan`
chooses, from three and eight that are drawn from equal parts of them (500 times), and from the
first tenth of the run. Costs are seconds of processor time, so that other work on the machine
matters little.
"""

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from sola_model.recipes import DEMO
from tasks.costs import Estimate, estimate, spanning
from tasks.stage import make_each
from tasks.stages.ingest import ingest_split
from tasks.stages.precompute import track_plan
from tasks.track_sets import track_set_of
from warehouse import Warehouse
from warehouse.demo_data import random_scene, render_frames

SHORTEST, LONGEST = 6, 40  # frames
SCALES = (0.75, 1.0, 1.5, 2.5)
DRAWS = 500
SQL = """
SELECT frame_count, frame_count * width * height AS pixels, cpu_seconds
FROM commits
JOIN videos USING (dataset, split, video_id)
WHERE commits.stage = 'precompute'
ORDER BY created_at
"""


def write_clips(root: Path, count: int) -> None:
    """Clips in folders of frames, of lengths whose logarithms are spread evenly."""
    for n in range(count):
        rng = np.random.default_rng([7, n])
        frames = round(float(np.exp(rng.uniform(np.log(SHORTEST), np.log(LONGEST)))))
        scale = float(rng.choice(SCALES))
        frames_THW3, _ = render_frames(random_scene(rng, max(frames, 8)), range(frames))
        folder = root / f"clip_{n:04d}"
        folder.mkdir()
        for t, frame_HW3 in enumerate(frames_THW3):
            size = (round(144 * scale), round(112 * scale))
            Image.fromarray(frame_HW3).resize(size).save(folder / f"{t:05d}.jpg", quality=90)


def precompute(root: Path, place: Path) -> Warehouse:
    """All clips, the longest first."""
    outcomes = ingest_split(str(place), "folder", str(root), "all")
    store = Warehouse(place)
    frames = dict(store.connect().sql("SELECT video_id, frame_count FROM videos").fetchall())
    videos = [outcome.video_id for outcome in outcomes]
    plan = track_plan(store, "folder", "all", videos, track_set_of(DEMO))
    missing = plan.to_make()
    order = sorted(missing, key=lambda key: (-frames[key.video_id], key))
    make_each(plan.stage, store, {key: missing[key] for key in order}, plan.subject)
    return store


def report(store: Warehouse) -> None:
    columns = store.connect().sql(SQL).fetchnumpy()
    frames, costs = columns["frame_count"], columns["cpu_seconds"]
    total, count = costs.sum(), len(costs)

    def in_all(known: Sequence[int]) -> Estimate:
        rest = np.setdiff1d(np.arange(count), known)
        known_costs = costs[known].tolist()
        return estimate(frames[known].tolist(), known_costs, frames[rest].tolist()) + sum(
            known_costs
        )

    def error(known: Sequence[int]) -> float:
        return in_all(known).value / total - 1

    print(f"{count} clips, {frames.sum()} frames, {total:.0f} s of processor time")
    chosen = spanning(columns["pixels"].tolist(), 3)
    print(f"  from the three of `sola plan`: {error(chosen):+.1%}")
    print(f"  after a tenth of the run: {error(range(count // 10)):+.1%}")
    rng = np.random.default_rng(0)
    parts_of = np.argsort(columns["pixels"], kind="stable")
    for number in (3, 8):
        drawn = [
            [int(rng.choice(part)) for part in np.array_split(parts_of, number)]
            for _ in range(DRAWS)
        ]
        errors = np.abs([error(known) for known in drawn])
        found = [in_all(known) for known in drawn]
        inside = np.mean([each.low <= total <= each.high for each in found])
        print(
            f"  from {number} drawn: median error {np.median(errors):.1%}, within 15 % in "
            f"{np.mean(errors < 0.15):.0%} of draws, truth in the 90 % interval in {inside:.0%}"
        )


def main() -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder, "clips")
        root.mkdir()
        write_clips(root, int(sys.argv[1]) if len(sys.argv) > 1 else 500)
        report(precompute(root, Path(folder, "warehouse")))


if __name__ == "__main__":
    main()
