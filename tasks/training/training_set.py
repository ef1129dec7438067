"""The training data of a run as memory-mapped files, made once from the warehouse.

One sequential pass reads tokens, labels and expressions and writes them, float16, behind one
another; from then on nothing is read but these files, page by page as training touches them. A
set's folder is named by what it holds, so other runs, seeds and ablations find it; it may be
deleted at any time. A damaged one is written again.

    tokens.f16   (tracks * frames, D) of all videos      labels.u1   (expressions * tracks)
    text.f16     (words, C) of all distinct texts        index.json  what lies where

Axes as in `sola_model.training.data`.
"""

import json
import os
import shutil
import uuid
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from sola_model.recipes import Recipe
from sola_model.selector.background import training_foreground
from sola_model.text.cache import CachedTextEncoder
from sola_model.text.encoder import text_encoder_dim, text_encoder_identity
from sola_model.training.data import TrainingVideo
from tasks.tables import read_expressions, read_track_features, taken
from tasks.worker import device
from warehouse import Commit, Key, Warehouse, fingerprint

VERSION = 3  # raise it when the same rows give other files
TEXTS_AT_ONCE = 256  # encoded and written; bounds memory


@dataclass(frozen=True, kw_only=True)
class TrainingSet:
    """Videos in the order of `keys`.

    tracks, expressions: of each video, the ids of its tracks and the indices of its expressions
    that are here. left_out: the expressions whose text the encoder does not take, with why.
    """

    keys: list[Key]
    videos: list[TrainingVideo]
    tracks: list[list[int]]
    expressions: list[list[int]]
    left_out: list[str]


def video_contents(store: Warehouse, keys: Sequence[Key]) -> list[str]:
    """What names each video's expressions, tracks and labels in identities.

    `keys` are those of labels: of a video and a track set.
    """
    sources = {"ingest": ["expressions"], "precompute": ["tokens", "masks"],
               "label": ["pseudo_labels"]}  # fmt: skip
    commits = _commits(store, keys)
    return [
        fingerprint(
            video=(key.dataset, key.split, key.video_id),
            files=[commits[s][key].files[t].sha256 for s, names in sources.items() for t in names],
        )
        for key in keys
    ]


def _commits(store: Warehouse, keys: Sequence[Key]) -> dict[str, dict[Key, Commit]]:
    """stage -> key of the labels -> what the stage made of its video (and track set)."""
    ingested = store.current("ingest", {key.of(track_set="") for key in keys})
    return {
        "ingest": {key: ingested[key.of(track_set="")] for key in keys},
        "precompute": store.current("precompute", keys),
        "label": store.current("label", keys),
    }


def training_set(
    store: Warehouse, keys: Sequence[Key], recipe: Recipe, cache: Path, *, inference: bool
) -> TrainingSet:
    """The set of labelled videos, from `cache` or written there now, whole or not at all.

    `inference`: leave out the tracks of ground-truth masks, which are for training only. The
    recipe's `background_in_training` is for the other sets.

    An expression whose text the encoder does not take is left out.
    Raises ValueError for tokens that are not finite, and before anything is encoded where the
    encoder's features do not fit the selector.
    """
    check_text_dim(recipe)
    keys = list(keys)
    name = fingerprint(
        contents=video_contents(store, keys),
        token_features=recipe.token_features,
        text_encoder=text_encoder_identity(recipe.text_encoder),
        words=recipe.selector.reads_words,
        inference=inference,
        background=inference or recipe.background_in_training,
        version=VERSION,
    )
    folder = cache / name
    if folder.is_dir() and not _is_sound(folder):
        shutil.rmtree(folder)
    if not folder.is_dir():
        _write(store, keys, recipe, folder, inference)
    return _read(keys, folder)


def check_text_dim(recipe: Recipe) -> None:
    """Raise ValueError when the features of a recipe's text encoder do not fit its selector."""
    dim = text_encoder_dim(recipe.text_encoder)
    if dim != recipe.selector.text_dim:
        raise ValueError(
            f"text encoder {recipe.text_encoder!r} gives {dim} channels, the selector takes "
            f"{recipe.selector.text_dim}: set selector.text_dim={dim} (with sola train, --set "
            f"selector.text_dim={dim}), or choose another text_encoder."
        )


def _write(
    store: Warehouse, keys: list[Key], recipe: Recipe, folder: Path, inference: bool
) -> None:
    partial = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}.tmp")
    partial.mkdir(parents=True)
    try:
        cached = store.work_folder() / "cache" / "text"
        encoder = CachedTextEncoder(recipe.text_encoder, cached, device())
        texts, videos, token_dim = _write_videos(store, keys, recipe, encoder, partial, inference)
        path, with_words = partial / "text.f16", recipe.selector.reads_words
        words, text_dim = _write_texts(encoder, texts, path, with_words)
        index = {"videos": videos, "words": words, "token_dim": token_dim, "text_dim": text_dim}
        crc32 = {file.name: _crc32(file) for file in partial.iterdir()}
        crc32["index"] = zlib.crc32(json.dumps(index).encode())
        (partial / "index.json").write_text(json.dumps(index | {"crc32": crc32}))
        for file in partial.iterdir():
            with file.open("rb") as written:
                os.fsync(written.fileno())
        try:
            partial.rename(folder)
        except OSError:
            if not folder.is_dir():  # else another process was first, with the same content
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _is_sound(folder: Path) -> bool:
    """Whether the files of a set are those that were written."""
    try:
        index = json.loads((folder / "index.json").read_bytes())
        crc32 = index.pop("crc32")
        found = {name: _crc32(folder / name) for name in crc32 if name != "index"}
    except (ValueError, KeyError, TypeError, AttributeError, FileNotFoundError):
        return False
    return crc32 == found | {"index": zlib.crc32(json.dumps(index).encode())}


def _crc32(file: Path) -> int:
    crc32 = 0
    with file.open("rb") as content:
        while part := content.read(16 << 20):
            crc32 = zlib.crc32(part, crc32)
    return crc32


def _write_videos(
    store: Warehouse,
    keys: list[Key],
    recipe: Recipe,
    encoder: CachedTextEncoder,
    folder: Path,
    inference: bool,
) -> tuple[list[str], list[dict], int]:
    """Distinct texts, the index of each video, and the token width D."""
    ingested, precomputed, labelled = _commits(store, keys).values()
    text_index: dict[str, int] = {}
    videos, width = [], recipe.selector.token_dim
    with (folder / "tokens.f16").open("wb") as tokens, (folder / "labels.u1").open("wb") as labels:
        for key in keys:
            expressions = read_expressions(store, ingested[key])
            texts = [e.text for e in expressions]
            faults = encoder.faults(texts, words=recipe.selector.reads_words)
            left_out: list[str] = []
            sound = taken(expressions, faults, left_out)
            sound_E = [e for e, expression in enumerate(expressions) if expression in sound]
            features_NTD = read_track_features(
                store, precomputed[key], token_features=recipe.token_features
            )
            table = store.read("pseudo_labels", [labelled[key]])
            labels_EN = table["label"].to_numpy().reshape(len(expressions), len(features_NTD))
            kept = _tracks(store, precomputed[key], inference)
            if not (inference or recipe.background_in_training):
                foreground_N = training_foreground(labels_EN)
                kept = [n for n in kept if foreground_N[n]]
            features_NTD, labels_EN = features_NTD[kept], labels_EN[sound_E][:, kept]
            stored_NTD = features_NTD.astype(np.float16)
            if not np.isfinite(stored_NTD).all():
                raise ValueError(
                    f"The object tokens of {_name(key)} contain NaN, "
                    "infinity or numbers beyond float16. Delete its tokens file and run `sola "
                    "precompute` again, with SAM2 in float32 if it comes back."
                )
            if len(kept):
                width = features_NTD.shape[2]
            tokens.write(stored_NTD.tobytes())
            labels.write(labels_EN.astype(np.uint8).tobytes())
            videos.append(
                {
                    "video": _name(key),
                    "tracks": kept,
                    "frames": features_NTD.shape[1],
                    "texts": [  # None: left out
                        None if text in faults else text_index.setdefault(text, len(text_index))
                        for text in texts
                    ],
                    "left_out": [f"{_name(key)}/{text}" for text in left_out],
                }
            )
    return list(text_index), videos, width


def _name(key: Key) -> str:
    return "/".join([key.dataset, key.split, key.video_id])


def _tracks(store: Warehouse, precomputed: Commit, inference: bool) -> list[int]:
    """The ids of a video's tracks, from 0; at inference without those of ground-truth masks."""
    prompts = store.read("prompts", [precomputed]).to_pylist()
    tracked = [p for p in prompts if p["fate"] == "tracked"]
    return sorted(p["track_id"] for p in tracked if not (inference and p["source"] == "mask"))


def _write_texts(
    encoder: CachedTextEncoder, texts: list[str], path: Path, with_words: bool
) -> tuple[list[int], int]:
    """The number of words of each text, and the width C."""
    if not texts:
        path.touch()
        return [], 0
    words = []
    with path.open("wb") as file:
        for start in range(0, len(texts), TEXTS_AT_ONCE):
            part = texts[start : start + TEXTS_AT_ONCE]
            for text_WC in encoder.encode(part, words=with_words):
                words.append(len(text_WC))
                file.write(text_WC.numpy().astype(np.float16).tobytes())
    return words, text_WC.shape[1]


def _read(keys: list[Key], folder: Path) -> TrainingSet:
    index = json.loads((folder / "index.json").read_bytes())
    tokens_KD = _mapped(folder / "tokens.f16", np.float16, index["token_dim"])
    text_KC = _mapped(folder / "text.f16", np.float16, index["text_dim"])
    labels_K1 = _mapped(folder / "labels.u1", np.uint8, 1)
    texts = text_KC.split(index["words"])
    videos = []
    token, label = 0, 0
    for video in index["videos"]:
        of_video = [texts[t] for t in video["texts"] if t is not None]
        N, T, E = len(video["tracks"]), video["frames"], len(of_video)
        videos.append(
            TrainingVideo(
                video_id=video["video"],
                tokens_NTD=tokens_KD[token : token + N * T].view(N, T, index["token_dim"]),
                texts=of_video,
                labels_EN=labels_K1[label : label + E * N].view(E, N),
            )
        )
        token, label = token + N * T, label + E * N
    return TrainingSet(
        keys=keys,
        videos=videos,
        tracks=[video["tracks"] for video in index["videos"]],
        expressions=[
            [e for e, text in enumerate(video["texts"]) if text is not None]
            for video in index["videos"]
        ],
        left_out=[text for video in index["videos"] for text in video["left_out"]],
    )


def _mapped(path: Path, kind: type, width: int) -> torch.Tensor:
    """A file's numbers as rows, read when they are touched. Copy on write: the file stays."""
    if not path.stat().st_size:
        return torch.from_numpy(np.empty((0, width), kind))
    return torch.from_numpy(np.memmap(path, kind, mode="c").reshape(-1, width))
