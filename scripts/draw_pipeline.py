"""Draw docs/pipeline.png from a finished demo: a video, its mask tracks, what a sentence selects.

python scripts/draw_pipeline.py --warehouse demo-warehouse --out docs/pipeline.png
"""

import argparse
from pathlib import Path

import matplotlib.pyplot as plt

from tasks.pictures.masks_on_frames import overlay, shown_frames
from tasks.tables import read_mask_tracks
from warehouse import Key, Warehouse
from warehouse.frames import read_frames

SHOWN = 6  # frames


def main(warehouse: Path, out: Path) -> None:
    store = Warehouse(warehouse)
    run_id, dataset, split, video_id, expression_id, text = (
        store.connect()
        .sql(
            """
            SELECT run_id, dataset, split, video_id, expression_id, text
            FROM scores JOIN expressions USING (dataset, split, video_id, expression_id)
            WHERE list_has_all(tags, ['look-alike', 'moves']) AND tracks_selected = 1
            ORDER BY jf > 0.85 DESC, run_id, video_id, expression_id
            """
        )
        .fetchall()[0]
    )
    key = Key(dataset=dataset, split=split, video_id=video_id)
    video = store.read("videos", [store.current("ingest")[key]]).to_pylist()[0]
    frames = list(read_frames(Path(video["path"]), video["frames"]))
    tracks = read_mask_tracks(store, store.current("precompute")[key])
    selected = {
        row[0]
        for row in store.connect()
        .execute(
            "SELECT track_id FROM predictions "
            "WHERE selected AND run_id = ? AND split = ? AND video_id = ? AND expression_id = ?",
            [run_id, split, video_id, expression_id],
        )
        .fetchall()
    }
    rows = [
        ("video", []),
        ("mask tracks from grid prompts", range(len(tracks))),
        (f'selected for "{text}"', selected),
    ]
    shown = shown_frames(len(frames), SHOWN)
    figure, axes = plt.subplots(len(rows), SHOWN, figsize=(2 * SHOWN, 5.4))
    for (title, ids), line in zip(rows, axes, strict=True):
        for t, axis in zip(shown, line, strict=True):
            axis.imshow(overlay(frames[t], {n: tracks[n][t] for n in ids}))
            axis.set_axis_off()
        line[0].set_title(title, loc="left", fontsize=12)
    figure.tight_layout(pad=0.4)
    figure.savefig(out, dpi=80)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--warehouse", type=Path, default=Path("demo-warehouse"))
    parser.add_argument("--out", type=Path, default=Path("docs/pipeline.png"))
    options = parser.parse_args()
    main(options.warehouse, options.out)
