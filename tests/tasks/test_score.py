"""Scoring submissions of any method against a split's folder, in every layout."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco
from typer.testing import CliRunner

from flows.cli import app
from flows.progress import video_progress
from sola_model.masks.runs import union
from sola_model.metrics.jf import empty_rle, j_and_f
from tasks.score import SubmissionScores, score_submission
from tests.layouts import (
    Clip,
    write_label_image,
    write_mevis,
    write_mevis_v2,
    write_ref_davis17,
    write_ref_youtube_vos,
)
from warehouse.annotations import read_annotations
from warehouse.demo_data import render_frames
from warehouse.demo_data.counterfactual import CHANCE, SPLIT, find_pairs, write_pairs
from warehouse.sources import SourceError


def score(ground_truth: Path, predictions: Path, protocol: str | None = None) -> SubmissionScores:
    return score_submission(ground_truth, predictions, protocol, 1, video_progress)


def shifted(mask_HW: np.ndarray) -> np.ndarray:
    return np.roll(mask_HW, 3, axis=1)


def identity(mask_HW: np.ndarray) -> np.ndarray:
    return mask_HW


def predict(ground_truth: Path, protocol: str, out: Path, change=identity) -> dict:
    """Write the changed ground truth as a submission; returns what each expression must score."""
    expected = {}
    for video in read_annotations(ground_truth, protocol):
        objects = video.read_masks()
        for expression_id, names in video.expressions.items():
            empty = [empty_rle(112, 144)] * len(video.frames)
            tracks = [[rle or e for rle, e in zip(objects[n], empty, strict=True)] for n in names]
            target = [coco.merge(list(masks)) for masks in zip(empty, *tracks, strict=True)]
            masks = [change(coco.decode(rle)) for rle in target]
            folder = out / video.video_id / expression_id
            folder.mkdir(parents=True)
            for frame, mask_HW in zip(video.frames, masks, strict=True):
                Image.fromarray(mask_HW * 255).save(folder / f"{frame}.png")
            prediction = [coco.encode(np.asfortranarray(mask_HW)) for mask_HW in masks]
            expected[video.video_id, expression_id] = j_and_f(union([target]), prediction)
    return expected


@pytest.fixture
def mevis(tmp_path: Path) -> Path:
    """A labelled split; scoring needs no images."""
    write_mevis(tmp_path / "mevis", {"valid_u": 2}, frames=4)
    shutil.rmtree(tmp_path / "mevis/valid_u/JPEGImages")
    return tmp_path / "mevis/valid_u"


def test_mevis(mevis: Path, tmp_path: Path) -> None:
    expected = predict(mevis, "mevis", tmp_path / "masks", shifted)
    shutil.make_archive(str(tmp_path / "masks"), "zip", tmp_path / "masks")
    scores = score(mevis, tmp_path / "masks")
    found = {(e.video_id, e.expression_id): (e.j, e.f, e.jf) for e in scores.expressions}
    assert found == expected
    assert list(found) == list(expected)  # in the order of the data set
    assert scores.mean.jf == pytest.approx(np.mean([s.jf for s in expected.values()]))
    assert 0 < scores.mean.jf < 1
    assert score(mevis, tmp_path / "masks.zip") == scores


def test_mevis_v2_has_expressions_without_target(tmp_path: Path) -> None:
    write_mevis_v2(tmp_path, {"valid_u": 2}, frames=4)
    predict(tmp_path / "valid_u", "mevis-v2", tmp_path / "right")
    right = score(tmp_path / "valid_u", tmp_path / "right")
    assert right.mean.jf == 1
    assert right.accuracies == (1, 1)
    predict(tmp_path / "valid_u", "mevis-v2", tmp_path / "always", lambda mask: mask | 1)
    always = score(tmp_path / "valid_u", tmp_path / "always")
    assert always.accuracies == (0, 1)
    assert {e.jf for e in always.expressions if not e.has_target} == {0}


def test_ref_youtube_vos(tmp_path: Path) -> None:
    write_ref_youtube_vos(tmp_path, {"valid": 2, "test": 1}, frames=4)
    truth = tmp_path / "valid"
    expected = predict(truth, "ref-youtube-vos", tmp_path / "masks/Annotations", shifted)
    scores = score(truth, tmp_path / "masks")
    assert {(e.video_id, e.expression_id): e.jf for e in scores.expressions} == {
        name: score.jf for name, score in expected.items()
    }
    assert {e.video_id for e in scores.expressions} == {"valid_0", "valid_1"}  # none of test


@pytest.fixture
def davis(tmp_path: Path) -> tuple[Path, list[Clip]]:
    return tmp_path / "davis", write_ref_davis17(tmp_path / "davis", {"val": 2})["val"]


def write_davis(out: Path, clips: list[Clip], variant: int, labels) -> None:
    for clip in clips:
        (out / f"anno_{variant}" / clip.video_id).mkdir(parents=True)
        for frame, labels_HW in zip(clip.frames, clip.labels_THW, strict=True):
            file = out / f"anno_{variant}" / clip.video_id / f"{frame}.png"
            write_label_image(file, labels(labels_HW).astype(np.uint8))


def test_ref_davis17_matches_objects_for_each_variant(davis, tmp_path: Path) -> None:
    root, clips = davis

    def reverse(labels_HW: np.ndarray) -> np.ndarray:
        return np.where(labels_HW > 0, 20 - labels_HW, 0)

    for variant, labels in enumerate([identity, reverse, np.zeros_like, shifted]):
        write_davis(tmp_path / "masks", clips, variant, labels)
    scores = score(root, tmp_path / "masks")
    assert scores.protocol == "davis"
    by_variant = [
        {e.jf for e in scores.expressions if int(e.expression_id) % 4 == variant}
        for variant in range(4)
    ]
    assert by_variant[:3] == [{1}, {1}, {0}]  # void pixels around the objects do not count
    assert max(by_variant[3]) < 1
    objects = sum(clip.labels_THW[0].max() for clip in clips)
    assert len(scores.expressions) == 4 * objects


def test_davis_semi_supervised_takes_labels_as_they_are(davis, tmp_path: Path) -> None:
    root, clips = davis
    for variant in range(4):
        write_davis(tmp_path / "masks", clips, variant, identity)
    assert score(root, tmp_path / "masks", "davis-semi-supervised").mean.jf == 1
    assert score(root / "val", tmp_path / "masks").mean.jf == 1


def test_faults_name_the_file(mevis: Path, tmp_path: Path) -> None:
    predict(mevis, "mevis", tmp_path / "masks")
    file = tmp_path / "masks/valid_u_1/0/00002.png"
    Image.new("L", (72, 56)).save(file)
    with pytest.raises(ValueError, match=r"valid_u_1/0/00002.png: the mask is 56 x 72, but .*112"):
        score(mevis, tmp_path / "masks")
    file.unlink()
    with pytest.raises(ValueError, match=r"1 of \d+ masks are missing: valid_u_1/0/00002.png"):
        score(mevis, tmp_path / "masks")
    with pytest.raises(ValueError, match="no split of a known layout"):
        score(mevis.parent, tmp_path / "masks")
    with pytest.raises(ValueError, match="valid are: mevis, mevis-v2, ref-youtube-vos"):
        score(mevis, tmp_path / "masks", "coco")
    masks = json.loads((mevis / "mask_dict.json").read_text())
    masks["0"] = masks["0"][:-1]
    (mevis / "mask_dict.json").write_text(json.dumps(masks))
    with pytest.raises(ValueError, match=r"object '0': 3 masks for 4 frames"):
        score(mevis, tmp_path / "masks")
    (mevis / "mask_dict.json").unlink()
    with pytest.raises(ValueError, match="the split is unlabelled"):
        score(mevis, tmp_path / "masks")


def test_the_command_prints_json_and_nothing_else(mevis: Path, tmp_path: Path) -> None:
    expected = predict(mevis, "mevis", tmp_path / "masks", shifted)
    Image.new("L", (4, 4)).save(tmp_path / "masks/valid_u_0/stray.png")
    options = ["--ground-truth", str(mevis), "--predictions", str(tmp_path / "masks"),
               "--workers", "1"]  # fmt: skip
    result = CliRunner().invoke(app, ["score", *options, "--format", "json"])
    assert result.exit_code == 0
    report = json.loads(result.stdout)
    assert set(report) == {"mean", "expressions"}
    assert set(report["mean"]) == {"j", "f", "jf"}
    assert len(report["expressions"]) == len(expected)
    assert set(report["expressions"][0]) == {"video_id", "expression_id", "j", "f", "jf"}
    assert "valid_u_0/stray.png" in result.stderr
    table = CliRunner().invoke(app, ["score", *options]).stdout
    assert f"{100 * report['mean']['jf']:6.2f}" in table.splitlines()[-2]


PAIRS, FRAMES = 2, 8


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A split of counterfactual pairs."""
    root = tmp_path_factory.mktemp("pairs")
    write_pairs(root, PAIRS, frames=FRAMES)
    return root / SPLIT


def answer_pairs(out: Path, select) -> None:
    """Write masks as answers to the pairs: `select` of a clip's masks (N, T, H, W)."""
    for kind in CHANCE:
        for number, pair in enumerate(find_pairs(kind, PAIRS, 0, FRAMES)):
            for letter, clip in zip("ab", pair, strict=True):
                folder = out / f"{kind}_{number:04d}_{letter}" / "0"
                folder.mkdir(parents=True)
                _, masks_NTHW = render_frames(clip.scene)
                for frame, mask_HW in enumerate(select(masks_NTHW)):
                    image = Image.fromarray(mask_HW.astype(np.uint8) * 255)
                    image.save(folder / f"{frame:05d}.png")


def test_pairs_are_consistent_where_both_answers_are_right(pairs: Path, tmp_path: Path) -> None:
    predict(pairs, "mevis", tmp_path / "right")
    right = score(pairs, tmp_path / "right")
    assert {kind: tuple(found) for kind, found in right.consistency.items()} == {
        **{kind: (1, PAIRS) for kind in CHANCE},
        "all": (1, PAIRS * len(CHANCE)),
    }
    assert right.as_json()["consistency"]["swapped"] == {"share": 1, "pairs": PAIRS}
    command = ["score", "--ground-truth", str(pairs), "--predictions", str(tmp_path / "right")]
    printed = CliRunner().invoke(app, command).output
    assert f"both answers right, all: 100.00 of {PAIRS * len(CHANCE)} pairs" in printed


def test_looks_alone_answer_pairs_at_chance(pairs: Path, tmp_path: Path) -> None:
    found = {}
    for name, select in {
        "first": lambda masks_NTHW: masks_NTHW[0],
        "second": lambda masks_NTHW: masks_NTHW[1],
        "both": lambda masks_NTHW: masks_NTHW[:2].any(axis=0),
        "none": lambda masks_NTHW: masks_NTHW[0] & False,
    }.items():
        answer_pairs(tmp_path / name, select)
        scored = score(pairs, tmp_path / name)
        found[name] = {kind: share for kind, (share, _) in scored.consistency.items()}
    for kind, chance in CHANCE.items():
        # The first look-alike is the one that is taken away: who takes it knows more than looks.
        if kind != "removed":
            assert (found["first"][kind] + found["second"][kind]) / 2 == chance
        assert found["second"][kind] == found["both"][kind] == found["none"][kind] == 0


def test_masks_without_pairs_have_no_consistency(mevis: Path, tmp_path: Path) -> None:
    predict(mevis, "mevis", tmp_path / "masks")
    scores = score(mevis, tmp_path / "masks")
    assert scores.consistency == {} and "consistency" not in scores.as_json()


@pytest.mark.parametrize("pair", ["reversed/0", "reversed", 3, ["reversed/0"]])
def test_a_pair_that_is_none_is_named(mevis: Path, tmp_path: Path, pair) -> None:
    predict(mevis, "mevis", tmp_path / "masks")
    meta = json.loads((mevis / "meta_expressions.json").read_text())
    expressions = next(iter(meta["videos"].values()))["expressions"]
    next(iter(expressions.values()))["pair"] = pair
    (mevis / "meta_expressions.json").write_text(json.dumps(meta))
    with pytest.raises(SourceError, match="has 1 expressions; a pair is two expressions"):
        score(mevis, tmp_path / "masks")
