"""The two-tower selector: its own promises, and what it refuses."""

from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

from sola_model.masks.geometry import CHANNELS, VISIBLE
from sola_model.recipes import DEMO, DEMO_RELEASE, TWO_TOWER, TwoTowerConfig, override, recipe_from
from sola_model.selector.base import Selector
from sola_model.selector.batches import pad_videos
from sola_model.selector.checkpoints import import_checkpoint, load_selector, save_selector
from sola_model.selector.modules import new_selector
from sola_model.selector.search import query_of, track_vectors
from sola_model.selector.two_tower import INDIFFERENT, product_of_experts
from sola_model.text.words import BASE, split_words, with_words

TINY = TwoTowerConfig(token_dim=8 + CHANNELS, text_dim=16, vocabulary=50, width=8)


def tokens(tracks: int, frames: int, seed: int = 1) -> torch.Tensor:
    """Random tokens whose masks are empty in some frames."""
    tokens_NTD = torch.randn(
        tracks, frames, TINY.token_dim, generator=torch.Generator().manual_seed(seed)
    )
    geometry_NTG = tokens_NTD[..., 8:]
    geometry_NTG *= geometry_NTG[..., VISIBLE, None] > -1
    geometry_NTG[..., VISIBLE] = geometry_NTG[..., VISIBLE].abs()
    return tokens_NTD


def text(words: int, seed: int = 2) -> torch.Tensor:
    chance = torch.Generator().manual_seed(seed)
    return with_words(
        torch.randn(words, 16, generator=chance), torch.randint(50, (words,), generator=chance)
    )


@pytest.fixture
def selector() -> Selector:
    torch.manual_seed(0)
    selector = new_selector(TINY).eval()
    torch.nn.init.normal_(selector.text.word.weight)
    selector.fit_inputs(tokens(9, 30, seed=5).flatten(0, 1))
    return selector


def test_a_score_is_the_same_in_any_company(selector: Selector) -> None:
    tokens_NTD, text_WC = tokens(6, 11), text(4)
    logits_N, vectors_NK = selector(tokens_NTD, text_WC)
    assert logits_N.shape == (6,) and vectors_NK.shape == (6, selector.object_dim)
    for n in range(6):
        alone_1, _ = selector(tokens_NTD[n : n + 1], text_WC)
        torch.testing.assert_close(alone_1[0], logits_N[n], rtol=1e-5, atol=1e-5)
    assert logits_N.std() > 0.01


@pytest.mark.parametrize("frames", [1, 2, 3, 5, 24, 25, 400])
def test_any_number_of_frames(selector: Selector, frames: int) -> None:
    logits_N, _ = selector(tokens(2, frames), text(3))
    assert logits_N.shape == (2,) and logits_N.isfinite().all()


def test_an_empty_track_and_no_track_have_scores(selector: Selector) -> None:
    never_visible_1TD = tokens(1, 9)
    never_visible_1TD[..., 8:] = 0
    assert selector(never_visible_1TD, text(3))[0].isfinite().all()
    logits_EN, vectors_ENK = selector(tokens(0, 9), torch.stack([text(3), text(3, seed=4)]))
    assert logits_EN.shape == (2, 0) and vectors_ENK.shape == (2, 0, selector.object_dim)


def test_a_query_gives_the_logits_of_kept_vectors(selector: Selector) -> None:
    tokens_NTD, text_WC = tokens(5, 24), text(6)
    query = query_of(selector, text_WC, ())
    vectors_NK = track_vectors(selector, tokens_NTD.numpy(), ())
    with torch.no_grad():
        logits_N, _ = selector(tokens_NTD, text_WC)
    found_N = query.logits(torch.from_numpy(vectors_NK))
    torch.testing.assert_close(found_N, logits_N, rtol=0, atol=1e-5)


def test_the_tracks_of_every_video_score_as_in_their_own(selector: Selector) -> None:
    videos, texts = [tokens(4, 9), tokens(2, 24, seed=3)], [text(3), text(5, seed=4)]
    batch = pad_videos([(videos[0], texts[:1]), (videos[1], texts[1:])])
    logits_EVN = selector.forward_everywhere(batch)
    assert logits_EVN.shape == (2, 2, 4)
    for e, text_WC in enumerate(texts):
        for v, tokens_NTD in enumerate(videos):
            logits_N, _ = selector(tokens_NTD, text_WC)
            found_N = logits_EVN[e, v, : len(logits_N)]
            torch.testing.assert_close(found_N, logits_N, rtol=1e-5, atol=1e-5)
    batch = replace(batch, text_EWC=batch.text_EWC[..., :-1])
    with pytest.raises(ValueError, match="Text features have shape"):
        selector.forward_everywhere(batch)


def test_looks_do_not_reach_motion_nor_place_looks(selector: Selector) -> None:
    """Each stream reads its own channels: that is what keeps it from learning tracks by heart."""
    tokens_NTD = tokens(3, 16)
    _, before_NK = selector(tokens_NTD, text(3))
    other_looks_NTD = tokens_NTD.clone()
    other_looks_NTD[..., :8] += 1
    _, looks_NK = selector(other_looks_NTD, text(3))
    moved_NTD = tokens_NTD.clone()
    moved_NTD[..., 8:12] += moved_NTD[..., 8 + VISIBLE, None] > 0
    _, moved_NK = selector(moved_NTD, text(3))
    width = TINY.width
    look, shape, motion = (slice(i * width, (i + 1) * width) for i in range(3))
    assert torch.equal(looks_NK[:, shape], before_NK[:, shape])
    assert torch.equal(looks_NK[:, motion], before_NK[:, motion])
    assert not torch.allclose(looks_NK[:, look], before_NK[:, look], atol=1e-3)
    assert torch.equal(moved_NK[:, look], before_NK[:, look])
    assert torch.equal(moved_NK[:, shape], before_NK[:, shape])
    assert not torch.allclose(moved_NK[:, motion], before_NK[:, motion], atol=1e-3)


def test_a_track_must_fit_every_word() -> None:
    fits_NW = torch.tensor([[9.0, 9.0, 9.0], [9.0, 9.0, -20.0], [9.0, -20.0, -20.0]])
    logits_N = product_of_experts(fits_NW, torch.ones(3, dtype=torch.bool))
    assert logits_N[0] > 5 > -5 > logits_N[1] > logits_N[2]
    unheard_N = product_of_experts(fits_NW, torch.tensor([True, True, False]))
    assert unheard_N[0] > 5 and unheard_N[1] > 5 and unheard_N[2] < -5
    probability = torch.sigmoid(product_of_experts(torch.tensor([[0.3, -1.0]]), torch.ones(2)))
    expected = torch.sigmoid(torch.tensor([0.3, -1.0]) + INDIFFERENT).prod()
    torch.testing.assert_close(probability[0], expected)


def test_words_that_training_never_saw_add_nothing() -> None:
    torch.manual_seed(0)
    selector = new_selector(TINY).eval()
    features_WC = torch.randn(3, 16)
    logits = [
        selector(tokens(2, 9), with_words(features_WC, torch.full((3,), word)))[0]
        for word in (7, 40)
    ]
    assert torch.equal(*logits)


def test_weights_come_back_from_disk(selector: Selector, tmp_path: Path) -> None:
    save_selector(selector, tmp_path)
    again = load_selector(tmp_path)
    assert again.config == TINY
    for mine, theirs in zip(
        again(tokens(3, 9), text(4)), selector(tokens(3, 9), text(4)), strict=True
    ):
        assert torch.equal(mine, theirs)


def test_ids_of_words_survive_float16() -> None:
    ids_W = torch.tensor([0, 1, BASE - 1, BASE, 50_264, 250_001])
    features_WC = torch.randn(6, 4)
    stored = with_words(features_WC, ids_W).half()
    _, found_W = split_words(stored)
    assert torch.equal(found_W, ids_W)
    assert torch.equal(split_words(with_words(features_WC, ids_W))[0], features_WC)


@pytest.mark.parametrize(
    ("wrong_tokens", "wrong_text", "message"),
    [
        (torch.zeros(2, 4, 9), None, r"\(2, 4, 9\).*SAM2 model it was trained on"),
        (torch.zeros(2, 0, 24), None, "frames >= 1"),
        (torch.full((2, 4, 24), torch.nan), None, "Object tokens contain NaN"),
        (None, torch.zeros(3, 17), r"3, 17\).*text encoder it was trained"),
        (None, torch.full((3, 18), torch.inf), "Text features contain NaN"),
        (None, with_words(torch.zeros(3, 16), torch.tensor([1, 50, 2])), "word of id 50.*set it"),
    ],
)
def test_wrong_inputs_are_named(
    selector: Selector,
    wrong_tokens: torch.Tensor | None,
    wrong_text: torch.Tensor | None,
    message: str,
) -> None:
    given = tokens(2, 4) if wrong_tokens is None else wrong_tokens
    with pytest.raises(ValueError, match=message):
        selector(given, text(3) if wrong_text is None else wrong_text)


def test_recipes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="token_features=pointer\\+geometry"):
        replace(TWO_TOWER, token_features="pointer")
    with pytest.raises(ValueError, match="no negative anchors"):
        override(DEMO, ["loss.alignment_weight=0.3"])
    with pytest.raises(ValueError, match="only the two-tower selector"):
        override(DEMO_RELEASE, ["loss.contrast_weight=0.1"])
    with pytest.raises(ValueError, match=r"kept_out=0.*set one of them"):
        override(DEMO, ["training.kept_out=0"])
    with pytest.raises(ValueError, match=r"between 0 and 0\.5"):
        override(DEMO, ["training.kept_out=0.6"])
    with pytest.raises(ValueError, match="geometry"):
        replace(
            DEMO_RELEASE,
            token_features="pointer",
            selector=replace(DEMO_RELEASE.selector, separate_streams=True),
        )
    with pytest.raises(ValueError, match="TwoTowerConfig has: token_dim, text_dim"):
        override(DEMO, ["selector.layers=1"])


def test_settings_change_by_name() -> None:
    assert override(DEMO, ["selector.width=64"]).selector == replace(DEMO.selector, width=64)
    assert override(DEMO, ["tau=0.4"]).tau == 0.4
    assert override(DEMO_RELEASE, ["selector.separate_streams=true"]).selector.separate_streams


def test_a_released_checkpoint_is_not_of_this_module(tmp_path: Path) -> None:
    torch.save({}, tmp_path / "c.pth")
    with pytest.raises(ValueError, match=r"recipe 'demo' has a two-tower selector.*release"):
        import_checkpoint(tmp_path / "c.pth", DEMO)


def test_stored_recipes_are_read_back() -> None:
    for recipe in (DEMO, DEMO_RELEASE, TWO_TOWER):
        assert recipe_from(asdict(recipe)) == recipe
    with pytest.raises(ValueError, match="have the names token_dim, colour"):
        recipe_from(asdict(DEMO) | {"selector": {"token_dim": 80, "colour": 3}})
