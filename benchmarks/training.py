"""Training and loading against the plain way, at the sizes of MeViS, side by side.

    python -m benchmarks.training        # or: make bench

40 tracks of 60 frames, D = 256, C = 1024, 10 expressions a video, the selector of recipe
`release`. The plain loop does as the release does: every step is one expression and runs the text
encoder (RoBERTa-large, random weights), whose gradients are computed and never used; every
expression reads its tokens from a .npy file and its labels from a JSON file.
"""

import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from transformers import RobertaConfig, RobertaModel

from benchmarks.training_warehouse import EXPRESSIONS, VIDEOS, write_videos
from sola_model.recipes import RELEASE, Recipe
from sola_model.selector.losses import total_loss
from sola_model.selector.network import TrackSelector
from sola_model.training.batch_losses import batch_losses
from sola_model.training.data import TrainingVideo, load_part
from tasks.training.training_set import training_set
from tasks.worker import device

# The tokens and labels of recipe `release`; the text encoder of the set is the embedded one.
LOADED = replace(RELEASE, text_encoder="demo")
TEXT = RobertaConfig(
    hidden_size=1024,
    num_hidden_layers=24,
    num_attention_heads=16,
    intermediate_size=4096,
    vocab_size=50265,
    max_position_embeddings=514,
    type_vocab_size=1,
)
WORDS = 12


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    where = device()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        store = write_videos(root / "warehouse")
        started = time.perf_counter()
        keys = list(store.current("label"))
        videos = training_set(store, keys, LOADED, root / "cache", inference=False).videos
        print(f"writing the memory-mapped set: {time.perf_counter() - started:.1f} s, once")
        _loading(root / "plain", videos)
        _training(videos[0], where)


def _loading(folder: Path, videos: list[TrainingVideo]) -> None:
    """Seconds from files to what a step takes, per expression."""
    folder.mkdir()
    for v, video in enumerate(videos):
        for e in range(EXPRESSIONS):
            np.save(folder / f"{v}-{e}.npy", video.tokens_NTD.float().numpy())
            labels = {str(n): int(label) for n, label in enumerate(video.labels_EN[e])}
            (folder / f"{v}-{e}.json").write_text(json.dumps(labels))

    def plain() -> None:
        for v in range(VIDEOS):
            for e in range(EXPRESSIONS):
                labels = json.loads((folder / f"{v}-{e}.json").read_text())
                torch.tensor(list(labels.values()), dtype=torch.float32)
                torch.from_numpy(np.load(folder / f"{v}-{e}.npy"))

    def ours() -> None:
        for v in range(VIDEOS):
            load_part(videos, [(v, range(EXPRESSIONS))])

    _compare("loading", plain, ours, VIDEOS * EXPRESSIONS, VIDEOS * EXPRESSIONS, rounds=5)


def _training(video: TrainingVideo, where: str) -> None:
    """Seconds of forward, backward and step, per expression."""
    encoder = RobertaModel(TEXT, add_pooling_layer=False).to(where).train()
    words_1W = torch.randint(5, TEXT.vocab_size, (1, WORDS), device=where)
    texts = [torch.randn(WORDS, TEXT.hidden_size) for _ in range(EXPRESSIONS)]
    video = replace(video, texts=texts)
    tokens_NTD = video.tokens_NTD.to(where, torch.float32)
    labels_EN = video.labels_EN.to(where, torch.float32)

    def plain(step: Callable[[Callable[[], Tensor]], None], selector: TrackSelector) -> None:
        for e in range(2):

            def loss(e: int = e) -> Tensor:
                text_WC = encoder(words_1W).last_hidden_state[0]
                logits_N, objects_NC = selector(tokens_NTD, text_WC)
                negatives_AC = selector.negative_token.weight
                return total_loss(
                    logits_N, objects_NC, text_WC.mean(0), negatives_AC, labels_EN[e], RELEASE.loss
                ).total

            step(loss)

    def ours(step: Callable[[Callable[[], Tensor]], None], selector: TrackSelector) -> None:
        batch, labels_EN = load_part([video], [(0, range(EXPRESSIONS))])
        batch, labels_EN = batch.to(where), labels_EN.to(where)
        step(lambda: batch_losses(selector, batch, labels_EN, RELEASE)[0].total)

    optimised = _optimised(RELEASE, where)
    _compare(
        f"training on {where}, text encoder as the release runs it",
        lambda: plain(*optimised), lambda: ours(*optimised), 2, EXPRESSIONS, rounds=3,
    )  # fmt: skip
    encoder.requires_grad_(False)
    _compare(
        f"training on {where}, text encoder without gradients",
        lambda: plain(*optimised), lambda: ours(*optimised), 2, EXPRESSIONS, rounds=3,
    )  # fmt: skip


def _optimised(
    recipe: Recipe, where: str
) -> tuple[Callable[[Callable[[], Tensor]], None], TrackSelector]:
    """An optimiser step on a loss, and the selector that it changes."""
    selector = TrackSelector(recipe.selector).to(where).train()
    optimizer = torch.optim.AdamW(selector.parameters(), lr=recipe.training.learning_rate)

    def step(loss: Callable[[], Tensor]) -> None:
        optimizer.zero_grad()
        loss().backward()
        nn.utils.clip_grad_norm_(selector.parameters(), recipe.training.gradient_clip)
        optimizer.step()
        if where != "cpu":
            torch.cuda.synchronize()

    return step, selector


def _compare(
    what: str,
    plain: Callable[[], None],
    ours: Callable[[], None],
    plain_count: int,
    our_count: int,
    rounds: int,
) -> None:
    """The fastest of some rounds each, taken in turns, in seconds per expression.

    On the CPU, where all runs in this thread, they are its own: other processes do not count.
    """
    clock = time.thread_time if device() == "cpu" else time.perf_counter
    times: dict[str, list[float]] = {"plain": [], "ours": []}
    for _ in range(rounds):
        for name, run, count in (("plain", plain, plain_count), ("ours", ours, our_count)):
            started = clock()
            run()
            times[name].append((clock() - started) / count)
    slow, fast = min(times["plain"]), min(times["ours"])
    print(
        f"{what}: plain {1000 * slow:.3g} ms, ours {1000 * fast:.3g} ms an expression "
        f"({1 / fast:.3g} expressions/s), {slow / fast:.1f}x"
    )


if __name__ == "__main__":
    main()
