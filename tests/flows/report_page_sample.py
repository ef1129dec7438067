"""A small evaluated warehouse for the tests of the page: real frames, tracks near the objects.

Split valid_u has ground truth, valid has none. One expression and one tag are written as markup.
"""

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
from pycocotools import mask as coco

from sola_model.recipes import DEMO
from tasks.experiments.measured import Measured, publish_experiment
from tasks.experiments.tables import picture_folder
from tasks.pictures.masks_on_frames import jpeg
from tasks.stage import make_each
from tasks.stages.ingest import ingest_split
from tasks.stages.label import LABEL, label_plan
from tasks.stages.oracle import ORACLE, oracle_plan
from tasks.stages.scoring import score_tables
from tasks.tables import read_expressions, read_objects, read_video, rows
from tasks.track_sets import remember, track_set_of
from warehouse import TABLES, Commit, Key, Warehouse
from warehouse.demo_data import write_dataset
from warehouse.masks import mask_columns

RUN = "demo-0f"
FRAMES = 6
TRACKS = track_set_of(DEMO)
MARKUP = "<script>alert(1)</script> 'the red' & \"blue\" one"
TAG = '"><img src=x onerror=alert(2)>'
RECIPE = replace(
    DEMO,
    tau=0.5,
    loss=replace(DEMO.loss, positive_weight=1.5),
    training=replace(DEMO.training, kept_out=0),
)
CONFIG = asdict(RECIPE)
EMPTY = {pa.string(): "", pa.int32(): 0, pa.int64(): 0, pa.list_(pa.string()): []}


def write_sample(folder: Path) -> Warehouse:
    data, store = folder / "data", Warehouse.create(folder / "w")
    write_dataset(data, {"valid_u": 4, "valid": 2}, seed=3, frames=FRAMES)
    _write_markup(data / "valid_u" / "meta_expressions.json")
    row = {f.name: None if f.nullable else EMPTY[f.type] for f in TABLES["runs"]}
    row |= {"run_id": RUN, "dataset": "demo", "split": "train", "recipe": "demo"}
    row |= {"config": json.dumps(CONFIG), "parameters": 700_000}
    runs = pa.Table.from_pylist([row], schema=TABLES["runs"])
    metrics = TABLES["training_metrics"].empty_table()
    store.publish("train", Key(run_id=RUN), "f", {"runs": runs, "training_metrics": metrics})
    for split in ("valid_u", "valid"):
        ingest_split(store.url, "demo", str(data), split)
        remember(store, "demo", split, TRACKS)
        for seed, commit in enumerate(store.current("ingest", split=split).values()):
            _publish_tracks(store, commit)
            _publish_scores(store, commit, seed)
    labels = label_plan(store, "demo", "valid_u", TRACKS.name, DEMO)
    make_each(LABEL, store, labels.wanted, DEMO)
    oracles = oracle_plan(store, "demo", "valid_u", TRACKS.name)
    make_each(ORACLE, store, oracles.wanted, oracles.subject)
    _publish_experiment(store)
    return store


def _publish_experiment(store: Warehouse) -> None:
    """Two seeds of a variant named by markup, and a picture."""
    common = {"variant": MARKUP, "metric": "jf", "measured_on": "demo/valid_u", "paper": 0.445}
    measured = [Measured(value=value, seed=n, **common) for n, value in enumerate((0.4, 0.5))]
    publish_experiment(store, "table5a", "demo", "valid_u", "demo", measured)
    picture = picture_folder(store) / "table5a-demo-valid_u.jpg"
    picture.parent.mkdir(parents=True)
    picture.write_bytes(jpeg(np.zeros((8, 8, 3), np.uint8)))


def _write_markup(file: Path) -> None:
    meta = json.loads(file.read_text())
    first = meta["videos"]["valid_u_0000"]["expressions"]["0"]
    first |= {"exp": MARKUP, "tags": [*first["tags"], TAG]}
    file.write_text(json.dumps(meta))


def _tracks(store: Warehouse, ingested: Commit) -> list[list[dict]]:
    """One near each object; without ground truth two squares."""
    objects = list(read_objects(store, ingested).values())
    if objects:
        return [[_off(rle) for rle in masks] for masks in objects]
    video = read_video(store, ingested)
    squares = []
    for n in range(2):
        mask_HW = np.zeros((video["height"], video["width"]), np.uint8, order="F")
        mask_HW[10 : 30 + 10 * n, 10 + 40 * n : 30 + 40 * n] = 1
        squares.append([coco.encode(mask_HW)] * FRAMES)
    return squares


def _off(rle: dict) -> dict:
    return coco.encode(np.asfortranarray(np.roll(coco.decode(rle), 2, axis=1)))


def _publish_tracks(store: Warehouse, ingested: Commit) -> None:
    key, tracks = ingested.key.of(track_set=TRACKS.name), _tracks(store, ingested)
    count = len(tracks)
    firsts = mask_columns([masks[0] for masks in tracks])
    prompts = {f.name: [None if f.nullable else 0] * count for f in TABLES["prompts"]}
    prompts |= {
        name: [getattr(key, name)] * count for name in ("dataset", "split", "video_id", "track_set")
    }
    prompts |= {"prompt_id": range(count), "track_id": range(count), "fate": ["tracked"] * count}
    prompts |= {"source": ["grid"] * count, "counts": firsts["counts"]}
    by_frame = {
        "track_id": np.repeat(np.arange(count), FRAMES),
        "frame_index": np.tile(np.arange(FRAMES), count),
    }
    masks = mask_columns([rle for masks in tracks for rle in masks])
    tables = {
        "prompts": pa.table(prompts, schema=TABLES["prompts"]),
        "tracks": TABLES["tracks"].empty_table(),
        "masks": rows("masks", key, by_frame | masks),
        "tokens": TABLES["tokens"].empty_table(),
    }
    store.publish("precompute", key, "f", tables)


def _publish_scores(store: Warehouse, ingested: Commit, seed: int) -> None:
    key = ingested.key.of(run_id=RUN, track_set=TRACKS.name)
    tracks = _tracks(store, ingested)
    expressions = read_expressions(store, ingested)
    scores_EN = np.random.default_rng(seed).random((len(expressions), len(tracks)), np.float32)
    expression_K, track_K = np.indices(scores_EN.shape).reshape(2, -1)
    columns = {
        "expression_id": [expressions[e].expression_id for e in expression_K],
        "track_id": track_K,
        "score": scores_EN.ravel(),
        "selected": scores_EN.ravel() > CONFIG["tau"],
        "probability": scores_EN.ravel() / 2,
    }
    video, truth = read_video(store, ingested), read_objects(store, ingested)
    scored = score_tables(key, video, expressions, tracks, truth, scores_EN, CONFIG["tau"])
    predictions = rows("predictions", key, columns)
    store.publish("evaluate", key, "f", {"predictions": predictions, **scored})
