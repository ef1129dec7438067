"""Frozen text encoder: expressions -> one feature vector per text token.

Axes: W text tokens, C text channels.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path

import torch
from torch import Tensor

from sola_model.identity import folder_identity
from sola_model.memory import in_batches
from sola_model.text.words import with_words

BATCH = 32
DEMO_TEXT_ENCODER = Path(__file__).parents[1] / "demo" / "roberta"


def text_encoder_identity(name_or_path: str) -> str:
    """What names an encoder in fingerprints: the hash of a local folder's files, else its name."""
    folder = DEMO_TEXT_ENCODER if name_or_path == "demo" else Path(name_or_path)
    return folder_identity(folder) if folder.is_dir() else name_or_path


def text_encoder_dim(name_or_path: str) -> int:
    """The number of channels C of an encoder's features, from its configuration alone.

    Raises ValueError if that cannot be read.
    """
    from transformers import AutoConfig

    with _explained(name_or_path):
        return AutoConfig.from_pretrained(_source(name_or_path)).hidden_size


def _source(name_or_path: str) -> str:
    return str(DEMO_TEXT_ENCODER) if name_or_path == "demo" else name_or_path


@contextmanager
def _explained(name_or_path: str) -> Iterator[None]:
    """Errors of `from_pretrained` as a ValueError that says what to give."""
    try:
        yield
    except (OSError, ValueError) as error:
        raise ValueError(
            f"Text encoder {name_or_path!r} cannot be loaded: {error}\nGive a hub name such as "
            "'sentence-transformers/all-roberta-large-v1' (needs internet the first time) or "
            "a folder written by save_pretrained that holds model and tokenizer."
        ) from error


class TextEncoder:
    """A pretrained `transformers` text model, used as it is.

    The released selector reads `sentence-transformers/all-roberta-large-v1` (C = 1024), the paper
    RoBERTa; any other encoder serves as well. `dim` is the number of channels C of its features.
    """

    def __init__(self, name_or_path: str, device: str = "cpu") -> None:
        """Load from a hub name, a local folder or "demo", the embedded small RoBERTa.

        Raises ValueError if it cannot be read.
        """
        from transformers import AutoModel, AutoTokenizer  # slow to import, needed only here
        from transformers.utils.logging import disable_progress_bar

        disable_progress_bar()  # of weights read from disk; ours are over videos and epochs
        source = _source(name_or_path)
        with _explained(name_or_path):
            self.tokenizer = AutoTokenizer.from_pretrained(source)
            model = AutoModel.from_pretrained(source, dtype=torch.float32)
        if model.config.is_encoder_decoder:
            model = model.get_encoder()
        self.device = device
        self.model = model.to(device).eval().requires_grad_(False)
        self.dim: int = model.config.hidden_size
        self.max_tokens = _max_tokens(self.tokenizer.model_max_length, model)

    @torch.no_grad()
    def encode(self, texts: Sequence[str], *, words: bool = False) -> list[Tensor]:
        """Last hidden state (W, C) of each text, float32, on the CPU.

        W counts all tokens of the text, special ones included; there is no padding. With `words`
        channels that tell each token's id follow (`sola_model.text.words`).
        Raises ValueError for an empty text and for one longer than the encoder takes.
        """
        for text in texts:
            if fault := self.fault(text):
                raise ValueError(fault)

        def encode(part: slice) -> list[Tensor]:
            batch = self.tokenizer(list(texts[part]), padding=True, return_tensors="pt").to(
                self.device
            )
            hidden_EWC = self.model(**batch).last_hidden_state.cpu()
            if words:
                hidden_EWC = with_words(hidden_EWC, batch["input_ids"].cpu())
            real_EW = batch["attention_mask"].bool().cpu()
            return [
                hidden_WC[real_W] for hidden_WC, real_W in zip(hidden_EWC, real_EW, strict=True)
            ]

        return list(chain.from_iterable(in_batches("texts", BATCH, encode, len(texts))))

    def fault(self, text: str) -> str | None:
        """Why the encoder does not take a text, and what to do; None where it does."""
        if not text.strip():
            return f"The text {text!r} is empty: remove the expression or give it words."
        tokens = len(self.tokenizer(text)["input_ids"])
        if tokens > self.max_tokens:
            return (
                f"The text {text[:40]!r}... has {tokens} tokens, this encoder takes at most "
                f"{self.max_tokens}: shorten the expression."
            )
        return None


def _max_tokens(tokenizer_limit: int, model: torch.nn.Module) -> int:
    """Tokens the position table has room for; RoBERTa's starts after its padding index."""
    table = getattr(getattr(model, "embeddings", None), "position_embeddings", None)
    if table is None:  # relative positions
        return min(tokenizer_limit, getattr(model.config, "max_position_embeddings", 10**9))
    reserved = 0 if table.padding_idx is None else table.padding_idx + 1
    return min(tokenizer_limit, table.num_embeddings - reserved)
