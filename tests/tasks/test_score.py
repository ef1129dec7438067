"""Scoring submissions of any method against a split's folder, in every layout."""

import json
import re
import shutil
import zipfile
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
from tasks.results.score import SubmissionScores, score_submission
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
from warehouse.submissions import SubmissionError


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


@pytest.fixture
def small(tmp_path: Path) -> tuple[Path, Path]:
    """A MeViS split of one video, expression and object, and its perfect submission."""
    mask_HW = np.zeros((40, 60), np.uint8)
    mask_HW[10:20, 10:30] = 1
    rle = coco.encode(np.asfortranarray(mask_HW))
    rle = {"size": list(rle["size"]), "counts": rle["counts"].decode()}
    meta = {"expressions": {"0": {"exp": "x", "anno_id": [7]}}, "frames": ["00000", "00001"]}
    (tmp_path / "truth").mkdir()
    (tmp_path / "truth/meta_expressions.json").write_text(json.dumps({"videos": {"v": meta}}))
    (tmp_path / "truth/mask_dict.json").write_text(json.dumps({"7": [rle, rle]}))
    (tmp_path / "masks/v/0").mkdir(parents=True)
    for frame in meta["frames"]:
        Image.fromarray(mask_HW * 255).save(tmp_path / f"masks/v/0/{frame}.png")
    return tmp_path / "truth", tmp_path / "masks"


def test_nothing_to_score(small: tuple[Path, Path]) -> None:
    truth, masks = small
    meta = {"videos": {"v": {"expressions": {}, "frames": ["00000", "00001"]}}}
    (truth / "meta_expressions.json").write_text(json.dumps(meta))
    with pytest.raises(ValueError, match="truth: lists no expressions"):
        score(truth, masks)


@pytest.mark.parametrize("trouble", ["damaged", "encrypted", "cut", "method"])
def test_zips_that_cannot_be_read(small: tuple[Path, Path], tmp_path: Path, trouble: str) -> None:
    truth, masks = small
    with zipfile.ZipFile(tmp_path / "p.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(masks.rglob("*.png")):
            archive.write(file, file.relative_to(masks).as_posix())
    content = bytearray((tmp_path / "p.zip").read_bytes())
    if trouble == "damaged":
        content[60:80] = b"\xff" * 20
    elif trouble == "cut":
        content = content[:-200]
    else:  # a bit, or the number of the compression, in every header
        offset, value = (0, 1) if trouble == "encrypted" else (2, 97)
        for signature, flags in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
            place = -1
            while (place := content.find(signature, place + 1)) >= 0:
                content[place + flags + offset] = value
    (tmp_path / "p.zip").write_bytes(bytes(content))
    with pytest.raises(SubmissionError, match=r"p\.zip"):
        score(truth, tmp_path / "p.zip")


@pytest.mark.parametrize(
    ("trouble", "said"),
    [
        ("jpg", r"instead: 2 \.jpg \(v/0/00000\.jpg\); masks are files that end in \.png"),
        ("PNG", r"instead: 2 \.PNG \(v/0/00000\.PNG\); masks are files that end in \.png"),
        ("names", r"instead: 2 \.png \(v/0/0\.png\)"),
        ("backslash", r"instead: 2 \.png \(v\\0\\00000\.png\); the names must have /"),
        ("zip", r"instead: 1 \.zip \(in\.zip\); unpack the zip in it"),
        ("nothing", r"instead: no files"),
    ],
)
def test_what_is_there_instead_of_the_masks(
    small: tuple[Path, Path], tmp_path: Path, trouble: str, said: str
) -> None:
    truth, masks = small
    files = sorted(masks.rglob("*.png"))
    if trouble in ("backslash", "zip"):
        with zipfile.ZipFile(tmp_path / "in.zip", "w") as archive:
            for file in files:
                entry = zipfile.ZipInfo("x")
                entry.filename = file.relative_to(masks).as_posix().replace("/", "\\")
                archive.writestr(entry, file.read_bytes())
        masks = tmp_path / "in.zip"
        if trouble == "zip":
            masks = tmp_path / "p.zip"
            with zipfile.ZipFile(masks, "w") as archive:
                archive.write(tmp_path / "in.zip", "in.zip")
    for file in files:
        if trouble == "nothing":
            file.unlink()
        elif trouble in ("jpg", "PNG"):
            file.rename(file.with_suffix(f".{trouble}"))
        elif trouble == "names":
            file.rename(file.with_name(f"{int(file.stem)}.png"))
    with pytest.raises(SubmissionError, match="2 of 2 masks are missing") as raised:
        score(truth, masks)
    assert re.search(said, str(raised.value)), raised.value


def youtube(folder: Path, object_id: str, labels_HW: np.ndarray) -> Path:
    """Ref-YouTube-VOS's valid split with one label image for both frames of a video."""
    (folder / "meta_expressions/valid").mkdir(parents=True)
    (folder / "valid/Annotations/v").mkdir(parents=True)
    frames = ["00000", "00001"]
    meta = {"expressions": {"0": {"exp": "x", "obj_id": object_id}}, "frames": frames}
    file = folder / "meta_expressions/valid/meta_expressions.json"
    file.write_text(json.dumps({"videos": {"v": meta}}))
    for frame in frames:
        Image.fromarray(labels_HW).save(folder / f"valid/Annotations/v/{frame}.png")
    return folder / "valid"


def test_objects_of_label_images(small: tuple[Path, Path], tmp_path: Path) -> None:
    """255 is an object like another in Ref-YouTube-VOS; an object must be shown somewhere."""
    _, masks = small
    mask_HW = (np.array(Image.open(masks / "v/0/00000.png")) > 0).astype(np.uint8)
    edged_HW = mask_HW.copy()
    edged_HW[9, 10:30] = 255
    assert score(youtube(tmp_path / "255", "255", 255 * mask_HW), masks).mean.jf == 1
    assert score(youtube(tmp_path / "edge", "1", edged_HW), masks).mean.jf == 1
    with pytest.raises(ValueError, match=r"v: expression '0' names object '2', which none of"):
        score(youtube(tmp_path / "unseen", "2", mask_HW), masks)


@pytest.mark.parametrize("kind", ["rgb", "16 bits"])
def test_label_images_of_another_kind(
    small: tuple[Path, Path], davis: tuple[Path, list[Clip]], tmp_path: Path, kind: str
) -> None:
    def other(labels_HW: np.ndarray) -> np.ndarray:
        return np.repeat(labels_HW[..., None], 3, 2) if kind == "rgb" else labels_HW.astype("<u2")

    truth = youtube(tmp_path / "yt", "1", other(np.ones((40, 60), np.uint8)))
    with pytest.raises(ValueError, match=r"00000\.png: must be a palette or grey-value image"):
        score(truth, small[1])
    root, clips = davis
    write_davis(tmp_path / "predicted", clips, 0, identity)
    for file in root.rglob("Annotations_unsupervised/480p/*/*.png"):
        Image.fromarray(other(np.array(Image.open(file)))).save(file)
    with pytest.raises(ValueError, match=r"\.png: must be a palette or grey-value image"):
        score(root, tmp_path / "predicted")
