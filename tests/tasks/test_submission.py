"""Submissions and exports of a run, written from a warehouse and read back by the scorer."""

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from pycocotools import mask as coco
from typer.testing import CliRunner

from flows.cli import app
from flows.progress import video_progress
from sola_model.recipes import DEMO
from tasks.results.export import export
from tasks.results.score import score_submission
from tasks.results.submission import write_submission
from tasks.stages.ingest import ingest_split
from tasks.stages.scoring import score_tables
from tasks.tables import read_expressions, read_objects, read_video, rows
from tasks.track_sets import remember, track_set_of
from tests.layouts import write_mevis_v2, write_ref_davis17, write_ref_youtube_vos
from tests.untrained import publish_untrained
from warehouse import TABLES, Warehouse, WarehouseError
from warehouse.masks import mask_columns
from warehouse.submissions import list_masks, read_mask

DATASETS = {
    "mevis-v2": (write_mevis_v2, "valid_u", "valid_u"),
    "ref-youtube-vos": (write_ref_youtube_vos, "valid", "valid"),
    "ref-davis17": (write_ref_davis17, "val", "."),
}
TRACKS = track_set_of(DEMO)


def grown(rle: dict, t: int) -> dict:
    """A mask a little off, and gone in the last frame."""
    mask_HW = coco.decode(rle)
    moved_HW = np.zeros_like(mask_HW) if t == 3 else mask_HW | np.roll(mask_HW, 2, axis=0)
    return coco.encode(np.asfortranarray(moved_HW))


def publish(store: Warehouse, ingested) -> None:
    """Tracks near the objects, and a run that selects some at random; the scores of that."""
    key, rng = ingested.key, np.random.default_rng(5)
    objects = {name: m for name, m in read_objects(store, ingested).items() if name != "void"}
    tracks = [[grown(rle, t) for t, rle in enumerate(masks)] for masks in objects.values()]
    masks = mask_columns([rle for masks in tracks for rle in masks])
    by_frame = {
        "track_id": np.repeat(np.arange(len(tracks)), 4),
        "frame_index": np.tile(np.arange(4), len(tracks)),
    }
    empty = {name: TABLES[name].empty_table() for name in ("prompts", "tracks", "tokens")}
    tracked = key.of(track_set=TRACKS.name)
    masks = rows("masks", tracked, by_frame | masks)
    store.publish("precompute", tracked, "f", {"masks": masks, **empty})
    expressions = read_expressions(store, ingested)
    scores_EN = rng.random((len(expressions), len(tracks))).astype(np.float32)
    expression_K, track_K = np.indices(scores_EN.shape).reshape(2, -1)
    columns = {
        "expression_id": [expressions[e].expression_id for e in expression_K],
        "track_id": track_K,
        "score": scores_EN.ravel(),
        "selected": scores_EN.ravel() > 0.5,
    }
    of_run = tracked.of(run_id="run")
    video, truth = read_video(store, ingested), read_objects(store, ingested)
    scored = score_tables(of_run, video, expressions, tracks, truth, scores_EN, 0.5)
    predictions = rows("predictions", of_run, columns)
    store.publish("evaluate", of_run, "f", {"predictions": predictions, **scored})


@pytest.fixture(scope="module", params=DATASETS)
def evaluated(request, tmp_path_factory) -> tuple[Warehouse, str, str, Path]:
    """A warehouse with a run's predictions; data set, split, and the split's folder."""
    write, split, folder = DATASETS[request.param]
    data = tmp_path_factory.mktemp("data")
    write(data, {split: 2}, frames=4)
    store = Warehouse.create(tmp_path_factory.mktemp("w") / "w")
    ingest_split(store.url, request.param, str(data), split)
    publish_untrained(store, DEMO)
    remember(store, request.param, split, TRACKS)
    for commit in store.current("ingest").values():
        publish(store, commit)
    return store, request.param, split, data / folder


def test_a_submission_scores_as_the_warehouse_says(evaluated, tmp_path: Path) -> None:
    store, dataset, split, truth = evaluated
    zips = [tmp_path / "a.zip", tmp_path / "b.zip"]
    for out in zips:
        count = write_submission(store.url, None, dataset, split, out, 1, video_progress)
    assert zips[0].read_bytes() == zips[1].read_bytes()
    with zipfile.ZipFile(zips[0]) as archive:
        names = archive.namelist()
    assert len(names) == count
    scores = score_submission(truth, zips[0], None, 1, video_progress)
    assert not scores.unused
    found = {(e.video_id, e.expression_id): (e.j, e.f, e.jf) for e in scores.expressions}
    table = store.connect().sql("SELECT video_id, expression_id, j, f, jf FROM scores").fetchall()
    if dataset == "ref-davis17":  # merged and matched: other rules than one mask by itself
        assert names[0] == "anno_0/val_0/00000.png"
        assert set(found) == {row[:2] for row in table}
        return
    top = {"mevis-v2": "", "ref-youtube-vos": "Annotations/"}[dataset]
    assert all(name.startswith(f"{top}{split}_") for name in names)
    assert found == {row[:2]: row[2:] for row in table}
    assert 0 < scores.mean.jf < 1


@pytest.mark.parametrize("evaluated", ["ref-davis17"], indirect=True)
def test_labels_of_ref_davis17_are_those_of_the_highest_score(evaluated, tmp_path: Path) -> None:
    store, dataset, split, _ = evaluated
    write_submission(store.url, "run", dataset, split, tmp_path / "a.zip", 1, video_progress)
    chosen = "SELECT * FROM predictions WHERE selected AND video_id = 'val_1'"
    predictions = store.connect().sql(chosen).to_arrow_table().to_pylist()
    masks = (
        store.connect()
        .sql("SELECT * FROM masks WHERE frame_index = 1 AND video_id = 'val_1'")
        .to_arrow_table()
    )
    track = {m["track_id"]: m for m in masks.to_pylist()}
    for variant in range(4):
        best = {}
        for p in predictions:
            if int(p["expression_id"]) % 4 == variant:
                m = track[p["track_id"]]
                mask_HW = coco.decode({"size": [m["height"], m["width"]], "counts": m["counts"]})
                for pixel in zip(*np.nonzero(mask_HW), strict=True):
                    label = int(p["expression_id"]) // 4 + 1
                    best[pixel] = max(best.get(pixel, (0, 0)), (p["score"], -label))
        expected_HW = np.zeros((112, 144), int)
        for pixel, (_, label) in best.items():
            expected_HW[pixel] = -label
        written_HW = read_mask(tmp_path / "a.zip", f"anno_{variant}/val_1/00001.png")
        np.testing.assert_array_equal(written_HW, expected_HW)


def test_exports_agree_with_each_other(evaluated, tmp_path: Path) -> None:
    store, dataset, split, _ = evaluated

    def written(what: str, format: str) -> Path:
        out = tmp_path / f"{what}.{format}"
        assert export(store.url, None, dataset, split, what, format, out, 1, video_progress)
        return out

    predictions = json.loads(written("predictions", "coco").read_text())
    tracks = json.loads(written("tracks", "coco").read_text())
    assert predictions["videos"] == tracks["videos"]
    assert {c["id"] for c in tracks["categories"]} == {1}
    chosen = {
        (t["video_id"], e): [u for u in tracks["annotations"]
                             if u["video_id"] == t["video_id"] and e in u["expression_ids"]]
        for t in tracks["annotations"] for e in t["expression_ids"]
    }  # fmt: skip
    images = written("predictions", "png")
    for instance in predictions["annotations"]:
        video = predictions["videos"][instance["video_id"] - 1]
        members = chosen.get((instance["video_id"], instance["expression_id"]), [])
        assert instance["score"] <= max((t["score"] for t in members), default=0)
        for t, rle in enumerate(instance["segmentations"]):
            of_tracks = [m["segmentations"][t] for m in members if m["segmentations"][t]]
            mask_HW = np.zeros((112, 144), bool) if rle is None else coco.decode(rle) > 0
            assert mask_HW.sum() == (instance["areas"][t] or 0)
            union_HW = np.zeros((112, 144), bool)
            for track in of_tracks:
                union_HW |= coco.decode(track) > 0
            np.testing.assert_array_equal(mask_HW, union_HW)
            frame = Path(video["file_names"][t]).stem
            name = f"{video['name']}/{instance['expression_id']}/{frame}.png"
            np.testing.assert_array_equal(read_mask(images, name) > 0, mask_HW)
    of_videos = written("tracks", "png")
    frames = sum(video["length"] for video in tracks["videos"])
    assert len(list_masks(of_videos, {v["name"] for v in tracks["videos"]})) == frames


def test_predictions_that_are_missing_are_named(evaluated, tmp_path: Path) -> None:
    store, dataset, split, _ = evaluated
    with pytest.raises(WarehouseError, match=r"no tracks of .*/other .*sola precompute"):
        write_submission(store.url, "run", dataset, "other", tmp_path / "a", 1, video_progress)
    with pytest.raises(ValueError, match="cannot export 'masks'; valid are: predictions, tracks"):
        export(store.url, None, dataset, split, "masks", "coco", tmp_path / "a", 1, video_progress)
    assert not list(tmp_path.iterdir())


def test_the_commands_say_what_they_wrote(evaluated, tmp_path: Path) -> None:
    store, dataset, split, _ = evaluated
    where = ["--warehouse", store.url, "--dataset", dataset, "--split", split, "--workers", "1"]
    for command in (["submit"], ["export", "--format", "png"], ["export", "--what", "tracks"]):
        out = tmp_path / f"{len(list(tmp_path.iterdir()))}"
        result = CliRunner().invoke(app, [*command, "--out", str(out), *where])
        assert result.exit_code == 0, result.output
        assert out.is_file()
        assert str(out) in result.stdout
