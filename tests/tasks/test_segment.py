"""Segmenting a video of one's own, task by task, with the embedded models and no Prefect."""

import json
import shutil
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco
from scipy.special import expit, logit

from flows.segment import segment as segment_flow
from sola_model.recipes import DEMO, DEMO_RELEASE, Recipe
from sola_model.text.cache import CachedTextEncoder
from tasks.own_video.clips import (
    DATASET,
    SPLIT,
    encode_sentences,
    ingest_clips,
    require_current,
    run_to_segment_with,
    segment_tracks,
)
from tasks.own_video.outputs import Clip, Found, Outputs, painted, shown_times, write_outputs
from tasks.own_video.video_writer import LARGEST_SIDE, evenly, h264_video
from tasks.stage import Plan, adopt
from tasks.stages.detect import DETECT
from tasks.stages.evaluate import EVALUATE
from tasks.stages.ingest import ingest_split
from tasks.stages.precompute import BOX_TRACKS, track_plan
from tasks.tables import read_mask_tracks
from tasks.track_sets import remember
from tasks.worker import precision
from tests.tasks import stages
from tests.untrained import publish_untrained
from warehouse import Key, Warehouse, WarehouseError, read_video
from warehouse.demo_data import write_dataset
from warehouse.outputs import OutputError
from warehouse.sources.base import SourceError

ROOT = Path(__file__).parents[2]
FRAMES = 10
TEXTS = ["the red circle", "the shape that turns back"]
# An untrained selector; at this threshold it selects something.
RECIPE = replace(DEMO, tau=0.01, extraction=replace(DEMO.extraction, max_tracks=3))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Warehouse:
    store = Warehouse.create(tmp_path_factory.mktemp("w"))
    publish_untrained(store, RECIPE)
    return store


@pytest.mark.parametrize("recipe", [DEMO, DEMO_RELEASE], ids=["words", "no words"])
def test_workers_find_the_sentences_that_were_encoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recipe: Recipe
) -> None:
    store = Warehouse.create(tmp_path / "w")
    encode_sentences(store, recipe, TEXTS)
    monkeypatch.setattr("sola_model.text.cache.TextEncoder", None)
    cached = CachedTextEncoder(recipe.text_encoder, store.work_folder() / "cache" / "text")
    assert len(cached.encode(TEXTS, words=recipe.selector.reads_words)) == len(TEXTS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    write_dataset(root, {"valid": 1}, seed=3, frames=FRAMES)
    return root / "valid" / "JPEGImages" / "valid_0000"


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory, folder: Path) -> Path:
    path = tmp_path_factory.mktemp("file") / "clip.mp4"
    with h264_video(path, evenly(FRAMES, Fraction(12))) as write:
        for frame_HW3 in read_video(folder):
            write(frame_HW3)
    return path


def segment(
    store: Warehouse,
    video: Path,
    texts: list[str],
    outputs: Outputs,
    every=1,
    clip_frames=99,
    detector=None,
) -> tuple[list[Key], int, list[Found]]:
    """Keys of the clips, how many of them were extracted, and what was found."""
    run = run_to_segment_with(store.url, None)
    track_set = segment_tracks(run, None, detector, precision())
    clips = ingest_clips(store.url, str(video), texts, every, clip_frames)
    remember(store, DATASET, SPLIT, track_set)
    tracks = track_plan(store, DATASET, SPLIT, [key.video_id for key in clips], track_set)
    adopt(tracks)
    extracted = len(tracks.missing())
    outcomes = stages.make(tracks)
    for stage in (DETECT, BOX_TRACKS) if detector else ():
        outcomes += stages.make(Plan(stage, store, list(tracks.wanted), track_set))
    keys = [key.of(run_id=run.run_id) for key in tracks.wanted]
    scores = Plan(EVALUATE, store, keys, run)
    outcomes += stages.make(scores)
    assert {outcome.status for outcome in outcomes} <= {"done"}, outcomes
    require_current(scores)
    times = shown_times(str(video), every, None)
    return keys, extracted, write_outputs(store.url, keys, run, outputs, times, lambda: None)


def test_overlay_masks_and_json_show_the_same_tracks(store, folder, tmp_path) -> None:
    outputs = Outputs(
        video=tmp_path / "v.mp4", masks=tmp_path / "masks", tracks=tmp_path / "v.json"
    )
    (key,), extracted, found = segment(store, folder, TEXTS, outputs)
    assert extracted == 1 and [each.sentence for each in found] == TEXTS
    written = json.loads(outputs.tracks.read_text())
    assert (written["run"], written["threshold"], written["frames_per_second"]) == ("run", 0.01, 24)
    (clip,) = written["clips"]
    tracks = read_mask_tracks(store, store.current("precompute")[key.of(run_id="")])
    names = [f"{t:05d}" for t in range(FRAMES)]
    assert clip["frames"] == names and len(tracks) > 1
    frames = list(read_video(folder))
    pictures = list(read_video(outputs.video))
    assert len(pictures) == FRAMES
    for e, expression in enumerate(clip["expressions"]):
        assert expression["expression"] == TEXTS[e]
        scores = [each["score"] for each in expression["tracks"]]
        assert scores == sorted(scores, reverse=True) and len(scores) == len(tracks)
        selected = [each["track_id"] for each in expression["tracks"] if each["selected"]]
        assert selected and found[e].tracks == len(selected)
        assert found[e].best == pytest.approx(scores[0])
        for t, name in enumerate(names):
            labels_HW = np.array(Image.open(outputs.masks / str(e) / f"{name}.png"))
            union_HW = coco.decode(coco.merge([tracks[n][t] for n in selected]))
            np.testing.assert_array_equal(labels_HW > 0, union_HW > 0)
            best = clip["tracks"][str(selected[0])]
            best_HW = coco.decode(tracks[selected[0]][t])
            np.testing.assert_array_equal(labels_HW == 1, best_HW > 0)
            if best_HW.any():
                assert best["masks"][t] == tracks[selected[0]][t]
                assert best["areas"][t] == best_HW.sum()
                ys, xs = np.nonzero(best_HW)
                assert best["boxes"][t][:2] == [xs.min(), ys.min()]
            else:
                assert best["masks"][t] is best["boxes"][t] is best["areas"][t] is None
            # Four times enlarged: unchanged where nothing is selected, painted where something is.
            shown_HW3 = pictures[t][2 : 4 * 112 : 4, 2 : 4 * 144 : 4].astype(int)
            change_HW = np.abs(shown_HW3 - frames[t]).mean(-1)
            assert change_HW[union_HW > 0].mean() > 10


def test_people_see_probabilities_where_the_run_has_them(store, folder, tmp_path) -> None:
    """As they are fitted: sigmoid of the logit over the temperature, plus the bias."""
    _, _, plain = segment(store, folder, TEXTS, Outputs(tracks=tmp_path / "plain.json"))
    calibrated = Warehouse(shutil.copytree(store.root, tmp_path / "w"))
    publish_untrained(calibrated, RECIPE, "calibrated", temperature=2.0, bias=-1.0)
    _, extracted, found = segment(calibrated, folder, TEXTS, Outputs(tracks=tmp_path / "v.json"))
    assert extracted == 0
    for name in ("plain", "v"):
        (clip,) = json.loads((tmp_path / f"{name}.json").read_text())["clips"]
        for e, expression in enumerate(clip["expressions"]):
            scores, probabilities = (
                [each[column] for each in expression["tracks"]]
                for column in ("score", "probability")
            )
            if name == "plain":
                assert set(probabilities) == {None} and plain[e].best == max(scores)
            else:
                expected = expit(logit(np.array(scores)) / 2 - 1)
                np.testing.assert_allclose(probabilities, expected, atol=1e-5)
                assert found[e].best == max(probabilities) != max(scores)


def test_a_new_sentence_is_only_scored_and_an_old_one_not_even_that(store, folder) -> None:
    nothing = Outputs()
    (key,), _, _ = segment(store, folder, TEXTS[:1], nothing)
    (scored,) = (c for c in store.current("evaluate").values() if c.key.video_id == key.video_id)
    (same,), extracted, found = segment(store, folder, ["a bar"], nothing)
    assert (same, extracted) == (key, 0) and found[0].sentence == "a bar"
    segment(store, folder, TEXTS[:1], nothing)
    (again,) = (c for c in store.current("evaluate").values() if c.key.video_id == key.video_id)
    assert again.fingerprint == scored.fingerprint
    assert again.files["predictions"].sha256 == scored.files["predictions"].sha256


def test_tracks_of_the_same_frames_under_another_name_are_taken(store, folder, tmp_path) -> None:
    """Of a data set, and as here of a copy with another name."""
    segment(store, folder, TEXTS, Outputs())
    shutil.copytree(folder, tmp_path / "other")
    (key,), extracted, _ = segment(store, tmp_path / "other", TEXTS, Outputs())
    assert extracted == 0 and key.video_id.startswith("other-")
    rows = store.read("tokens", [store.current("precompute")[key.of(run_id="")]])
    assert set(rows["video_id"].to_pylist()) == {key.video_id}


def test_a_short_video_has_the_tracks_and_scores_of_precompute_and_evaluate(
    store, folder, tmp_path
) -> None:
    (key,), _, _ = segment(store, folder, TEXTS, Outputs())
    ingest_split(store.url, "folder", str(folder), "all")
    track_set = segment_tracks(run_to_segment_with(store.url, None), None, None, precision())
    plan = track_plan(store, "folder", "all", [folder.name], track_set)
    tracked = store.current("precompute")[key.of(run_id="")]
    assert list(plan.wanted.values()) == [tracked.fingerprint]


def test_boxes_of_a_detector_are_of_its_sentences_alone(store, folder) -> None:
    (without,), _, (plain,) = segment(store, folder, TEXTS[:1], Outputs())
    (boxed,), extracted, (first,) = segment(store, folder, TEXTS[:1], Outputs(), detector="demo")
    assert boxed != without and extracted == 0  # the grid's tracks are taken over
    _, _, (other,) = segment(store, folder, ["a bar"], Outputs(), detector="demo")
    _, _, (again,) = segment(store, folder, TEXTS[:1], Outputs())
    assert first.candidates >= plain.candidates and other.candidates >= plain.candidates
    assert again == plain  # whatever boxes there were meanwhile


@pytest.mark.parametrize("every", [1, 2])
def test_clips_of_a_file_are_its_frames_in_order(store, file, tmp_path, every) -> None:
    outputs = Outputs(video=tmp_path / "v.mp4", tracks=tmp_path / "v.json")
    keys, extracted, found = segment(store, file, TEXTS, outputs, every, clip_frames=4)
    assert len(keys) == extracted == -(-FRAMES // every // 4)
    clips = json.loads(outputs.tracks.read_text())["clips"]
    names = [name for clip in clips for name in clip["frames"]]
    assert names == [f"{t:05d}" for t in range(0, FRAMES, every)]
    assert max(map(len, (clip["frames"] for clip in clips))) <= 4
    contents = store.read(
        "videos", [store.current("ingest")[key.of(run_id="", track_set="")] for key in keys]
    )["content_hash"]
    assert len(set(contents.to_pylist())) == len(keys)  # else clips would share tracks
    selected = [len([t for t in clip["expressions"][0]["tracks"] if t["selected"]])
                for clip in clips]  # fmt: skip
    assert found[0].tracks == sum(selected)
    pictures, frames = list(read_video(outputs.video)), list(read_video(file))[::every]
    for picture, frame_HW3 in zip(pictures, frames, strict=True):
        shown_HW3 = picture[2 : 4 * 112 : 4, 2 : 4 * 144 : 4].astype(int)
        assert np.median(np.abs(shown_HW3 - frame_HW3)) < 8
    assert shown_times(str(file), every, None) == evenly(len(names), Fraction(12, every))
    with av.open(str(outputs.video)) as container:
        assert container.streams.video[0].average_rate == Fraction(12, every)
    assert [s for clip in clips for s in clip["seconds"]] == [
        round(every * t / 12, 6) for t in range(len(names))
    ]
    _, again, _ = segment(store, file, ["a bar"], Outputs(), every, clip_frames=4)
    assert again == 0


def test_a_video_without_tracks_is_shown_with_nothing_found(store, tmp_path) -> None:
    (tmp_path / "grey").mkdir()
    for t in range(3):
        Image.new("RGB", (144, 112), (90, 90, 90)).save(tmp_path / "grey" / f"{t}.png")
    outputs = Outputs(
        video=tmp_path / "v.mp4", masks=tmp_path / "masks", tracks=tmp_path / "v.json"
    )
    _, _, (found,) = segment(store, tmp_path / "grey", ["the person"], outputs)
    if found.candidates == 0:
        assert (found.tracks, found.frames, found.best) == (0, 0, 0)
    assert len(list(read_video(outputs.video))) == 3
    assert len(list((tmp_path / "masks" / "0").iterdir())) == 3


def test_what_cannot_be_is_said_before_any_work(store, folder, tmp_path) -> None:
    with pytest.raises(OutputError, match=r"an \.mp4 file"):
        Outputs(video=tmp_path / "v.avi").check(store, folder, 1)
    with pytest.raises(OutputError, match="there is no folder"):
        Outputs(tracks=tmp_path / "none" / "v.json").check(store, folder, 1)
    with pytest.raises(OutputError, match="both the overlay and the JSON"):
        Outputs(video=tmp_path / "v.mp4", tracks=tmp_path / "v.mp4").check(store, folder, 1)
    with pytest.raises(OutputError, match="is a file"):
        Outputs(masks=Path(__file__)).check(store, folder, 1)
    with pytest.raises(SourceError, match="no such file or folder"):
        ingest_clips(store.url, str(tmp_path / "none.mp4"), TEXTS, 1, 99)
    with pytest.raises(SourceError, match="is no video"):
        ingest_clips(store.url, __file__, TEXTS, 1, 99)
    with pytest.raises(ValueError, match="give one or more"):
        ingest_clips(store.url, str(folder), [" "], 1, 99)
    for place in (tmp_path, Warehouse.create(tmp_path / "empty").root):
        with pytest.raises(WarehouseError, match=r"sola demo.*sola.*train.*sola import-checkpoint"):
            run_to_segment_with(place, None)


@pytest.mark.parametrize("link", ["same", "symbolic", "hard", "folder"])
@pytest.mark.parametrize("output", ["video", "masks", "tracks"])
def test_outputs_that_are_the_input_are_refused(store, file, folder, tmp_path, output, link):
    """The input itself, links to it, and a path through a link to its folder."""
    clip, frames = tmp_path / "here" / "clip.mp4", tmp_path / "here" / "0"
    frames.mkdir(parents=True)
    shutil.copy(file, clip)
    for image in folder.iterdir():
        Image.open(image).save(frames / f"{image.stem}.png")
    read = frames / "00000.png" if output == "masks" else clip
    place = tmp_path / "out" / ("0/00000.png" if output == "masks" else "out.mp4")
    if link == "folder":
        (tmp_path / "out").symlink_to(tmp_path / "here")
        place = tmp_path / "out" / read.relative_to(tmp_path / "here")
    elif link == "same":
        place = read
    else:
        place.parent.mkdir(parents=True)
        (place.symlink_to if link == "symbolic" else place.hardlink_to)(read)
    given = place.parents[1] if output == "masks" else place
    with pytest.raises(OutputError, match=r"would destroy .*, which is read|among the frames"):
        Outputs(**{output: given}).check(store, frames if output == "masks" else clip, 1)
    other = tmp_path / "other.mp4"
    other.write_bytes(b"of an earlier run")
    Outputs(**{output: tmp_path / "masks" if output == "masks" else other}).check(store, clip, 1)


def test_the_flow_refuses_before_it_computes(store, file, tmp_path) -> None:
    clip = tmp_path / "clip.mp4"
    shutil.copy(file, clip)
    before = len(store.current("ingest"))
    with pytest.raises(OutputError, match="would destroy"):
        segment_flow.fn(store.url, str(clip), TEXTS, out=str(clip))
    with pytest.raises(OutputError, match="would destroy"):
        segment_flow.fn(store.url, str(clip), TEXTS, tracks=str(store.root / "warehouse.json"))
    assert len(store.current("ingest")) == before and clip.read_bytes() == file.read_bytes()


def test_a_sentence_that_is_too_long_is_found_before_tracking(store, file, tmp_path) -> None:
    before = set(store.current("precompute"))
    clip = tmp_path / "another.mp4"
    clip.write_bytes(file.read_bytes() + b"free")  # another content
    with pytest.raises(ValueError, match=r"'the red circle .*\.\.\. has \d+ tokens, this encoder"):
        segment_flow.fn(store.url, str(clip), ["a bar", "the red circle " * 200])
    assert set(store.current("precompute")) == before


@pytest.mark.parametrize(("height", "width"), [(30, 2000), (2000, 30), (8, 9000), (2, 2)])
def test_frames_of_any_shape_are_shown(store, tmp_path, height, width) -> None:
    (tmp_path / "v").mkdir()
    for t in range(2):
        Image.new("RGB", (width, height), (90, 90, 90)).save(tmp_path / "v" / f"{t}.png")
    clip = Clip(
        path=tmp_path / "v", frames=("0", "1"), size=(height, width), sentences=("a bar",),
        tracks=[], scores_E=({},), selected_E=([],),
    )  # fmt: skip
    with h264_video(tmp_path / "v.mp4", evenly(2, Fraction(2))) as write:
        for picture_HW3 in painted(clip):
            write(picture_HW3)
    (first, _) = read_video(tmp_path / "v.mp4")
    assert max(first.shape) <= LARGEST_SIDE and np.abs(first[0, 0].astype(int) - 90).max() < 12


def test_an_overlay_has_the_times_and_colours_of_the_video(store, tmp_path) -> None:
    """12 frames of 3.07 s, as screen recorders write them, in a large picture of one colour."""
    stamps = (0, 33, 66, 100, 400, 433, 466, 1500, 1533, 1566, 3000, 3033)
    image_HW3 = np.full((720, 960, 3), (200, 60, 30), np.uint8)
    clip = tmp_path / "clip.webm"
    with av.open(str(clip), "w") as container:
        stream = container.add_stream("libvpx-vp9", rate=30, width=960, height=720)
        stream.pix_fmt, stream.codec_context.time_base = "yuv420p", Fraction(1, 1000)
        for stamp in stamps:
            frame = av.VideoFrame.from_ndarray(image_HW3, format="rgb24")
            frame.pts, frame.time_base = stamp, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    times = shown_times(str(clip), 1, None)
    np.testing.assert_allclose([float(time) for time in times], np.array(stamps) / 1000, atol=1e-3)
    assert shown_times(str(clip), 3, None) == times[::3]
    assert shown_times(str(clip), 3, 5.0) == evenly(4, Fraction(5))
    overlay = tmp_path / "v.mp4"
    with h264_video(overlay, times) as write:
        for frame_HW3 in read_video(clip):
            write(frame_HW3)
    assert shown_times(str(overlay), 1, None) == pytest.approx(times, abs=1e-4)
    with av.open(str(overlay)) as container:
        stream = container.streams.video[0]
        lasts = 3.033 + 3.033 / 11  # the last frame's own duration is not known
        assert float(stream.duration * stream.time_base) == pytest.approx(lasts, abs=0.01)
        assert (stream.codec_context.colorspace, stream.codec_context.color_range) == (1, 1)
    back, frame_HW3 = next(read_video(overlay)), next(read_video(clip))
    assert np.abs(back.astype(int) - frame_HW3).max() < 6


def test_sentences_that_were_replaced_meanwhile_are_noticed(store, folder) -> None:
    keys, _, _ = segment(store, folder, TEXTS, Outputs())
    mine = Plan(EVALUATE, store, keys, run_to_segment_with(store.url, None))
    assert mine.wanted
    segment(store, folder, ["a bar"], Outputs())
    with pytest.raises(WarehouseError, match="other sentences at the same time"):
        require_current(mine)


def test_the_python_of_the_docs(store, file, tmp_path, monkeypatch) -> None:
    """From a video to masks, and from a warehouse to a polars frame, as docs/own-videos.md says."""
    (key,), _, _ = segment(store, file, ["the red circle"], Outputs())
    shutil.copy(file, tmp_path / "clip.mp4")
    (tmp_path / "demo-warehouse").symlink_to(store.root)
    monkeypatch.chdir(tmp_path)
    page = (ROOT / "docs" / "own-videos.md").read_text()
    blocks = [part.split("```")[0] for part in page.split("```python\n")[1:]]
    video_to_masks, to_polars = ({}, {})
    for block, names, most in zip(blocks, (video_to_masks, to_polars), (11, 5), strict=True):
        assert len([line for line in block.splitlines() if line]) <= most
        exec(block, names)
    assert to_polars["tracks"].height and to_polars["tracks"].columns[0] == "video_id"
    scores = store.connect().sql(
        f"SELECT score FROM predictions WHERE video_id = '{key.video_id}' ORDER BY track_id"
    ).pl()["score"]  # fmt: skip
    np.testing.assert_allclose(video_to_masks["scores_EN"][0], scores, atol=1e-5)
    assert len(video_to_masks["masks_ET"][0]) == FRAMES
