"""Train a selector on the object tokens and pseudo-labels of the warehouse."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict

import numpy as np
import pyarrow as pa
import torch
from prefect import task
from prefect.cache_policies import NO_CACHE
from torch import Tensor

from sola_model.recipes import Recipe
from sola_model.selector import save_selector
from sola_model.text import TextEncoder, text_encoder_identity
from sola_model.training import EpochMetrics, TrainingVideo, train_selector
from tasks.tables import read_expressions, read_track_features
from tasks.worker import device
from warehouse import TABLES, Key, Warehouse, WarehouseError, fingerprint


@task(cache_policy=NO_CACHE)
def train_run(
    warehouse: str,
    dataset: str,
    split: str,
    validation: str,
    recipe: Recipe,
    on_epoch: Callable[[EpochMetrics], None] | None = None,
) -> str:
    """Train on one split, validate on another, publish the run and give its run id.

    The run id is made from everything the weights depend on: the same data and recipe give the
    same run, which is trained once; one that was interrupted continues after its last epoch.

    Raises:
        WarehouseError: nothing is labelled in the training split.
        ValueError: no label is positive.
    """
    store = Warehouse(warehouse)
    labelled = store.current("label", dataset=dataset, split=split)
    if not labelled:
        raise WarehouseError(
            f"there are no pseudo-labels of {dataset}/{split} in {store.root}. Run `sola "
            f"precompute` and `sola label` with --dataset {dataset} --split {split} first."
        )
    held_out = store.current("label", dataset=dataset, split=validation)
    identity = fingerprint(
        recipe=asdict(recipe),
        text_encoder=text_encoder_identity(recipe.text_encoder),
        data=_content(store, [*labelled, *held_out]),
    )
    run_id = f"{recipe.name}-{identity[:8]}"
    key = Key(run_id=run_id)
    folder = store.root / "selectors" / run_id
    if not store.missing("train", {key: identity}) and folder.exists():
        return run_id
    encoder = TextEncoder(recipe.text_encoder)
    videos = training_videos(store, list(labelled), encoder, recipe.token_features)
    selector, metrics = train_selector(
        videos,
        training_videos(store, list(held_out), encoder, recipe.token_features),
        recipe,
        checkpoint=store.root / "checkpoints" / f"{run_id}.pt",
        on_epoch=on_epoch,
        device=device(),
    )
    save_selector(selector.cpu(), folder)
    run = {
        "run_id": [run_id],
        "dataset": [dataset],
        "split": [split],
        "recipe": [recipe.name],
        "config": [json.dumps(asdict(recipe))],
        "parameters": [sum(p.numel() for p in selector.parameters() if p.requires_grad)],
        "epochs": [len(metrics)],
        "weights": [folder.relative_to(store.root).as_posix()],
        "train_videos": [len(videos)],
        "train_expressions": [sum(len(v.texts) for v in videos)],
    }
    tables = {
        "runs": pa.table(run, schema=TABLES["runs"]),
        "training_metrics": _metric_rows(run_id, metrics),
    }
    store.publish("train", key, identity, tables)
    return run_id


def _content(store: Warehouse, keys: Sequence[Key]) -> list[list[str]]:
    """What names the tokens, expressions and labels of videos in a run's identity."""
    tables = {"ingest": "expressions", "precompute": "tokens", "label": "pseudo_labels"}
    commits = {stage: store.current(stage) for stage in tables}
    return [
        [key.video_id, *(commits[s][key].files[table].sha256 for s, table in tables.items())]
        for key in keys
    ]


def training_videos(
    store: Warehouse, keys: Sequence[Key], encoder: TextEncoder, token_features: str
) -> list[TrainingVideo]:
    """The tokens, text features and labels of videos, texts encoded once each."""
    ingested, precomputed = store.current("ingest"), store.current("precompute")
    labelled = store.current("label")
    expressions = {key: read_expressions(store, ingested[key]) for key in keys}
    texts = sorted({e.text for found in expressions.values() for e in found})
    features: dict[str, Tensor] = dict(zip(texts, encoder.encode(texts), strict=True))
    videos = []
    for key in keys:
        labels = store.read("pseudo_labels", [labelled[key]])["label"].to_numpy()
        tokens_NTD = read_track_features(store, precomputed[key], token_features)
        labels_EN = labels.astype(np.float32).reshape(len(expressions[key]), len(tokens_NTD))
        videos.append(
            TrainingVideo(
                video_id=key.video_id,
                tokens_NTD=torch.from_numpy(tokens_NTD),
                texts=[features[e.text] for e in expressions[key]],
                labels_EN=torch.from_numpy(labels_EN),
            )
        )
    return videos


def _metric_rows(run_id: str, metrics: Sequence[EpochMetrics]) -> pa.Table:
    values = [
        (epoch.epoch, name, value)
        for epoch in metrics
        for name, value in asdict(epoch).items()
        if name != "epoch" and value is not None
    ]
    epochs, names, numbers = zip(*values, strict=True)
    columns = {
        "run_id": [run_id] * len(values),
        "epoch": epochs,
        "metric": names,
        "value": numbers,
    }
    return pa.table(columns, schema=TABLES["training_metrics"])
