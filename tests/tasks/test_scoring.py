"""Scores of a video's expressions, and alignment scores with candidates."""

import numpy as np
import pytest
import torch
from pycocotools import mask as coco

from sola_model.metrics.jf import j_and_f
from sola_model.recipes import SelectorConfig
from sola_model.selector.inference import alignment_scores
from sola_model.selector.network import TrackSelector
from sola_model.selector.selection import THRESHOLDS, merge
from sola_model.text.encoder import TextEncoder
from tasks.stages.scoring import score_tables
from tasks.tables import Expression
from warehouse import Key

KEY = Key("set", "split", "video", "run")
SIZE, FRAMES, TAU = (20, 30), 3, 0.5
VIDEO = {"height": 20, "width": 30, "frame_count": FRAMES}


def boxes(*lefts_and_widths: tuple[int, int]) -> list[dict]:
    """One upright box a frame; width 0 is absent."""
    masks_THW = np.zeros((FRAMES, *SIZE), np.uint8)
    for mask_HW, (left, width) in zip(masks_THW, lefts_and_widths, strict=True):
        mask_HW[4:14, left : left + width] = 1
    return [coco.encode(np.asfortranarray(mask_HW)) for mask_HW in masks_THW]


OBJECTS = {"a": boxes((2, 8), (3, 8), (0, 0)), "b": boxes((16, 9), (16, 9), (16, 9))}
TRACKS = [
    boxes((2, 7), (3, 7), (0, 0)),
    boxes((17, 9), (16, 8), (16, 9)),
    boxes((0, 30), (0, 30), (0, 30)),
    boxes((0, 0), (0, 0), (0, 0)),
]
EXPRESSIONS = [
    Expression(expression_id="one", text="", object_ids=("a",)),
    Expression(expression_id="unlabelled", text="", object_ids=None),
    Expression(expression_id="two", text="", object_ids=("b", "a", "never seen")),
    Expression(expression_id="none", text="", object_ids=()),
    Expression(expression_id="same", text="", object_ids=("a", "b")),
]
NAN = np.nan
SCORES_EN = np.array(
    [
        [0.9, 0.3, 0.12, 0.2],
        [0.9, 0.9, 0.9, 0.9],
        [0.8, 0.7, 0.1, 0.1],
        [0.1, 0.2, 0.1, 0.6],
        [0.8, NAN, 0.1, NAN],
    ],
    np.float32,
)


def scored(scores_EN=SCORES_EN, tracks=TRACKS, objects=OBJECTS) -> tuple[dict, dict]:
    """Rows of `scores` by expression, and of `threshold_scores` by expression and tau."""
    tables = score_tables(KEY, VIDEO, EXPRESSIONS, tracks, objects, scores_EN, TAU)
    rows, by_tau = (tables[n].to_pylist() for n in ("scores", "threshold_scores"))
    assert [row["expression_id"] for row in rows] == ["one", "two", "none", "same"]
    assert all((r["run_id"], r["video_id"]) == ("run", "video") for r in [*rows, *by_tau])
    return (
        {row["expression_id"]: row for row in rows},
        {(row["expression_id"], row["tau"]): row for row in by_tau},
    )


def expected(names: list[str], chosen: list[int], void=None):
    target = merge([OBJECTS[name] for name in names], range(len(names)), SIZE, FRAMES)
    return j_and_f(target, merge(TRACKS, chosen, SIZE, FRAMES), void)


def values(row: dict, prefix: str = "") -> tuple[float, float, float]:
    return tuple(row[f"{prefix}{name}"] for name in ("j", "f", "jf"))


def test_scores_are_those_of_the_union_of_what_is_selected() -> None:
    rows, _ = scored()
    assert values(rows["one"]) == pytest.approx(expected(["a"], [0]))
    assert values(rows["two"]) == pytest.approx(expected(["a", "b"], [0, 1]))
    assert rows["two"]["tracks_selected"] == 2
    assert values(rows["one"], "oracle_") == pytest.approx(expected(["a"], [0]))
    assert values(rows["two"], "oracle_") == pytest.approx(expected(["a", "b"], [0, 1]))
    assert rows["one"]["all_tracks_jf"] == pytest.approx(expected(["a"], [0, 1, 2, 3]).jf)
    assert rows["one"]["largest_track_jf"] == pytest.approx(expected(["a"], [2]).jf)
    singles = [expected(["a"], [n]).jf for n in range(4)]
    assert any(rows["one"]["random_track_jf"] == pytest.approx(single) for single in singles)


def test_every_threshold_has_the_scores_of_its_selection() -> None:
    rows, by_tau = scored()
    assert len(by_tau) == 4 * len(THRESHOLDS) == 4 * 19
    for tau in THRESHOLDS:
        chosen = [n for n in range(4) if SCORES_EN[0, n] > tau]
        row = by_tau["one", tau]
        assert values(row) == pytest.approx(expected(["a"], chosen)), tau
        assert row["tracks_selected"] == len(chosen)
    columns = ("tracks_selected", "predicted_empty", "j", "f", "jf")
    for name, row in rows.items():
        assert all(row[column] == by_tau[name, TAU][column] for column in columns)


def test_a_track_without_a_pixel_is_an_empty_prediction() -> None:
    rows, by_tau = scored()
    assert rows["none"]["tracks_selected"] == 1  # the track that is empty everywhere
    assert rows["none"]["predicted_empty"] and values(rows["none"]) == (1, 1, 1)
    assert not by_tau["none", 0.05]["predicted_empty"]
    assert by_tau["none", 0.05]["jf"] == 0
    assert values(rows["none"], "oracle_") == (1, 1, 1)


def test_only_candidates_count() -> None:
    rows, _ = scored()
    assert rows["same"]["tracks_selected"] == 1
    assert rows["same"]["all_tracks_jf"] == pytest.approx(expected(["a", "b"], [0, 2]).jf)
    assert rows["same"]["oracle_jf"] < rows["two"]["oracle_jf"]
    nothing, _ = scored(np.full_like(SCORES_EN, NAN))
    for name in ("one", "two", "same"):
        assert nothing[name]["tracks_selected"] == 0
        assert nothing[name]["oracle_jf"] == nothing[name]["largest_track_jf"]
        assert nothing[name]["oracle_jf"] == nothing[name]["jf"] < 0.5


def test_a_video_without_tracks() -> None:
    rows, by_tau = scored(np.zeros((5, 0), np.float32), tracks=[])
    assert rows["one"]["jf"] == rows["one"]["oracle_jf"] == pytest.approx(1 / 3)
    assert rows["none"]["jf"] == by_tau["none", 0.95]["jf"] == 1


def test_void_pixels_do_not_count() -> None:
    void = boxes((9, 21), (10, 20), (0, 30))
    rows, _ = scored(objects=OBJECTS | {"void": void})
    assert values(rows["one"]) == pytest.approx(expected(["a"], [0], void))
    assert rows["one"]["j"] > scored()[0]["one"]["j"]


def test_an_unlabelled_video_has_no_rows() -> None:
    unlabelled = EXPRESSIONS[1:2]
    tables = score_tables(KEY, VIDEO, unlabelled, TRACKS, {}, SCORES_EN[1:2], TAU)
    assert [table.num_rows for table in tables.values()] == [0, 0]


def test_expressions_are_scored_with_their_candidates_alone() -> None:
    torch.manual_seed(0)
    selector = TrackSelector(SelectorConfig(token_dim=16, text_dim=128)).eval()
    encoder = TextEncoder("demo")
    tokens_NTD = np.random.default_rng(0).normal(size=(5, 6, 16)).astype(np.float32)
    texts = ["the red circle", "the square", "the red circle", "nothing"]
    candidates_EN = np.array([[1, 1, 0, 1, 0], [1] * 5, [1, 1, 0, 1, 0], [0] * 5], bool)
    scores_EN = alignment_scores(selector, encoder, tokens_NTD, texts, candidates_EN)
    np.testing.assert_array_equal(np.isnan(scores_EN), ~candidates_EN)
    np.testing.assert_allclose(scores_EN[0], scores_EN[2], atol=1e-6)
    few = tokens_NTD[[0, 1, 3]]
    alone = alignment_scores(selector, encoder, few, texts[:1], np.ones((1, 3), bool))
    np.testing.assert_allclose(scores_EN[0, [0, 1, 3]], alone[0], atol=1e-5)
    every = alignment_scores(selector, encoder, tokens_NTD, texts[:2], np.ones((2, 5), bool))
    np.testing.assert_allclose(scores_EN[1], every[1], atol=1e-5)
    assert abs(scores_EN[0, 0] - every[0, 0]) > 1e-4  # the set of tracks matters
