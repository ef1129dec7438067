"""The method in torch and numpy: extraction, the track selector, training, metrics."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sola_model.checkpoints import load_selector

__all__ = ["load_selector"]


def __getattr__(name: str) -> Any:
    """`sola_model.load_selector`, without importing torch before it is used."""
    if name == "load_selector":
        from sola_model.checkpoints import load_selector

        return load_selector
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
