"""What a run is sure of becomes a data set that our own reader takes and a run trains on."""

import json
import shutil
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco
from typer.testing import CliRunner

from flows.cli import app
from tasks.results.label_export import export_labels
from tasks.tables import read_mask_tracks
from tests.layouts import write_video
from tests.tasks import stages
from tests.tasks.conftest import RECIPE, add_split
from warehouse import TABLES, Key, Warehouse, WarehouseError
from warehouse.frames import read_frames
from warehouse.sources import read_split
from warehouse.sources.check import check_dataset


def quiet(stage: str, total: int) -> nullcontext:
    return nullcontext(lambda videos, failed: None)


def export(store: Warehouse, out: Path, above: float, split: str = "valid_u", name: str = "auto"):
    return export_labels(store.url, None, "demo", split, above, out, name, 1, quiet)


def sure_expressions(store: Warehouse, above: float) -> dict[tuple[str, str], list[int]]:
    """By SQL: (video, expression) -> the tracks it selects, all of them above the score."""
    sql = """
        SELECT video_id, expression_id, list(track_id ORDER BY track_id)
        FROM predictions WHERE selected
        GROUP BY ALL HAVING min(score) > $above
    """
    found = store.connect().sql(sql, params={"above": above}).fetchall()
    return {(video, expression): tracks for video, expression, tracks in found}


@pytest.fixture(scope="module")
def above(evaluated_demo: Warehouse) -> float:
    """A score that about half of the expressions with a selection are above."""
    sql = "SELECT median(s) FROM (SELECT min(score) AS s FROM predictions WHERE selected GROUP BY "
    (row,) = evaluated_demo.connect().sql(f"{sql}video_id, expression_id)").fetchall()
    return row[0]


def test_what_is_written_is_what_the_run_is_sure_of(evaluated_demo, above, tmp_path) -> None:
    out = tmp_path / "auto"
    made = export(evaluated_demo, out, above)
    expected = sure_expressions(evaluated_demo, above)
    assert 0 < len(expected) < made.of_expressions
    (check,) = check_dataset("mevis", out, [], quiet, full=True)
    assert (check.split, check.problems) == ("auto", ())
    assert (check.videos, check.expressions) == (made.videos, made.expressions)
    found = {}
    for video in read_split("mevis", out, "auto"):
        key = Key("demo", "valid_u", video.video_id)
        (tracked,) = evaluated_demo.current("precompute", video_id=video.video_id).values()
        tracks = read_mask_tracks(evaluated_demo, tracked)
        source = evaluated_demo.read("videos", [evaluated_demo.current("ingest")[key]]).to_pylist()
        assert list(video.frames) == source[0]["frames"]
        for e in video.expressions:
            ids = expected[video.video_id, e.expression_id]
            assert len(e.object_ids) == len(ids)
            for object_id, n in zip(e.object_ids, ids, strict=True):
                for rle, track_rle in zip(video.ground_truth[object_id], tracks[n], strict=True):
                    track_HW = coco.decode(track_rle)
                    written_HW = np.zeros_like(track_HW) if rle is None else coco.decode(rle)
                    np.testing.assert_array_equal(written_HW, track_HW)
            found[video.video_id, e.expression_id] = ids
    assert found == expected
    assert json.loads((out / "label_export.json").read_text())["above"] == above


def test_the_result_is_training_data(evaluated_demo, above, tmp_path) -> None:
    """Its own tracks, extracted again from its frames, are its positives."""
    root = tmp_path / "w"
    shutil.copytree(evaluated_demo.root, root)
    export(evaluated_demo, tmp_path / "auto", above)
    add_split(str(root), "demo", tmp_path / "auto", "auto")
    labels = (
        Warehouse(root)
        .connect()
        .sql(
            "SELECT video_id, expression_id, list(track_id ORDER BY track_id) FROM pseudo_labels "
            "WHERE split = 'auto' AND label GROUP BY ALL"
        )
    )
    assert {
        (video, expression): tracks for video, expression, tracks in labels.fetchall()
    } == sure_expressions(evaluated_demo, above)
    splits = [("demo", "train"), ("demo", "auto")]
    run = stages.train(Warehouse(root), splits, [("demo", "valid_u")], RECIPE)
    assert run.split == "train+auto"


def test_frames_of_files_and_of_other_formats_become_jpegs(evaluated_demo, tmp_path) -> None:
    root = tmp_path / "w"
    shutil.copytree(evaluated_demo.root, root)
    store = Warehouse(root)
    keys = list(store.current("ingest", split="valid_u"))
    rows = [store.read("videos", [store.current("ingest")[key]]).to_pylist()[0] for key in keys]
    pictures = [list(read_frames(Path(row["path"]), row["frames"])) for row in rows]
    write_video(tmp_path / "v.mp4", np.stack(pictures[0]))
    rows[0] |= {"path": str(tmp_path / "v.mp4"), "frames": [f"{t:05d}" for t in range(8)]}
    (tmp_path / "png").mkdir()
    for name, picture_HW3 in zip(rows[1]["frames"], pictures[1], strict=True):
        Image.fromarray(picture_HW3).save(tmp_path / "png" / f"{name}.png")
    rows[1]["path"] = str(tmp_path / "png")
    rows[2]["path"] = str(tmp_path / "gone")
    for key, row in zip(keys, rows, strict=True):
        commit = store.current("ingest")[key]
        tables = {name: store.read(name, [commit]) for name in ("expressions", "ground_truth")}
        videos = TABLES["videos"].empty_table().from_pylist([row], schema=TABLES["videos"])
        tables["videos"] = videos
        store.publish("ingest", key, "moved", tables, contents=commit.contents)
    made = export(store, tmp_path / "auto", 0.0)
    assert made.videos == 2
    (message,) = made.skipped
    assert message.startswith(f"{keys[2].video_id}: ") and "gone" in message
    (check,) = check_dataset("mevis", tmp_path / "auto", [], quiet, full=True)
    assert (check.videos, check.frames, check.problems) == (2, 16, ())
    for key, expected in zip(keys[:2], pictures[:2], strict=True):
        frames = sorted((tmp_path / "auto/auto/JPEGImages" / key.video_id).iterdir())
        for file, frame_HW3 in zip(frames, expected, strict=True):
            assert Image.open(file).format == "JPEG"
            assert np.abs(np.asarray(Image.open(file)) - frame_HW3.astype(int)).mean() < 12


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"above": 1.0}, "the score is 1.0"),
        ({"above": 0.999}, "none of 40 expressions has a score above 0.999 .the highest is 0"),
        ({"name": "valid"}, "a split named 'valid' counts as unlabelled"),
        ({"name": "../x"}, "not usable as a file name"),
        ({"split": "other"}, "no tracks of demo/other .*sola precompute"),
        ({"out": "there"}, "there is there already"),
        ({"out": "no/such/folder"}, "cannot be written: No such file"),
    ],
)
def test_errors_leave_nothing_behind(evaluated_demo, tmp_path, arguments, message) -> None:
    (tmp_path / "there").mkdir()
    out = tmp_path / arguments.pop("out", "auto")
    with pytest.raises(ValueError, match=message):
        export(evaluated_demo, out, **{"above": 0.0} | arguments)
    assert [path.name for path in tmp_path.iterdir()] == ["there"]


def test_a_run_that_is_not_there_is_named(evaluated_demo, tmp_path) -> None:
    with pytest.raises(WarehouseError, match="there is no run nobody"):
        export_labels(
            evaluated_demo.url, "nobody", "demo", "valid_u", 0.5, tmp_path / "a", "auto", 1, quiet
        )


def test_the_command_says_what_it_wrote(evaluated_demo, tmp_path) -> None:
    out = tmp_path / "auto"
    where = ["--warehouse", evaluated_demo.url, "--dataset", "demo", "--split", "valid_u"]
    arguments = ["label-export", *where, "--out", str(out), "--above", "0.0", "--workers", "1"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert str(out / "auto") in result.stdout
    assert CliRunner().invoke(app, arguments).exit_code == 1
    check = CliRunner().invoke(app, ["check", str(out), "--dataset", "mevis"])
    assert check.exit_code == 0, check.output
