"""Selector weights on disk, ours and the release's."""

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch

import sola_model
from sola_model.recipes import DEMO, DEMO_RELEASE, PAPER, RELEASE, SelectorConfig
from sola_model.selector.checkpoints import import_checkpoint, load_selector, save_selector
from sola_model.selector.network import TrackSelector

GOLDEN = Path(__file__).parents[2] / "golden"
CASES = [c for c in json.loads((GOLDEN / "index.json").read_text()) if c["kind"] == "selector"]
TINY = SelectorConfig(token_dim=8, text_dim=16, layers=2, heads=4, negative_anchors=3)
WRAPPERS = {
    "bare": lambda state: state,
    "model": lambda state: {"model": state, "epoch": 15},
    "state_dict": lambda state: {"state_dict": state},
    "module": lambda state: {"module." + name: value for name, value in state.items()},
    "both": lambda state: {"model": {"module." + n: v for n, v in state.items()}},
}


def released(case=CASES[0]) -> dict[str, torch.Tensor]:
    return torch.load(GOLDEN / f"{case['file']}.pth")


def tiny_selector() -> TrackSelector:
    torch.manual_seed(0)
    return TrackSelector(TINY).eval()


def test_save_and_load(tmp_path):
    selector, tokens_NTD, text_WC = tiny_selector(), torch.randn(5, 11, 8), torch.randn(4, 16)
    save_selector(selector, tmp_path / "weights")
    loaded = load_selector(tmp_path / "weights")
    assert not loaded.training and loaded.config == TINY
    assert torch.equal(loaded(tokens_NTD, text_WC)[0], selector(tokens_NTD, text_WC)[0])
    names = sorted(path.name for path in (tmp_path / "weights").iterdir())
    assert names == ["selector.json", "selector.safetensors"]


def test_what_is_not_a_selector_directory_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"not a selector directory.*save_selector"):
        load_selector(tmp_path)
    save_selector(tiny_selector(), tmp_path)
    weights = tmp_path / "selector.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(ValueError, match="not a selector directory"):
        load_selector(tmp_path)


def test_load_selector_is_in_the_package_which_imports_no_torch_for_it(tmp_path):
    assert sola_model.load_selector is load_selector
    script = "import sys, sola_model; assert 'torch' not in sys.modules; sola_model.load_selector"
    subprocess.run([sys.executable, "-c", script], check=True)
    with pytest.raises(AttributeError, match="no attribute 'load_selectors'"):
        _ = sola_model.load_selectors


@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case["file"])
def test_imported_checkpoint_gives_released_scores(tmp_path, case, wrapper):
    torch.save(WRAPPERS[wrapper](released(case)), tmp_path / "epoch_15.pth")
    save_selector(import_checkpoint(tmp_path / "epoch_15.pth", RELEASE), tmp_path / "ours")
    selector = sola_model.load_selector(str(tmp_path / "ours"))
    assert selector.config.layers == case["layers"]
    golden = np.load(GOLDEN / f"{case['file']}.npz")
    with torch.no_grad():
        logits_N, objects_NC = selector(
            torch.from_numpy(golden["tokens_NTD"]), torch.from_numpy(golden["text_WC"])
        )
    np.testing.assert_allclose(logits_N, golden["logits_N"], rtol=0, atol=1e-5)
    np.testing.assert_allclose(objects_NC, golden["object_NC"], rtol=0, atol=1e-5)


def test_what_a_state_dict_does_not_tell_is_the_recipes(tmp_path):
    torch.save(released(), tmp_path / "c.pth")
    assert import_checkpoint(tmp_path / "c.pth", PAPER).config.aggregation == "paper"
    assert import_checkpoint(tmp_path / "c.pth", RELEASE).config.aggregation == "release"


def test_half_precision_is_imported_as_float32(tmp_path):
    torch.save({name: value.half() for name, value in released().items()}, tmp_path / "c.pth")
    selector = import_checkpoint(tmp_path / "c.pth", RELEASE)
    assert {value.dtype for value in selector.state_dict().values()} == {torch.float32}


def without_language_keys(state):
    return {name: value for name, value in state.items() if "object2lang_attn.q_proj" not in name}


def with_nan(state):
    state["negative_token.weight"][0, 0] = torch.nan
    return state


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (without_language_keys, r"4 missing \(object_lang_align_layers.0.object2lang_attn.q_proj"),
        (lambda state: state | {"extra": torch.zeros(1)}, r"1 unexpected \(extra\)"),
        (
            lambda state: state | {"short_motion_encoder.4.weight": torch.zeros(1)},
            r"1 of another shape \(short_motion_encoder.4.weight\)",
        ),
        (with_nan, r"1 not finite \(negative_token.weight\)"),
        (lambda state: {"conv1.weight": torch.zeros(1)}, "no track selector.*conv1.weight"),
        (lambda state: {}, "no track selector.*nothing"),
        (lambda state: [1, 2], "no state dict, but list"),
        (lambda state: {"epoch": 3}, "no state dict"),
        (
            lambda state: {"selector": state, "recipe": asdict(DEMO)},
            "training checkpoint of recipe 'demo', not 'release'",
        ),
    ],
)
def test_foreign_and_damaged_checkpoints_are_named(tmp_path, spoil, message):
    torch.save(spoil(released()), tmp_path / "c.pth")
    with pytest.raises(ValueError, match=message):
        import_checkpoint(tmp_path / "c.pth", RELEASE)


def test_checkpoint_of_another_recipe_is_refused(tmp_path):
    torch.save(released(), tmp_path / "c.pth")
    message = r"recipe 'demo-release': 2 missing \(token_mean.*recipe it was"
    with pytest.raises(ValueError, match=message):
        import_checkpoint(tmp_path / "c.pth", DEMO_RELEASE)


@pytest.mark.parametrize("content", [None, b"", b"not a checkpoint", b"PK\x03\x04 cut off"])
def test_files_that_are_no_checkpoint_are_refused(tmp_path, content):
    if content is not None:
        (tmp_path / "c.pth").write_bytes(content)
    with pytest.raises(ValueError, match=r"c\.pth cannot be read as a checkpoint"):
        import_checkpoint(tmp_path / "c.pth", RELEASE)


def test_a_pickled_program_is_not_run(tmp_path):
    torch.save(tiny_selector(), tmp_path / "c.pth")
    with pytest.raises(ValueError, match="cannot be read as a checkpoint"):
        import_checkpoint(tmp_path / "c.pth", RELEASE)
