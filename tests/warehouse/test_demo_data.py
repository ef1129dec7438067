"""The embedded data set: deterministic, in MeViS's layout, and right about what it says."""

import hashlib
import json
import re
import tomllib
from pathlib import Path

import numpy as np
import pytest

from warehouse import read_video
from warehouse.demo_data import SAMPLE_CLIP, describe, random_scene, render_frames, write_dataset
from warehouse.demo_data.counterfactual import CHANCE, SPLIT, find_pairs, write_pairs
from warehouse.demo_data.language import Description, Meaning
from warehouse.demo_data.paraphrases import (
    COLOURS,
    COMPARATIVES,
    DETERMINERS,
    DIRECTIONS,
    FUNCTION_WORDS,
    MOTIONS,
    MOVES,
    NOUNS,
    PLURAL_DETERMINERS,
    paraphrase,
)
from warehouse.demo_data.scene import HEIGHT, WIDTH
from warehouse.sources import read_split


def scenes(count: int):
    for seed in range(count):
        rng = np.random.default_rng(seed)
        scene = random_scene(rng)
        yield scene, describe(scene, rng)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("demo")
    write_dataset(root, {"train": 3, "valid_u": 2, "valid": 1}, frames=8)
    return root


def digest(root) -> dict[str, str]:
    return {
        str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(root.rglob("*"))
        if p.is_file()
    }


def test_the_same_arguments_give_the_same_bytes(root, tmp_path):
    write_dataset(tmp_path, {"train": 3, "valid_u": 2, "valid": 1}, frames=8)
    assert digest(tmp_path) == digest(root)


def test_a_split_that_is_there_is_left_alone_and_a_torn_one_is_finished(root, tmp_path):
    write_dataset(tmp_path, {"train": 3}, frames=8)
    before = digest(tmp_path)
    (tmp_path / "train" / "meta_expressions.json").unlink()
    (tmp_path / "train" / "JPEGImages" / "train_0002" / "00003.jpg").unlink()
    write_dataset(tmp_path, {"train": 3}, frames=8)
    assert digest(tmp_path) == before


def test_the_mevis_reader_reads_it(root):
    train = read_split("demo", root, "train")
    assert [v.video_id for v in train] == ["train_0000", "train_0001", "train_0002"]
    for video in train:
        assert len(video.frames) == 8
        assert set().union(*(e.object_ids for e in video.expressions)) <= set(video.ground_truth)
    (unlabelled,) = read_split("demo", root, "valid")
    assert unlabelled.ground_truth == {}
    assert all(e.object_ids is None for e in unlabelled.expressions)
    assert "obj_id" not in json.dumps(
        json.loads((root / "valid/meta_expressions.json").read_text())
    )


def test_masks_do_not_overlap_and_show_what_is_near():
    for scene, _ in scenes(5):
        frames_THW3, masks_NTHW = render_frames(scene, range(0, 24, 8))
        assert frames_THW3.shape == (3, HEIGHT, WIDTH, 3)
        assert masks_NTHW.sum(0).max() <= 1
        assert masks_NTHW[-1].any()


def test_a_frame_does_not_depend_on_which_frames_are_asked_for():
    for scene, _ in scenes(3):
        frames, masks = render_frames(scene)
        one, one_mask = render_frames(scene, range(7, 8))
        assert np.array_equal(frames[7:8], one)
        assert np.array_equal(masks[:, 7:8], one_mask)


def test_expressions_mean_what_moves_so():
    moved = {"left": (0, -1), "right": (0, 1), "up": (1, -1), "upwards": (1, -1),
             "down": (1, 1), "downwards": (1, 1)}  # fmt: skip
    checked = 0
    for scene, descriptions in scenes(60):
        for d in descriptions:
            words = d.text.split()
            if "moves" not in d.tags or "no-target" in d.tags or words[-1] not in moved:
                continue
            axis, sign = moved[words[-1]]
            for n in d.targets:
                path = scene.shapes[n].centre_T2[:, axis]
                assert sign * (path[-1] - path[0]) > 10, d
                checked += 1
    assert checked > 50


def test_look_alikes_are_told_apart_by_motion_alone():
    found = 0
    for scene, descriptions in scenes(60):
        for d in descriptions:
            if "look-alike" not in d.tags:
                continue
            looks = {(scene.shapes[n].colour, scene.shapes[n].kind) for n in d.targets}
            others = [s for n, s in enumerate(scene.shapes) if n not in d.targets]
            twins = [s for s in others if (s.colour, s.kind) in looks]
            assert twins and "motion" in d.tags
            found += 1
    assert found > 50


def test_most_expressions_are_about_motion_and_some_name_several_objects_or_none():
    tags = [d.tags for _, descriptions in scenes(100) for d in descriptions]
    assert sum("motion" in t for t in tags) > 0.7 * len(tags)
    assert sum("multi-target" in t for t in tags) > 0.03 * len(tags)
    assert sum("no-target" in t for t in tags) > 0.03 * len(tags)
    assert all(d.targets for _, ds in scenes(30) for d in ds if "no-target" not in d.tags)


def test_the_expressions_stay_what_they_were():
    """Figures of the demo are of these; a change of the generator must not change them."""
    texts = [[d.text, d.targets, d.tags] for _, descriptions in scenes(20) for d in descriptions]
    assert hashlib.sha256(json.dumps(texts).encode()).hexdigest().startswith("04a5f4309cd09eb3")


def words(text: str) -> set[str]:
    return set(re.findall("[a-z]+", text))


def test_paraphrases_share_function_words_alone_with_training_expressions():
    found = [
        (d.text, paraphrase(d, np.random.default_rng(seed)))
        for seed, (_, descriptions) in enumerate(scenes(600))
        for d in descriptions
    ]
    of_training = set().union(*(words(text) for text, _ in found))
    assert set().union(*(words(text) for _, text in found)) & of_training <= FUNCTION_WORDS
    tables = [COLOURS, NOUNS, DIRECTIONS, MOTIONS, COMPARATIVES]
    lists = [DETERMINERS, PLURAL_DETERMINERS, MOVES, *(p for t in tables for p in t.values())]
    wordings = {wording for phrases in lists for wording in phrases}
    assert len(wordings) >= 60
    assert words(" ".join(wordings)) & of_training <= FUNCTION_WORDS


def test_a_paraphrase_says_the_same_of_as_many():
    said = {}
    for scene, descriptions in scenes(200):
        for d in descriptions:
            text = paraphrase(d, np.random.default_rng(len(d.text)))
            colour, kind = d.meaning.look
            assert colour is None or words(text) & set(COLOURS[colour]), (d.text, text)
            many = {word + "s" for word in NOUNS[kind]} & words(text)
            assert bool(many) == (len(d.targets) > 1), (d.text, text)
            said.setdefault((d.meaning.motion, d.meaning.direction), set()).add(text)
            assert kind is None or all(scene.shapes[n].kind == kind for n in d.targets)
    assert {motion for motion, _ in said} >= {None, "moves", *MOTIONS}
    faster = Description(
        text="the faster red circle",
        targets=(0,),
        tags=(),
        meaning=Meaning(look=("red", "circle"), motion="faster"),
    )
    assert words(paraphrase(faster, np.random.default_rng(0))) & {"quicker", "speedier", "swifter"}
    left, right = said["moves", "left"], said["moves", "right"]
    assert all(words(text) & {"leftwards", "westward"} for text in left)
    assert all(words(text) & {"rightwards", "eastward"} for text in right)


def test_the_paraphrase_split_is_valid_u_twice_in_its_words_and_in_others(root, tmp_path):
    write_dataset(tmp_path, {"train": 3, "valid_u": 2, "paraphrase": 2, "valid": 1}, frames=8)
    found = digest(tmp_path)
    assert {n: d for n, d in found.items() if not n.startswith("paraphrase")} == digest(root)
    known, other = (read_split("demo", tmp_path, split) for split in ("valid_u", "paraphrase"))
    for video, said_otherwise in zip(known, other, strict=True):
        assert said_otherwise.video_id == video.video_id
        assert said_otherwise.frames == video.frames
        assert said_otherwise.ground_truth == video.ground_truth
        twice = [e for e in video.expressions for _ in range(2)]
        for n, (a, b) in enumerate(zip(twice, said_otherwise.expressions, strict=True)):
            other_words = n % 2 == 1
            assert b.expression_id == a.expression_id + "p" * other_words
            assert b.object_ids == a.object_ids
            assert b.tags == (*a.tags, "paraphrase" if other_words else "training words")
            assert (a.text != b.text) == other_words


def test_counterfactual_pairs_differ_in_motion_alone():
    found = {kind: find_pairs(kind, 6, seed=0, frames=8) for kind in CHANCE}
    for kind, pairs in found.items():
        for a, b in pairs:
            looks = [[(s.kind, s.colour, s.texture) for s in c.scene.shapes] for c in (a, b)]
            assert looks[0] == looks[1] and looks[0][0] == looks[0][1]
            assert (a.text == b.text) == (kind != "reversed")
            assert (a.target, b.target) == (0, {"reversed": 0, "swapped": 1, "removed": None}[kind])
            masks_a, masks_b = render_frames(a.scene)[1], render_frames(b.scene)[1]
            if kind == "reversed":
                assert np.array_equal(masks_b, masks_a[:, ::-1])
            elif kind == "removed":
                assert not masks_b[0].any() and not (masks_a[1:] & ~masks_b[1:]).any()
            else:
                first, second = (shape.scale_T for shape in a.scene.shapes[:2])
                swapped = [shape.scale_T for shape in b.scene.shapes[:2]]
                assert np.array_equal(swapped, [second, first])
                assert not np.array_equal(masks_a, masks_b)


def test_pairs_are_recognised_on_disk(tmp_path):
    write_pairs(tmp_path, 1, frames=8)
    meta = json.loads((tmp_path / SPLIT / "meta_expressions.json").read_text())["videos"]
    assert {video: e["pair"] for video, v in meta.items() for e in v["expressions"].values()} == {
        f"{kind}_0000_{letter}": f"{kind}/0" for kind in CHANCE for letter in "ab"
    }
    videos = read_split("demo", tmp_path, SPLIT)
    assert [len(v.expressions[0].object_ids) for v in videos] == [1, 1, 1, 1, 1, 0]
    before = digest(tmp_path)
    write_pairs(tmp_path, 1, frames=8)
    assert digest(tmp_path) == before


def test_the_sample_clip_is_in_the_package_and_reads():
    root = Path(__file__).parents[2]
    project = tomllib.loads((root / "pyproject.toml").read_text())
    data = project["tool"]["setuptools"]["package-data"]["warehouse"]
    assert SAMPLE_CLIP.relative_to(root / "warehouse").as_posix() in data
    frames = list(read_video(SAMPLE_CLIP))
    assert len(frames) == 24 and {frame.shape for frame in frames} == {(360, 640, 3)}
    assert max(np.abs(frames[0].astype(int) - frame).max() for frame in frames) > 100, "it moves"
