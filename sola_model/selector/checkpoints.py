"""Selector weights on disk: ours (safetensors and configuration) and released checkpoints."""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from sola_model.files import replacing
from sola_model.recipes import Recipe, SelectorConfig, TwoTowerConfig
from sola_model.selector.base import Selector
from sola_model.selector.modules import new_selector
from sola_model.selector.network import TrackSelector
from sola_model.settings import from_dict

WRAPPERS = ("model", "state_dict", "selector")  # keys that a file may hold its weights under


def save_selector(selector: Selector, directory: Path) -> None:
    """Write selector.safetensors and selector.json into `directory` (created if missing)."""
    directory.mkdir(parents=True, exist_ok=True)
    weights = {name: value.contiguous().cpu() for name, value in selector.state_dict().items()}
    with replacing(directory / "selector.safetensors") as file:
        file.write(safetensors.torch.save(weights))
    with replacing(directory / "selector.json") as file:
        file.write(json.dumps(asdict(selector.config), indent=2).encode())


def load_selector(directory: str | Path) -> Selector:
    """The selector saved in `directory`, on the CPU, in evaluation mode.

    Raises ValueError when the directory does not hold a selector.
    """
    directory = Path(directory)
    try:
        sizes = json.loads((directory / "selector.json").read_text())
        selector = new_selector(from_dict(sizes, SelectorConfig | TwoTowerConfig))
        weights = safetensors.torch.load_file(directory / "selector.safetensors")
        selector.load_state_dict(weights)
    except (OSError, TypeError, ValueError, RuntimeError, safetensors.SafetensorError) as error:
        raise ValueError(
            f"{directory} is not a selector directory ({error}). It must hold selector.json and "
            "selector.safetensors as save_selector writes them; `sola import-checkpoint` makes "
            "one of a released checkpoint."
        ) from error
    return selector.eval()


def import_checkpoint(path: str | Path, recipe: Recipe) -> TrackSelector:
    """The selector of a released checkpoint (.pth), on the CPU, in evaluation mode.

    D, C, the number of layers and of negative anchors are the checkpoint's; what a state dict
    does not tell (heads, aggregation and the like) is `recipe.selector`'s. The state dict may be
    wrapped in a dictionary ("model", "state_dict") and its names may begin with "module.".

    Raises ValueError for a file that is no selector, for one with weights missing or left over,
    for a training checkpoint of another recipe, and for a recipe of another module.
    """
    if not isinstance(recipe.selector, SelectorConfig):
        raise ValueError(
            f"recipe {recipe.name!r} has a two-tower selector, released checkpoints are of the "
            "paper's module: import them with recipe release or paper."
        )
    weights = _read_weights(Path(path), recipe)
    config = replace(recipe.selector, **_sizes(Path(path), weights))
    with torch.device("meta"):
        selector = TrackSelector(config)
    expected = {name: value.shape for name, value in selector.state_dict().items()}
    problems = {
        "missing": sorted(expected.keys() - weights.keys()),
        "unexpected": sorted(weights.keys() - expected.keys()),
        "of another shape": [
            n for n in expected if n in weights and weights[n].shape != expected[n]
        ],
        "not finite": [name for name, value in weights.items() if not value.isfinite().all()],
    }
    if any(problems.values()):
        found = "; ".join(
            f"{len(names)} {problem} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
            for problem, names in problems.items()
            if names
        )
        raise ValueError(
            f"{path} does not fit the selector of recipe {recipe.name!r}: {found}. Choose the "
            "recipe it was trained with, or download the file again."
        )
    selector.load_state_dict({n: value.float() for n, value in weights.items()}, assign=True)
    return selector.eval()


def _read_weights(path: Path, recipe: Recipe) -> dict[str, Tensor]:
    """The state dict in a file, without wrappers and prefixes."""
    try:
        state: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises whatever the content happens to cause
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(
            f"{path} cannot be read as a checkpoint ({reason}). Give a file that torch.save wrote "
            "from a state dict, such as epoch_15.pth of the release."
        ) from error
    theirs = state.get("recipe") if isinstance(state, Mapping) else None
    if isinstance(theirs, Mapping) and theirs.get("name") != recipe.name:
        raise ValueError(
            f"{path} is a training checkpoint of recipe {theirs.get('name')!r}, not "
            f"{recipe.name!r}. Import it with the recipe it was trained with."
        )
    while isinstance(state, Mapping) and (inside := [w for w in WRAPPERS if w in state]):
        state = state[inside[0]]
    if not isinstance(state, Mapping) or not all(isinstance(v, Tensor) for v in state.values()):
        raise ValueError(
            f"{path} holds no state dict, but {type(state).__name__}. Give a dictionary of "
            f"tensors by name, by itself or under {' or '.join(map(repr, WRAPPERS))}."
        )
    return {name.removeprefix("module."): value for name, value in state.items()}


def _sizes(path: Path, weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """The sizes that the shapes of a state dict tell."""
    layers = [re.match(r"object_lang_align_layers\.(\d+)\.", name) for name in weights]
    try:
        anchors, text_dim = weights["negative_token.weight"].shape
        _, token_dim, _ = weights["short_motion_encoder.0.weight"].shape
        return {
            "token_dim": token_dim,
            "text_dim": text_dim,
            "negative_anchors": anchors,
            "layers": 1 + max(int(match[1]) for match in layers if match),
        }
    except (KeyError, ValueError) as error:
        raise ValueError(
            f"{path} holds no track selector: its weights are named "
            f"{', '.join(list(weights)[:3]) or 'nothing'}, ... A selector has negative_token, "
            "short_motion_encoder and object_lang_align_layers."
        ) from error
