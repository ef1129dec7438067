"""Data set readers: small data sets on disk in the real layouts, sound and with every fault."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as coco_mask

from warehouse.frames import read_frames
from warehouse.own_video import own_video
from warehouse.sources import BadVideo, SourceError, SourceVideo, folder, mevis, read_split
from warehouse.sources.base import check_video_id

SIZES = {"wide": (32, 48), "tall": (48, 32)}  # height, width
FRAMES = ["00000", "00001", "00002"]


def rle(height: int, width: int, filled: int = 8) -> dict[str, Any]:
    mask_HW = np.zeros((height, width), np.uint8, order="F")
    mask_HW[4 : 4 + filled, 4 : 4 + filled] = 1
    return {"size": [height, width], "counts": coco_mask.encode(mask_HW)["counts"].decode()}


def write_frames(target: Path, height: int, width: int, suffix: str = ".jpg") -> None:
    target.mkdir(parents=True)
    for t, frame in enumerate(FRAMES):
        Image.new("RGB", (width, height), (60 * t, 0, 0)).save(target / f"{frame}{suffix}")


def write_video(file: Path) -> None:
    with av.open(str(file), "w") as container:
        stream = container.add_stream("mpeg4", rate=10, width=48, height=32, pix_fmt="yuv420p")
        for t in range(3):
            image_HW3 = np.full((32, 48, 3), 60 * t, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image_HW3, format="rgb24")))
        container.mux(stream.encode())


def edit(file: Path, *change: Any) -> None:
    """Set value[k0][k1]... in a JSON file to the last argument, or delete it if that is `...`."""
    *path, last, new = change
    document = value = json.loads(file.read_text())
    for key in path:
        value = value[key]
    value[last] = new
    if new is ...:
        del value[last]
    file.write_text(json.dumps(document))


def sound(videos: list[SourceVideo | BadVideo]) -> list[SourceVideo]:
    assert all(isinstance(video, SourceVideo) for video in videos), videos
    return videos


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A MeViS root: splits train (labelled) and valid (texts only), videos wide and tall."""
    meta, masks = {}, {}
    for number, (video_id, size) in enumerate(SIZES.items()):
        ids = [10 * number, 10 * number + 1]
        masks |= {str(ids[0]): [rle(*size), None, rle(*size, 20)], str(ids[1]): [rle(*size, 2)] * 3}
        expressions = {
            "0": {"exp": "the first one", "obj_id": [0], "anno_id": ids[:1]},
            "1": {"exp": "both", "obj_id": [0, 1], "anno_id": ids, "tags": ["plural"]},
            "2": {"exp": "a thing that is not there", "obj_id": [], "anno_id": []},
        }
        meta[video_id] = {"expressions": expressions, "frames": FRAMES}
        for split in ("train", "valid"):
            write_frames(tmp_path / split / "JPEGImages" / video_id, *size)
    (tmp_path / "train/meta_expressions.json").write_text(json.dumps({"videos": meta}))
    (tmp_path / "train/mask_dict.json").write_text(json.dumps(masks))
    for video in meta.values():
        video["expressions"] = {k: {"exp": e["exp"]} for k, e in video["expressions"].items()}
    (tmp_path / "valid/meta_expressions.json").write_text(json.dumps({"videos": meta}))
    return tmp_path


def test_mevis_labelled_split(root: Path) -> None:
    wide, tall = sound(mevis.read_split(root, "train"))
    assert (wide.video_id, tall.video_id) == ("wide", "tall")
    for video in (wide, tall):
        assert video.frames == tuple(FRAMES)
        shapes = [image.shape for image in read_frames(video.path, video.frames)]
        assert shapes == [(*SIZES[video.video_id], 3)] * 3
    assert [(e.expression_id, e.text, e.object_ids, e.tags) for e in tall.expressions] == [
        ("0", "the first one", ("10",), ()),
        ("1", "both", ("10", "11"), ("plural",)),
        ("2", "a thing that is not there", (), ()),
    ]
    assert list(tall.ground_truth) == ["10", "11"] and tall.ground_truth["10"][1] is None
    assert coco_mask.area(tall.ground_truth["10"][::2]).tolist() == [64, 400]
    assert coco_mask.area(tall.ground_truth["11"]).tolist() == [4, 4, 4]


def test_mevis_unlabelled_split(root: Path) -> None:
    wide, _ = sound(read_split("mevis", root, "valid"))
    assert [e.text for e in wide.expressions][:2] == ["the first one", "both"]
    assert wide.ground_truth == {} and all(e.object_ids is None for e in wide.expressions)


def test_a_split_of_no_target_expressions_is_labelled(root: Path) -> None:
    none = {"0": {"exp": "nothing", "anno_id": []}}
    edit(root / "train/meta_expressions.json", "videos", "wide", "expressions", none)
    wide, _ = sound(mevis.read_split(root, "train"))
    assert wide.expressions[0].object_ids == () and wide.ground_truth == {}


def test_a_mevis_split_that_is_not_there(root: Path) -> None:
    with pytest.raises(SourceError, match="gone: no such folder"):
        mevis.read_split(root / "gone", "train")
    with pytest.raises(SourceError, match="no split 'trian'; it has train, valid"):
        mevis.read_split(root, "trian")
    (root / "valid/meta_expressions.json").write_text("{}")
    with pytest.raises(SourceError, match=r'meta_expressions\.json: must hold {"videos"'):
        mevis.read_split(root, "valid")


@pytest.mark.parametrize("name", ["meta_expressions.json", "mask_dict.json"])
def test_faults_of_a_whole_mevis_file(root: Path, name: str) -> None:
    file = root / "train" / name
    contents = {
        b'{"videos": {}\n\n, oops}': f"{name}, line 3: malformed JSON",
        b"\xff\xfe": f"{name}: is not UTF-8",
        b"[]": f"{name}: must hold a JSON object",
    }
    for content, message in contents.items():
        file.write_bytes(content)
        with pytest.raises(SourceError, match=message):
            mevis.read_split(root, "train")
    file.unlink()
    with pytest.raises(SourceError, match=f"{name}: no such file"):
        mevis.read_split(root, "train")


META = "meta_expressions.json", "videos", "wide"
FIRST = *META, "expressions", "0"
MASKS = "mask_dict.json", "0"
SOUND = rle(*SIZES["wide"])["counts"]
UNSOUND = ["", SOUND[:-1], SOUND + "1", SOUND[:-1] + "q", "\ud800" + SOUND, "Q`1O", "o" * 20]
FAULTS = [
    (*META, "frames", [], r'video \'wide\': empty video: "frames" lists no frames'),
    (*META, "frames", ..., "empty video"),
    (*META, "frames", ["00000", "00000"], "lists a frame twice"),
    (*META, "frames", ["../tall/00000"], "frame name '../tall/00000' is not usable"),
    (*META, "frames", ["00000", "7", "8"], r"wide/7\.jpg: the frame file is missing \(2 of 3"),
    (*META, "expressions", ..., '"expressions" must be'),
    (*META, "expressions", "a/b", {"exp": "x"}, "id 'a/b' is not usable"),
    (*FIRST, "lone text", "expression '0': must be a JSON object"),
    (*FIRST, "exp", ..., r"'wide', expression '0': has no text"),
    (*FIRST, "exp", "  ", r"expression '0': has no text"),
    (*FIRST, "anno_id", ..., "expression '0': \"anno_id\" must be a list"),
    (*FIRST, "anno_id", [0, 77], "'wide', expression '0': names anno_id 77, absent"),
    (*FIRST, "tags", "plural", "expression '0': \"tags\" must be a list"),
    (*MASKS, [None, None], "video 'wide', object '0': 2 masks for 3 frames"),
    (*MASKS, 0, "rle", "object '0', frame 00000: must be null or"),
    (*MASKS, 0, {"size": [32, 48], "counts": [1, 2]}, "must be null or"),
    (*MASKS, 0, rle(48, 32), r"size .* is \[48, 32\], but the video's frames are \[32, 48\]"),
    *((*MASKS, 0, "counts", counts, "frame 00000: the RLE counts do not") for counts in UNSOUND),
]


def check_only_wide_is_bad(root: Path, message: str) -> None:
    bad, good = mevis.read_split(root, "train")
    assert isinstance(good, SourceVideo) and good.video_id == "tall"
    assert isinstance(bad, BadVideo) and bad.video_id == "wide"
    assert re.search(message, bad.error), bad.error


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_in_one_video_spares_the_other(root: Path, fault: Any) -> None:
    name, *change, message = fault
    edit(root / "train" / name, *change)
    check_only_wide_is_bad(root, message)


def test_a_fault_in_the_frames_spares_the_other_video(root: Path) -> None:
    frames = root / "train/JPEGImages/wide"
    (frames / "00000.jpg").write_bytes(b"not an image")
    check_only_wide_is_bad(root, r"00000\.jpg: is not a readable image")
    frames.rename(root / "elsewhere")
    check_only_wide_is_bad(root, "wide: the frame folder is missing")


@pytest.mark.parametrize("video_id", ["", ".", "..", "../wide", "a/b", "a\\b", "a\0b", "a\nb"])
def test_unsafe_video_ids(root: Path, video_id: str) -> None:
    with pytest.raises(SourceError, match="is not usable as a file name"):
        check_video_id(video_id)
    edit(root / "valid/meta_expressions.json", "videos", video_id, {})
    *good, bad = mevis.read_split(root, "valid")
    assert isinstance(bad, BadVideo) and "not usable as a file name" in bad.error
    assert len(sound(good)) == 2


def test_ordinary_video_ids_are_safe() -> None:
    for video_id in ("00ad5016", "my cat.v2", "Aufnahme 3.15\u202fPM", "-x"):
        check_video_id(video_id)


@given(st.lists(st.booleans(), min_size=1, max_size=60))
def test_every_mask_that_pycocotools_encodes_is_sound(pixels: list[bool]) -> None:
    mask_HW = np.asfortranarray(np.array(pixels, np.uint8)[None].repeat(7, axis=0))
    counts = coco_mask.encode(mask_HW)["counts"].decode()
    assert mevis._decodes(counts, mask_HW.size)
    assert not mevis._decodes(counts, mask_HW.size + 1)


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    """A user's folder: two frame folders (png, jpg) and a video file."""
    root = tmp_path / "mine"
    write_frames(root / "clip10", 48, 32, ".png")
    write_frames(root / "clip2", 32, 48, ".JPG")
    write_video(root / "walk.mp4")
    for name in ("notes.txt", "notes.md"):
        (root / name).write_text("other files are left alone")
    (root / ".cache").mkdir()
    return root


def test_folder_of_frame_folders_and_video_files(videos: Path) -> None:
    texts = {"walk": ["a dog", "the cat that turns"]}
    (videos / "expressions.json").write_text(json.dumps(texts))
    result = sound(read_split("folder", videos, "mine"))
    assert [video.video_id for video in result] == ["clip2", "clip10", "walk"]
    shapes = [(32, 48, 3), (48, 32, 3), (32, 48, 3)]
    for video, shape in zip(result, shapes, strict=True):
        assert video.frames == tuple(FRAMES) and video.ground_truth == {}
        images = list(read_frames(video.path, video.frames))
        assert [image.shape for image in images] == [shape] * 3
        assert [round(image[9, 9, 0] / 60) for image in images] == [0, 1, 2]
    expressions = [(e.expression_id, e.text, e.object_ids) for e in result[2].expressions]
    assert expressions == [("0", "a dog", None), ("1", "the cat that turns", None)]


def test_one_frame_folder_or_video_file(videos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for target in ("clip10", "walk.mp4"):
        (video,) = sound(folder.read_split(videos / target, "x"))
        assert (video.video_id, len(video.frames)) == (target.removesuffix(".mp4"), 3)
    monkeypatch.chdir(videos / "clip10")
    assert folder.read_split(Path(), "x")[0].video_id == "clip10"


def test_frames_are_in_natural_order(tmp_path: Path) -> None:
    for name in ("frame10", "frame9", "Frame1"):
        Image.new("RGB", (8, 8)).save(tmp_path / f"{name}.png")
    (video,) = sound(folder.read_split(tmp_path, "x"))
    assert video.frames == ("Frame1", "frame9", "frame10")


def test_faults_of_one_video_spare_the_others(videos: Path) -> None:
    (videos / "broken.mp4").write_bytes(b"not a video")
    (videos / "empty").mkdir()
    write_frames(videos / "walk", 32, 48)
    write_frames(videos / "twice", 32, 48, ".jpg")
    Image.new("RGB", (48, 32)).save(videos / "twice/00001.png")
    texts = {"clip2": "one text, no list", "clip3": ["a typing error"]}
    (videos / "expressions.json").write_text(json.dumps(texts))
    result = folder.read_split(videos, "x")
    good = [video.path.name for video in result if isinstance(video, SourceVideo)]
    assert good == ["clip10", "walk"]
    bad = {video.video_id: video.error for video in result if isinstance(video, BadVideo)}
    messages = {
        "broken": "broken.mp4: does not open as a video",
        "empty": "empty: has no frames",
        "walk": f"walk.mp4: has the same video id as {videos / 'walk'}",
        "twice": "has two images named 00001",
        "clip2": "video 'clip2': must be a list of texts",
        "clip3": "'clip3' is no frame folder or video file",
    }
    assert bad.keys() == messages.keys()
    assert all(message in bad[video_id] for video_id, message in messages.items()), bad


def test_faults_of_a_whole_folder(videos: Path) -> None:
    faults = {
        "gone": "gone: no such file or folder",
        "notes.txt": r"notes\.txt, line 1: .*: no such file or folder",
        "notes.md": r"notes\.md: is not a video file; give a folder",
        ".cache": "holds no images",
    }
    for name, message in faults.items():
        with pytest.raises(SourceError, match=message):
            folder.read_split(videos / name, "x")
    (videos / "expressions.json").write_text('{"walk": [\n"a dog"')
    with pytest.raises(SourceError, match=r"expressions\.json, line 2: malformed JSON"):
        folder.read_split(videos, "x")
    Image.new("RGB", (8, 8)).save(videos / "thumbnail.png")
    with pytest.raises(SourceError, match=r"both images \(thumbnail\.png\) and folders or videos"):
        folder.read_split(videos, "x")


def test_unknown_data_set(root: Path) -> None:
    with pytest.raises(SourceError, match="unknown data set 'mevsi'; valid: mevis, mevis-v2, ref"):
        read_split("mevsi", root, "train")
    assert len(read_split("demo", root, "train")) == 2


@pytest.mark.parametrize("suffix", [".JPG", ".jpeg", ".png", ".PNG"])
def test_frames_of_mevis_may_have_another_ending(root: Path, suffix: str) -> None:
    for file in root.rglob("*.jpg"):
        with Image.open(file) as image:
            image.save(file.with_suffix(suffix))
        file.unlink()
    for video in sound(mevis.read_split(root, "train")):
        assert len(list(read_frames(video.path, video.frames))) == len(FRAMES)


@pytest.mark.parametrize("suffix", [".webp", ".bmp", ".tif"])
def test_images_that_are_not_read_are_named(root: Path, suffix: str) -> None:
    own = root / "own" / "frames"
    write_frames(own, *SIZES["wide"], suffix)
    said = rf"end in \.jpg, \.jpeg, \.png, and there is: 3 \{suffix} \(00000\{suffix}\)"
    with pytest.raises(SourceError, match=rf"frames: has no frames; .*{said}"):
        own_video(own)
    with pytest.raises(SourceError, match=rf"there is: 3 \{suffix} \(frames/00000"):
        own_video(own.parent)
    shutil.rmtree(root / "train/JPEGImages/wide")
    shutil.copytree(own, root / "train/JPEGImages/wide")
    check_only_wide_is_bad(root, rf"frame file is missing .*; images are read that {said}")


def test_json_with_a_byte_order_mark(root: Path) -> None:
    for file in root.rglob("*.json"):
        file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    sound(mevis.read_split(root, "train"))
