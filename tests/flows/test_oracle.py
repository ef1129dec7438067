"""`sola oracle`: of a track set and of files of the same tracks, the same."""

import json
from collections.abc import Iterator
from itertools import chain, combinations
from pathlib import Path

import numpy as np
import pytest
from pycocotools import mask as coco
from typer.testing import CliRunner, Result

from flows.cli import app
from sola_model.masks.runs import empty_track, pack, union
from sola_model.metrics.jf import j_and_f_many
from tasks.results.coco import segmentations, write_coco
from tasks.tables import read_expressions, read_mask_tracks, read_objects, read_video
from tests.flows.report_page_sample import RUN, TRACKS, write_sample
from warehouse import Commit, Warehouse
from warehouse.submissions import encode_mask, label_palette, write_zip

SPLIT = ["--dataset", "demo", "--split", "valid_u", "--workers", "1"]


def sola(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments], env={"COLUMNS": "200"})


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Warehouse:
    return write_sample(tmp_path_factory.mktemp("oracle"))


@pytest.fixture(scope="module")
def report(store: Warehouse) -> dict:
    result = sola("oracle", *SPLIT, "--warehouse", store.url, "--format", "json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def videos(store: Warehouse) -> Iterator[tuple[Commit, dict, list]]:
    """Of valid_u: the ingested commit, the row of `videos` and the mask tracks."""
    tracked = store.current("precompute", split="valid_u", track_set=TRACKS.name)
    for key, commit in tracked.items():
        ingested = store.current("ingest")[key.of(track_set="")]
        yield ingested, read_video(store, ingested), read_mask_tracks(store, commit)


def test_it_is_the_best_of_all_unions(store: Warehouse, report: dict) -> None:
    best = []
    for ingested, row, tracks in videos(store):
        nothing = empty_track(row["height"], row["width"], row["frame_count"])
        objects = read_objects(store, ingested)
        names = range(len(tracks))
        sets = chain.from_iterable(combinations(names, k) for k in range(len(tracks) + 1))
        unions = [union([nothing, *(pack(tracks[n]) for n in some)]) for some in sets]
        for expression in read_expressions(store, ingested):
            target = union([nothing, *(pack(objects[o]) for o in expression.object_ids)])
            best.append(max(score.jf for score in j_and_f_many(target, unions)))
    (whole, *slices) = report["slices"]
    assert whole["slice"] == "all" and whole["expressions"] == len(best)
    assert (
        whole["oracle_jf"] == whole["oracle_bound"] == pytest.approx(100 * np.mean(best), abs=0.01)
    )
    assert whole["certified"] == 100 and report["open"] == []
    assert whole["better_tracks"] == pytest.approx(100 - whole["oracle_jf"], abs=0.011)
    sizes = [row["expressions"] for row in slices if row["slice"] == "targets"]
    assert sum(sizes) == len(best) and len(sizes) > 1


def test_a_better_selection_is_what_the_run_lacks(store: Warehouse, report: dict) -> None:
    jf = store.connect().sql("SELECT 100 * avg(jf) FROM scores").fetchall()[0][0]
    whole = report["slices"][0]
    assert report["run_id"] == RUN
    assert whole["better_selection"] == pytest.approx(whole["oracle_jf"] - jf, abs=0.02)


def test_objects_are_covered_by_one_track_each(store: Warehouse, report: dict) -> None:
    """The sample's tracks are the objects, moved."""
    objects = sum(len(read_objects(store, ingested)) for ingested, *_ in videos(store))
    covers = report["coverage"]
    assert covers["objects"] == objects and covers["oracle_j"] == covers["one_track_j"] > 50
    assert covers["fragmented"] == covers["duplicates"] == 0


def write_masks_json(store: Warehouse, out: Path) -> None:
    rows = []
    for _, row, tracks in videos(store):
        size = {"height": row["height"], "width": row["width"]}
        files = [f"{row['video_id']}/{frame}.jpg" for frame in row["frames"]]
        found = {"annotations": [segmentations(track) for track in tracks]}
        rows.append(({"name": row["video_id"], "file_names": files, **size}, found))
    write_coco(out, rows)


def write_mask_dict(store: Warehouse, out: Path) -> None:
    found = {
        f"{row['video_id']}/{n}": track
        for _, row, tracks in videos(store)
        for n, track in enumerate(tracks)
    }
    out.write_text(json.dumps(found))


def write_images(store: Warehouse, out: Path) -> None:
    """Each track by itself: label images cannot show those that overlap."""
    files = [
        (f"{row['video_id']}/{n}/{frame}.png", encode_mask(coco.decode(mask), label_palette()))
        for _, row, tracks in videos(store)
        for n, track in enumerate(tracks)
        for frame, mask in zip(row["frames"], track, strict=True)
    ]
    write_zip(out, files)


@pytest.mark.parametrize(
    ("name", "write"),
    [("t.json", write_masks_json), ("mask_dict.json", write_mask_dict), ("t.zip", write_images)],
)
def test_a_file_of_the_same_tracks_has_the_same_oracle(
    store: Warehouse, report: dict, tmp_path: Path, name: str, write
) -> None:
    write(store, tmp_path / name)
    truth = Path(store.root).parent / "data" / "valid_u"
    given = ["--ground-truth", truth, "--file", tmp_path / name, "--workers", "1"]
    result = sola("oracle", *given, "--format", "json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    without = ("better_selection", "not_found_before")
    known = {(row["slice"], row["value"]): row for row in report["slices"]}
    assert len(found["slices"]) > 5 and found["run_id"] is None
    for row in found["slices"]:
        theirs = known[row["slice"], row["value"]]
        assert {n: v for n, v in row.items() if n not in without} == {
            n: v for n, v in theirs.items() if n not in without
        }
    assert found["coverage"] == report["coverage"]
    table = sola("oracle", *given)
    assert table.exit_code == 0 and f"{found['slices'][0]['oracle_jf']:.2f}" in table.output


def test_what_is_not_certain_is_said(store: Warehouse, tmp_path: Path, monkeypatch) -> None:
    """Tracks that overlap the objects here and there, and a search that may do nothing."""
    rng = np.random.default_rng(0)
    found = {}
    for _, row, tracks in videos(store):
        for n in range(12):
            masks = [np.roll(coco.decode(mask), rng.integers(-9, 9, 2), (0, 1))
                     for mask in tracks[n % len(tracks)]]  # fmt: skip
            rles = [coco.encode(np.asfortranarray(mask)) for mask in masks]
            found[f"{row['video_id']}/{n}"] = [
                {**rle, "counts": rle["counts"].decode()} for rle in rles
            ]
    (tmp_path / "mask_dict.json").write_text(json.dumps(found))
    monkeypatch.setattr("flows.commands.oracle.MILLION", 0)
    truth = Path(store.root).parent / "data" / "valid_u"
    given = ["--ground-truth", truth, "--file", tmp_path / "mask_dict.json", "--workers", "1"]
    result = sola("oracle", *given)
    assert result.exit_code == 0 and "not certain (--work more)" in result.output
    report = json.loads(sola("oracle", *given, "--format", "json").stdout)
    whole = report["slices"][0]
    assert whole["certified"] < 100 and whole["oracle_bound"] > whole["oracle_jf"]
    assert all(each["jf_bound"] >= each["jf"] for each in report["open"])


def test_a_second_call_measures_nothing_again(store: Warehouse, report: dict) -> None:
    before = {commit.created_at for commit in store.current("oracle").values()}
    assert before and sola("oracle", *SPLIT, "--warehouse", store.url).exit_code == 0
    assert {commit.created_at for commit in store.current("oracle").values()} == before
