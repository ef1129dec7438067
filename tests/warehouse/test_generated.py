"""What the benchmarks generate is a warehouse as the stages make it."""

from pathlib import Path

import numpy as np

from benchmarks.warehouse import RUN, TRACK_SET, publish_video
from warehouse import Key, Warehouse


def test_a_generated_video_has_rows_of_every_stage(tmp_path: Path) -> None:
    store = Warehouse.create(tmp_path / "w")
    publish_video(store, Key("mevis", "train", "v"), 2, np.random.default_rng(0))
    with store.connect() as connection:
        keys = connection.sql("SELECT DISTINCT run_id, track_set FROM scores").fetchall()
    assert keys == [(RUN, TRACK_SET)]
