"""Train: object tokens, text features and pseudo-labels -> track selector (Figure 3).

sola train --dataset mevis --split train --validation valid_u
"""

from prefect import flow

from flows.progress import epoch_progress
from sola_model.recipes import recipe_by_name
from tasks.train import train_run


@flow
def train(
    warehouse: str,
    dataset: str,
    split: str = "train",
    validation: str = "valid_u",
    recipe: str = "release",
) -> str:
    """Train a selector on a labelled split; returns the run id. An interrupted run continues."""
    settings = recipe_by_name(recipe)
    with epoch_progress("train", settings.training.epochs) as on_epoch:
        return train_run(warehouse, dataset, split, validation, settings, on_epoch)
