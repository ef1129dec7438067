"""Names and texts that are not Unicode fail their video; the others are read and asked."""

import json
import os
from pathlib import Path

import numpy as np
from PIL import Image

from tasks.stages.ingest import ingest_split
from warehouse import Warehouse


def write_video(folder: Path, name: bytes) -> None:
    path = os.fsencode(folder) + b"/" + name
    os.makedirs(path)
    image = np.zeros((8, 8, 3), np.uint8)
    Image.fromarray(image).save(os.path.join(os.fsdecode(path), "0.png"))


def test_a_folder_with_a_latin_1_name_fails_alone(tmp_path: Path) -> None:
    for name in (b"good", b"caf\xe9"):
        write_video(tmp_path / "videos", name)
    place = str(tmp_path / "w")
    outcomes = ingest_split(place, "folder", str(tmp_path / "videos"), "all")
    assert {o.video_id: o.status for o in outcomes} == {"good": "done", "caf\\udce9": "failed"}
    json.dumps(outcomes).encode()
    "".join(o.video_id + o.message for o in outcomes).encode()
    with Warehouse(place).connect() as connection:
        assert connection.sql("SELECT video_id FROM videos").fetchall() == [("good",)]
        failed = connection.sql("SELECT video_id, error FROM commits WHERE status = 'failed'")
        ((video_id, error),) = failed.fetchall()
    assert video_id == "caf\\udce9" and error


def test_frames_with_latin_1_names_fail_their_video(tmp_path: Path) -> None:
    for name in (b"good", b"bad"):
        write_video(tmp_path / "videos", name)
    frame = tmp_path / "videos" / "bad" / "0.png"
    os.rename(os.fsencode(frame), os.fsencode(frame.parent) + b"/\xe9.png")
    outcomes = ingest_split(str(tmp_path / "w"), "folder", str(tmp_path / "videos"), "all")
    assert {o.video_id: o.status for o in outcomes} == {"good": "done", "bad": "failed"}
    assert "frame name '\\udce9' is not usable" in next(o.message for o in outcomes if o.message)
