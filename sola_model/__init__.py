"""The method in torch and numpy: extraction, the track selector, training, metrics.

What a notebook needs is here by name, and imported (torch with it) when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sola_model.extraction.sam2_models import load_sam2
    from sola_model.extraction.tracks import extract_tracks
    from sola_model.recipes import recipe_from
    from sola_model.selector.checkpoints import load_selector
    from sola_model.selector.inference import select
    from sola_model.text.encoder import TextEncoder

__all__ = [
    "TextEncoder",
    "extract_tracks",
    "load_sam2",
    "load_selector",
    "recipe_from",
    "select",
]

_FROM = {
    "TextEncoder": "text.encoder",
    "extract_tracks": "extraction.tracks",
    "load_sam2": "extraction.sam2_models",
    "load_selector": "selector.checkpoints",
    "recipe_from": "recipes",
    "select": "selector.inference",
}


def __getattr__(name: str) -> Any:
    if name in _FROM:
        return getattr(import_module(f"sola_model.{_FROM[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
