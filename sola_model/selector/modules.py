"""The track selection modules, chosen by configuration."""

from sola_model.recipes import SelectorConfig, TwoTowerConfig
from sola_model.selector.base import Selector
from sola_model.selector.network import TrackSelector
from sola_model.selector.two_tower import TwoTower


def new_selector(config: SelectorConfig | TwoTowerConfig) -> Selector:
    """A selector of this configuration with random weights."""
    return TwoTower(config) if isinstance(config, TwoTowerConfig) else TrackSelector(config)
